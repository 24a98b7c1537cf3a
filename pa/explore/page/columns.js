// The neighbours: one column per encoder and representation, filled as responses arrive.

import { get, options, paths, post } from "./api.js";
import { announce, byId, el, picture, problemBox, roving, setActive } from "./dom.js";
import { clear, inspect, leave } from "./inspector.js";
import { legend, shareBar } from "./shares.js";
import { link } from "./state.js";

const canHover = matchMedia("(hover: hover)");

export class Columns {
  constructor({ choose, point }) {
    Object.assign(this, { choose, point });
    this.box = byId("columns");
    this.parts = new Map();
    this.asking = new AbortController();
  }

  /** Search again for a state; `infos` are the columns to show. */
  async show(state, infos) {
    this.asking.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    this.state = { ...state };
    this.answers = new Map();
    this.refocus = this.focusedColumn();
    clear();
    this.lay(infos);
    if (state.row === null && !state.own) {
      this.stop();
      return;
    }
    const began = performance.now();
    const asked = infos.filter((info) => this.ready(info));
    const work = state.own
      ? this.byStore(asked).map((group) => this.askOwn(group, signal))
      : asked.map((info) => this.ask(info, signal));
    await Promise.all(work);
    if (signal.aborted) return;
    performance.measure("neighbours", { start: began });
    announce(`Neighbours of ${state.own ? state.own.name : `row ${state.row}`} in ${this.answers.size} columns.`);
  }

  /** Cancel running requests if there is no query. */
  stop() {
    this.asking.abort();
    for (const part of this.parts.values()) this.empty(part);
    legend([]);
  }

  focusedColumn() {
    const list = document.activeElement?.closest?.(".patches");
    return list ? list.closest(".column").dataset.column : null;
  }

  lay(infos) {
    const wanted = new Set(infos.map((info) => info.id));
    for (const [id, part] of this.parts) {
      if (wanted.has(id)) continue;
      part.section.remove();
      this.parts.delete(id);
    }
    this.box.style.setProperty("--columns", infos.length);
    for (const info of infos) {
      let part = this.parts.get(info.id);
      if (!part) this.parts.set(info.id, (part = this.column(info)));
      part.info = info;
      part.section.classList.add("stale");
      part.section.setAttribute("aria-busy", "true");
      this.box.append(part.section);
    }
  }

  column(info) {
    const name = `${info.encoder} · ${info.representation}`;
    const words = [el("b", {}, info.encoder), " ", el("span", {}, info.representation)];
    const title = el("h2", { id: `title-${info.id}` }, ...words);
    const note = el("span", { className: "note" });
    const bar = el("div", { className: "bar-place" });
    const body = el("div", { className: "body" });
    const header = el("header", { title: `${info.store}, ${info.width} wide` }, title, note, bar);
    const section = el(
      "section",
      { className: "column", data: { column: info.id }, aria: { labelledby: title.id } },
      header,
      body,
    );
    return { section, note, bar, body, name };
  }

  settle(part, ...content) {
    part.section.classList.remove("stale");
    part.section.removeAttribute("aria-busy");
    part.body.replaceChildren(...content);
  }

  empty(part) {
    part.note.textContent = "";
    part.bar.replaceChildren();
    this.settle(part);
  }

  /** Return whether a column has an index; otherwise show the command that builds it. */
  ready(info) {
    if (info.indexed) return true;
    const part = this.parts.get(info.id);
    const problem = {
      message: "No index yet. Build it, then try again:",
      commands: [info.command],
    };
    this.empty(part);
    this.settle(part, problemBox(problem, () => this.again(info)));
    return false;
  }

  async again(info) {
    info.indexed = true; // if not, the server reports it again
    const part = this.parts.get(info.id);
    part.section.classList.add("stale");
    const { signal } = this.asking;
    await (this.state.own ? this.askOwn([info], signal) : this.ask(info, signal));
  }

  byStore(infos) {
    const groups = new Map();
    for (const info of infos) groups.set(info.store, [...(groups.get(info.store) ?? []), info]);
    return [...groups.values()];
  }

  async ask(info, signal) {
    const { gallery, row } = this.state;
    const query = { column: info.id, ...options(this.state) };
    try {
      const path = `galleries/${gallery}/rows/${row}/neighbours`;
      this.fill(await get(path, query, { signal, keep: true }), signal);
    } catch (problem) {
      this.fail(problem, [info], signal);
    }
  }

  async askOwn(infos, signal) {
    const { gallery, own } = this.state;
    const query = {
      column: infos.map((info) => info.id),
      ...options(this.state),
      name: own.name,
      box: own.box.join(","),
    };
    try {
      const response = await post(`galleries/${gallery}/own/neighbours`, query, own.blob, { signal });
      for (const answer of await response.json()) this.fill(answer, signal);
    } catch (problem) {
      this.fail(problem, infos, signal);
    }
  }

  fail(problem, infos, signal) {
    if (problem.name === "AbortError" || signal.aborted) return;
    for (const info of infos) {
      const part = this.parts.get(info.id);
      if (!part) continue;
      this.empty(part);
      this.settle(part, problemBox({ commands: [], ...problem, message: problem.message }, () => this.again(info)));
    }
  }

  fill(answer, signal) {
    const part = this.parts.get(answer.column);
    if (!part || signal.aborted) return;
    this.answers.set(answer.column, answer);
    const { neighbours, index } = answer.result;
    const list = el("ol", { className: "patches", aria: { label: `Neighbours by ${part.name}` } });
    const images = new Map(neighbours.map((neighbour, at) => [neighbour.row, answer.images[at][0]]));
    for (const neighbour of neighbours) {
      list.append(el("li", {}, this.patch({ ...neighbour, column: part.name })));
    }
    const patches = () => [...list.querySelectorAll(".patch")];
    setActive(patches(), patches()[0]);
    roving(list, ".patch", () => getComputedStyle(list).gridTemplateColumns.split(" ").length);
    const exact = index.quality === "exact" ? "" : ` · ${index.quality}`;
    part.note.textContent = `${Math.round(1000 * answer.seconds)} ms${exact}`;
    const bar = shareBar(answer.shares);
    part.bar.replaceChildren(...(bar ? [bar] : []));
    this.settle(part, list);
    part.images = images;
    legend([...this.answers.values()]);
    if (this.refocus === answer.column) {
      this.refocus = null;
      if (document.activeElement === document.body) patches()[0]?.focus({ preventScroll: true });
    }
  }

  patch(neighbour) {
    const { gallery } = this.state;
    const cosine = neighbour.cosine.toFixed(3);
    const label = neighbour.label ?? "";
    const show = () => {
      inspect(gallery, neighbour, () => this.choose(neighbour.row));
      this.point(neighbour.row);
    };
    const hide = () => {
      leave();
      this.point(null);
    };
    const patch = el(
      "a",
      {
        className: "patch",
        href: link(neighbour.row),
        data: { row: neighbour.row, cosine: neighbour.cosine, rank: neighbour.rank },
        aria: { label: `Rank ${neighbour.rank}, cosine ${cosine}, ${label || "no label"}, row ${neighbour.row}` },
        draggable: false,
        onmouseenter: show,
        onfocus: show,
        onmouseleave: hide,
        onblur: hide,
      },
      picture(paths.region(gallery, neighbour.row), { width: 112, height: 112, loading: "lazy" }),
      el("span", { className: "cosine" }, cosine),
      el("span", { className: "label", title: label }, label),
    );
    patch.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      // A tap only shows it; the inspector then has a button to select it.
      if (event.pointerType === "touch" && !canHover.matches) show();
      else this.choose(neighbour.row);
    });
    return patch;
  }

  focus() {
    this.box.querySelector(".patch[tabindex='0']")?.focus();
  }
}
