// Elements, and those that several parts of the page share.

/** An element with properties; those of `data`, `aria` and `style` are set individually. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "data") Object.assign(made.dataset, value);
    else if (name === "style") for (const [key, v] of Object.entries(value)) made.style.setProperty(key, v);
    else if (name === "aria") for (const [key, v] of Object.entries(value)) made.setAttribute(`aria-${key}`, v);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list" && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Announce a text to screen readers. */
export function announce(text) {
  byId("status").textContent = text;
}

/** An image that is loaded again after a failure, and then shows the failure. */
export function picture(src, properties = {}) {
  let again = false;
  const image = el("img", { decoding: "async", alt: "", draggable: false, ...properties });
  image.addEventListener("error", () => {
    image.classList.add("broken");
    if (!again) setTimeout(() => (image.src = `${src}?again=1`), 1200);
    again = true;
  });
  image.addEventListener("load", () => image.classList.remove("broken"));
  image.src = src;
  return image;
}

/** Put a box (x0, y0, x1, y1) on an image of a size, in per cent of it. */
export function place(element, [x0, y0, x1, y1], [width, height]) {
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  const [left, right] = [inside(x0, width), inside(x1, width)];
  const [top, bottom] = [inside(y0, height), inside(y1, height)];
  const style = element.style;
  style.setProperty("left", `${(100 * left) / width}%`);
  style.setProperty("top", `${(100 * top) / height}%`);
  style.setProperty("width", `${(100 * (right - left)) / width}%`);
  style.setProperty("height", `${(100 * (bottom - top)) / height}%`);
  return element;
}

/** A button that copies a text and confirms it. */
export function copyButton(text, words = "Copy") {
  const button = el("button", { type: "button", className: "copy" }, words);
  button.addEventListener("click", async () => {
    await copy(typeof text === "function" ? await text() : text);
    button.textContent = "Copied";
    announce("Copied.");
    setTimeout(() => (button.textContent = words), 1600);
  });
  return button;
}

/** Copy a text, also on pages that browsers do not regard as secure. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch {
      // not permitted: use the fallback below
    }
  }
  const before = document.activeElement;
  const field = el("textarea", { value: text, className: "unseen" });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  before?.focus();
}

/** A command to type, and a button that copies it. */
export function commandLine(command) {
  return el("div", { className: "command" }, el("code", {}, command), copyButton(command));
}

/** A problem: its message, its commands, and a button to try again. */
export function problemBox(problem, retry, words = "Try again") {
  const lines = problem.message
    .split("\n")
    .filter((line) => !problem.commands.includes(line.trim()))
    .map((line) => el("p", {}, line));
  const box = el("div", { className: "problem", role: "alert" }, ...lines);
  box.append(...problem.commands.map(commandLine));
  if (retry) box.append(el("button", { type: "button", onclick: () => retry() }, words));
  return box;
}

/** Arrow keys in a list of elements, one of which is in the tab order. */
export function roving(container, selector, perRow) {
  container.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const items = [...container.querySelectorAll(selector)];
    const at = items.indexOf(document.activeElement);
    if (at < 0) return;
    const row = perRow();
    const to = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at + row,
      ArrowUp: at - row,
      Home: 0,
      End: items.length - 1,
    }[event.key];
    if (to === undefined || !items[to]) return;
    event.preventDefault();
    setActive(items, items[to]);
    items[to].focus();
  });
  container.addEventListener("focusin", (event) => {
    const items = [...container.querySelectorAll(selector)];
    if (items.includes(event.target)) setActive(items, event.target);
  });
}

export function setActive(items, active) {
  for (const item of items) item.tabIndex = item === active ? 0 : -1;
}
