// An uploaded image: a file that is chosen, dropped or pasted, and a box that is drawn or typed.

import { byId, el, place, problemBox } from "./dom.js";

const KINDS = "image/jpeg,image/png,image/webp,image/gif,image/bmp";
const MOST_BYTES = 32 * 1024 * 1024;
const FEWEST = 4; // pixels of a side

export class OwnImage {
  constructor(done) {
    this.done = done;
    this.dialog = byId("own-dialog");
    this.file = el("input", { type: "file", accept: KINDS, id: "own-file" });
    this.file.addEventListener("change", () => this.file.files[0] && this.take(this.file.files[0]));
    this.failure = el("div", { className: "failure" });
    this.drop = el("div", { className: "drop" }, el("p", {}, "Drop or paste an image here, or choose a file."), this.file);
    this.stage = el("div", { className: "stage", hidden: true });
    this.numbers = ["x0", "y0", "x1", "y1"].map((name) =>
      el("input", { type: "number", min: 0, step: 1, inputMode: "numeric", id: `own-${name}`, aria: { label: name } }),
    );
    for (const number of this.numbers) number.addEventListener("change", () => this.typed());
    this.search = el("button", { type: "submit", className: "primary", disabled: true }, "Search");
    const form = el(
      "form",
      { method: "dialog" },
      el("h2", { id: "own-title" }, "A region of your image"),
      this.drop,
      this.stage,
      this.failure,
      el("div", { className: "field numbers" }, el("span", {}, "Box in pixels"), ...this.numbers),
      el(
        "p",
        { className: "hint" },
        "Draw the box with the pointer, or with the keys: arrows move it, Shift and arrows change its size. It is encoded with the encoder of each store, which is loaded at the first use.",
      ),
      el("div", { className: "actions" }, this.search, el("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.search.disabled) return;
      this.dialog.close();
      this.done({ name: this.name, blob: this.blob, url: this.url, size: this.size, box: [...this.box] });
    });
    this.dialog.append(form);
    for (const kind of ["dragenter", "dragover"]) {
      this.dialog.addEventListener(kind, (event) => event.preventDefault());
    }
    this.dialog.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
    addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      this.open();
      this.take(file);
    });
  }

  /** Open the dialog; with an earlier image, to change its box. */
  async open(own = null) {
    if (!this.dialog.open) this.dialog.showModal();
    if (own) {
      await this.take(own.blob, own.name);
      this.setBox(own.box);
    }
  }

  async take(file, name = file.name) {
    this.failure.replaceChildren();
    if (file.size > MOST_BYTES) {
      this.refuse(`The file has ${Math.round(file.size / 1048576)} MB; the limit is 32 MB. Make it smaller.`);
      return;
    }
    const url = URL.createObjectURL(file);
    const image = el("img", { src: url, alt: name, draggable: false });
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(url);
      this.refuse(`${name} is not an image that the browser can show. Take a JPEG, PNG, WebP, GIF or BMP.`);
      return;
    }
    Object.assign(this, { blob: file, name: name || "pasted.png", url });
    this.size = [image.naturalWidth, image.naturalHeight];
    this.frame(image);
    const [width, height] = this.size;
    const side = Math.min(width, height) / 2;
    const [x, y] = [(width - side) / 2, (height - side) / 2];
    this.setBox([x, y, x + side, y + side]);
    this.search.disabled = false;
    this.boxElement.focus();
  }

  refuse(message) {
    this.failure.replaceChildren(problemBox({ message, commands: [] }));
  }

  frame(image) {
    this.boxElement = el("div", {
      className: "box chosen",
      tabIndex: 0,
      role: "group",
      aria: { label: "The box. Arrows move it, Shift and arrows change its size." },
    });
    const frame = el("div", { className: "frame drawing" }, image, this.boxElement);
    frame.style.setProperty("--ratio", this.size[0] / this.size[1]);
    this.stage.replaceChildren(frame);
    this.stage.hidden = false;
    let from = null;
    const at = (event) => {
      const { left, top, width, height } = frame.getBoundingClientRect();
      return [
        (Math.min(Math.max(event.clientX - left, 0), width) * this.size[0]) / width,
        (Math.min(Math.max(event.clientY - top, 0), height) * this.size[1]) / height,
      ];
    };
    frame.addEventListener("pointerdown", (event) => {
      from = at(event);
      frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [x, y] = at(event);
      this.setBox([Math.min(from[0], x), Math.min(from[1], y), Math.max(from[0], x), Math.max(from[1], y)]);
    });
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (from = null));
    this.boxElement.addEventListener("keydown", (event) => {
      const step = Math.max(1, Math.round(Math.max(...this.size) / 100));
      const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
      if (!dx && !dy) return;
      event.preventDefault();
      const [x0, y0, x1, y1] = this.box;
      if (event.shiftKey) this.setBox([x0, y0, x1 + dx, y1 + dy]);
      else {
        const inside = (low, high, by, most) => Math.min(Math.max(by, -low), most - high);
        const [mx, my] = [inside(x0, x1, dx, this.size[0]), inside(y0, y1, dy, this.size[1])];
        this.setBox([x0 + mx, y0 + my, x1 + mx, y1 + my]);
      }
    });
  }

  typed() {
    const typed = this.numbers.map((number) => Number(number.value));
    if (this.size && typed.every(Number.isFinite)) this.setBox(typed);
  }

  /** Round to whole pixels inside the image, with a minimum size. */
  setBox([x0, y0, x1, y1]) {
    const [width, height] = this.size;
    const span = (low, high, most) => {
      const first = Math.round(Math.min(Math.max(low, 0), most - Math.min(FEWEST, most)));
      const last = Math.round(Math.min(Math.max(high, first + Math.min(FEWEST, most)), most));
      return [first, last];
    };
    const [left, right] = span(x0, x1, width);
    const [top, bottom] = span(y0, y1, height);
    this.box = [left, top, right, bottom];
    place(this.boxElement, this.box, this.size);
    this.numbers.forEach((number, at) => (number.value = this.box[at]));
  }
}
