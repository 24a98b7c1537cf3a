// Keys that work everywhere but in a field, and the sheet that lists them.

import { byId, el } from "./dom.js";

const LISTED = [
  ["/", "search images"],
  ["r", "a random region"],
  ["o", "an image of your own"],
  ["q", "to the regions of the query"],
  ["n", "to the neighbours"],
  ["b", "back to the query before"],
  ["c", "copy the pa search command"],
  ["arrows", "move among images, regions, neighbours"],
  ["Tab", "to the next column"],
  ["Enter", "make it the query"],
  ["?", "this sheet"],
];

export function keys(actions) {
  const dialog = byId("keys-dialog");
  dialog.append(
    el("h2", { id: "keys-title" }, "Keys"),
    el("dl", { className: "keys" }, ...LISTED.flatMap(([key, does]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, does)])),
    el("form", { method: "dialog" }, el("button", {}, "Close")),
  );
  const help = () => dialog.showModal();
  byId("help").addEventListener("click", help);
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const action = event.key === "?" ? help : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// -- colours ------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "○", dark: "●" };

/** Colours as the system has them, or chosen here and remembered. */
export function themes() {
  const button = byId("theme");
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = SIGNS[theme];
    button.title = `Colours: ${theme}`;
    button.setAttribute("aria-label", `Colours: ${theme}`);
  };
  let now = "auto";
  try {
    now = THEMES.find((theme) => theme === localStorage.getItem("pa-theme")) ?? "auto";
  } catch {
    // a browser that keeps nothing
  }
  show(now);
  button.addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    show(now);
    try {
      localStorage.setItem("pa-theme", now);
    } catch {
      // then only until the page is left
    }
  });
}
