// Keys that work everywhere except in a field, and the list of them.

import { byId, el } from "./dom.js";

const LISTED = [
  ["/", "search images"],
  ["r", "a random region"],
  ["o", "your image"],
  ["q", "to the regions of the query"],
  ["n", "to the neighbours"],
  ["b", "back to the previous query"],
  ["c", "copy the pa search command"],
  ["arrows", "move among images, regions, neighbours"],
  ["Tab", "to the next column"],
  ["Enter", "make it the query"],
  ["?", "this list"],
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

/** Use the colours of the system, or those chosen here, which are stored. */
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
    // storage is disabled
  }
  show(now);
  button.addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    show(now);
    try {
      localStorage.setItem("pa-theme", now);
    } catch {
      // storage is disabled
    }
  });
}
