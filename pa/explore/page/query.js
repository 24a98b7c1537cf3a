// The query: its image with clickable regions, its description, and its actions.

import { blob, get, options, paths, post, Problem } from "./api.js";
import { announce, byId, copyButton, el, picture, problemBox } from "./dom.js";
import { boxedImage, regionPicker } from "./picture.js";

export class QueryPane {
  constructor({ choose, visible, changeBox, chooseImage, again, random }) {
    Object.assign(this, { choose, visible, changeBox, chooseImage, again, random });
    this.pane = byId("query");
    this.body = el("div", { className: "query-body" });
    this.tools = el("div", { className: "actions", role: "group", aria: { label: "Actions of this query" } });
    this.facts = el("dl", { className: "facts" });
    this.inspector = el("aside", { id: "inspector", aria: { label: "Selected neighbour" }, hidden: true });
    this.pane.append(this.body, this.facts, this.tools, this.inspector);
    this.failure = el("div", { className: "failure" });
  }

  /** Show the query of the state. Return the number of its image, null without one, or the problem. */
  async show(state) {
    this.state = { ...state };
    this.failure.replaceChildren();
    if (state.own) return this.showOwn(state.own);
    if (state.row === null) return this.showNothing(state);
    const { gallery, row } = state;
    this.body.setAttribute("aria-busy", "true");
    try {
      const info = await get(`galleries/${gallery}/rows/${row}`, {}, { keep: true });
      if (this.state.row !== row || this.state.gallery !== gallery) return null;
      this.showRow(info);
      return info.image;
    } catch (problem) {
      if (this.state.row !== row) return null;
      this.picker = null;
      this.shownImage = null;
      const gone = problem.error === "not found";
      const way = gone ? [this.random, "A random region"] : [this.again];
      this.body.replaceChildren(problemBox(problem, ...way));
      this.facts.replaceChildren();
      this.tools.replaceChildren();
      return problem;
    } finally {
      this.body.removeAttribute("aria-busy");
    }
  }

  showNothing(state) {
    this.picker = null;
    this.shownImage = null;
    const words = state.lost
      ? "Your image is not stored when the page is reloaded. Choose it again."
      : "Choose an image at the left, or a random region.";
    const button = state.lost
      ? el("button", { type: "button", onclick: this.chooseImage }, "Choose an image")
      : null;
    this.body.replaceChildren(el("div", { className: "empty" }, el("p", {}, words), button));
    this.facts.replaceChildren();
    this.tools.replaceChildren();
    return null;
  }

  showRow(info) {
    const { gallery } = this.state;
    const region = info.regions.find((one) => one.row === info.row);
    const key = `${gallery}/${info.image}`;
    if (info.bad || !info.size) {
      const why = info.bad
        ? `This image could not be decoded at extraction (${info.bad}), so its regions have no features. Choose another image.`
        : "The file of this image is missing or has changed since the extraction, so its regions cannot be drawn. Set the dataset's root in pa.toml, or encode the image again with pa extract --replace; neighbours are those of the stored features.";
      this.picker = null;
      this.shownImage = null;
      this.body.replaceChildren(problemBox(new Problem({ error: "", message: why, commands: [] })));
    } else if (this.shownImage === key && this.picker) {
      this.picker.select(info.row);
    } else {
      this.picker = regionPicker({
        image: picture(paths.canvas(gallery, info.image), { alt: info.path }),
        size: info.size,
        regions: info.regions,
        row: info.row,
        choose: this.choose,
        name: `Regions of ${info.path}`,
      });
      this.body.replaceChildren(this.picker.frame);
      this.shownImage = key;
    }
    const label = [region?.label, info.image_label].filter((l, i, all) => l && all.indexOf(l) === i);
    const box = region ? region.box.map((value) => Number(value.toFixed(1))).join(", ") : "";
    this.writeFacts([
      ["row", info.row],
      ["label", label.join(" · ") || "none"],
      ["box", box],
      ["path", info.path],
    ]);
    this.writeTools();
  }

  showOwn(own) {
    this.picker = null;
    this.shownImage = null;
    const image = el("img", { src: own.url, alt: own.name });
    this.body.replaceChildren(boxedImage({ image, size: own.size, box: own.box }));
    this.writeFacts([
      ["image", `${own.name}, ${own.size[0]}×${own.size[1]}`],
      ["box", own.box.join(", ")],
    ]);
    this.writeTools();
    this.tools.prepend(el("button", { type: "button", onclick: this.changeBox }, "Change box"));
    return null;
  }

  writeFacts(facts) {
    this.facts.replaceChildren(
      ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]),
    );
  }

  writeTools() {
    const figure = (suffix, words) => {
      const button = el("button", { type: "button" }, words);
      button.addEventListener("click", () => this.download(suffix, button));
      return button;
    };
    const copy = copyButton(() => this.command(), "Copy pa search");
    copy.title = "The same query on the command line (c)";
    copy.id = "copy-command";
    this.tools.replaceChildren(copy, figure("png", "PNG"), figure("pdf", "PDF"), this.failure);
  }

  /** The `pa search` command of what is shown. */
  async command() {
    const { gallery, row, own } = this.state;
    const query = { column: this.visible(), ...options(this.state) };
    if (own) Object.assign(query, { name: own.name, box: own.box.join(",") });
    const path = own ? `galleries/${gallery}/own/command` : `galleries/${gallery}/rows/${row}/command`;
    try {
      return (await get(path, query)).command;
    } catch (problem) {
      this.failure.replaceChildren(problemBox(problem));
      throw problem;
    }
  }

  async download(suffix, button) {
    const { gallery, row, own } = this.state;
    const query = { column: this.visible(), ...options(this.state), suffix };
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    announce("Drawing the figure.");
    try {
      let file;
      if (own) {
        Object.assign(query, { name: own.name, box: own.box.join(",") });
        file = await (await post(`galleries/${gallery}/own/figure`, query, own.blob)).blob();
      } else {
        file = await blob(`galleries/${gallery}/rows/${row}/figure`, query);
      }
      const url = URL.createObjectURL(file);
      const name = own ? `query-own.${suffix}` : `query-${row}.${suffix}`;
      el("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      this.failure.replaceChildren();
    } catch (problem) {
      this.failure.replaceChildren(problemBox(problem, () => this.download(suffix, button)));
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  }

  /** Show the box of a neighbour from the same image. */
  point(row) {
    this.picker?.point(row);
  }

  focus() {
    this.body.querySelector(".hit[tabindex='0']")?.focus();
  }
}
