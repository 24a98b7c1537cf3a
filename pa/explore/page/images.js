// The images of a gallery as thumbnails. Only visible ones are in the page, so that a list of a
// million scrolls like a list of a hundred.

import { get, paths } from "./api.js";
import { announce, byId, el, picture, problemBox } from "./dom.js";

const PAGE = 200;
const TALLEST = 8_000_000; // pixels; browsers draw nothing far beyond
const CELL = { width: 92, height: 108 };
const MARGIN = 3; // rows above and below

export class Images {
  constructor(choose) {
    this.choose = choose;
    this.box = byId("thumbs");
    this.inner = el("div", { className: "inner", role: "presentation" });
    this.box.append(this.inner);
    this.cells = new Map();
    this.pages = new Map();
    this.total = 0;
    this.active = 0;
    this.current = null;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("keydown", (event) => this.move(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
    let waiting;
    byId("text").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.find(), 150);
    });
    byId("text").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        event.preventDefault();
        clearTimeout(waiting);
        this.find().then(() => (event.key === "Enter" ? this.open(0) : this.focus(0)));
      }
    });
  }

  async open_gallery(gallery) {
    if (gallery === this.gallery) return;
    this.gallery = gallery;
    byId("text").value = "";
    await this.find();
  }

  async find() {
    const asked = `${this.gallery}\n${byId("text").value.trim()}`;
    if (asked === this.asked) return;
    this.asked = asked;
    this.text = byId("text").value.trim();
    this.pages.clear();
    this.inner.replaceChildren();
    this.cells.clear();
    this.active = 0;
    this.box.scrollTop = 0;
    this.box.setAttribute("aria-busy", "true");
    try {
      const first = await this.page(0);
      if (asked !== this.asked) return;
      this.total = first.total;
      const images = `${this.total.toLocaleString("en")} image${this.total === 1 ? "" : "s"}`;
      byId("found").textContent = images;
      if (this.text) announce(`${images} found.`);
      if (!this.total) this.inner.append(this.nothing());
      this.draw();
    } catch (problem) {
      if (asked !== this.asked) return;
      this.asked = null;
      this.total = 0;
      this.inner.style.removeProperty("height");
      this.inner.replaceChildren(problemBox(problem, () => this.find()));
    } finally {
      this.box.removeAttribute("aria-busy");
    }
  }

  nothing() {
    this.inner.style.removeProperty("height");
    const clear = () => {
      byId("text").value = "";
      this.find();
      byId("text").focus();
    };
    const words = `No image has ${JSON.stringify(this.text)} in its path, label or parts.`;
    const button = el("button", { type: "button", onclick: clear }, "Show all images");
    return el("div", { className: "empty" }, el("p", {}, this.text ? words : "No images."), button);
  }

  page(number) {
    if (!this.pages.has(number)) {
      const query = { text: this.text, offset: number * PAGE, limit: PAGE };
      const coming = get(`galleries/${this.gallery}/images`, query);
      const entry = { coming, images: null };
      coming.then((found) => (entry.images = found.images)).catch(() => this.pages.delete(number));
      this.pages.set(number, entry);
    }
    return this.pages.get(number).coming;
  }

  layout() {
    const perRow = Math.max(1, Math.floor(this.box.clientWidth / CELL.width));
    const rows = Math.ceil(this.total / perRow);
    const real = rows * CELL.height;
    const tall = Math.min(real, TALLEST);
    const seen = this.box.clientHeight;
    const scale = real > tall ? (real - seen) / (tall - seen) : 1;
    return { perRow, rows, tall, seen, scale };
  }

  draw() {
    if (!this.total || !this.box.clientHeight) return;
    const { perRow, rows, tall, seen, scale } = this.layout();
    const { scrollTop } = this.box;
    const top = scrollTop * scale;
    const first = Math.max(0, Math.floor(top / CELL.height) - MARGIN);
    const last = Math.min(rows, Math.ceil((top + seen) / CELL.height) + MARGIN);
    this.inner.style.setProperty("height", `${tall}px`);
    const wanted = new Set();
    const width = this.box.clientWidth / perRow;
    for (let at = first * perRow; at < Math.min(last * perRow, this.total); at += 1) {
      wanted.add(at);
      const cell = this.cells.get(at) ?? this.cell(at);
      const y = Math.floor(at / perRow) * CELL.height - top + scrollTop;
      cell.style.setProperty("transform", `translate(${(at % perRow) * width}px, ${y}px)`);
      cell.style.setProperty("width", `${width}px`);
    }
    for (const [at, cell] of this.cells) {
      if (wanted.has(at) || cell === document.activeElement) continue;
      cell.remove();
      this.cells.delete(at);
    }
  }

  cell(at) {
    const button = el("button", {
      type: "button",
      className: "thumb",
      role: "option",
      tabIndex: at === this.active ? 0 : -1,
      aria: { posinset: at + 1, setsize: this.total },
      onclick: () => this.open(at),
      onfocus: () => this.activate(at),
    });
    this.cells.set(at, button);
    this.inner.append(button);
    const fill = (images) => {
      const entry = images[at % PAGE];
      if (!entry || !button.isConnected) return;
      const label = entry.label ?? "";
      button.title = `${entry.path}\nrows ${entry.first_row} to ${entry.first_row + entry.n_rows - 1}`;
      button.setAttribute("aria-label", `${label} ${entry.path.split("/").pop()}`);
      button.dataset.image = entry.image;
      this.mark(button);
      button.replaceChildren(
        picture(paths.thumbnail(this.gallery, entry.image)),
        el("span", {}, label || entry.path.split("/").pop()),
      );
    };
    const page = Math.floor(at / PAGE);
    this.page(page).then((found) => fill(found.images)).catch(() => {});
    return button;
  }

  mark(button) {
    button.setAttribute("aria-selected", String(Number(button.dataset.image) === this.current));
  }

  /** Mark the image of the query. */
  show(image) {
    this.current = image;
    for (const cell of this.cells.values()) this.mark(cell);
  }

  async open(at) {
    const found = await this.page(Math.floor(at / PAGE)).catch(() => null);
    const entry = found?.images[at % PAGE];
    if (entry) this.choose(entry);
  }

  activate(at) {
    this.active = at;
    for (const [place, cell] of this.cells) cell.tabIndex = place === at ? 0 : -1;
  }

  focus(at) {
    if (!this.total) return;
    const { perRow, seen, scale } = this.layout();
    this.activate(at);
    const y = Math.floor(at / perRow) * CELL.height;
    const top = this.box.scrollTop * scale;
    if (y < top) this.box.scrollTop = y / scale;
    else if (y + CELL.height > top + seen) this.box.scrollTop = (y + CELL.height - seen) / scale;
    this.draw();
    this.cells.get(at)?.focus({ preventScroll: true });
  }

  move(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { perRow, seen } = this.layout();
    const page = perRow * Math.max(1, Math.floor(seen / CELL.height));
    const step = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: perRow,
      ArrowUp: -perRow,
      PageDown: page,
      PageUp: -page,
      Home: -this.total,
      End: this.total,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const to = Math.min(Math.max(this.active + step, 0), this.total - 1);
    if (Math.abs(step) > 1 && Math.abs(step) < page && to !== this.active + step) return;
    this.focus(to);
  }
}
