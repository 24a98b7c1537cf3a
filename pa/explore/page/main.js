// The page: controls change `state`, and every part then shows the new state.

import { get, paths, Problem } from "./api.js";
import { byId, commandLine, el, picture, problemBox } from "./dom.js";
import { Columns } from "./columns.js";
import { Images } from "./images.js";
import { keys, themes } from "./keys.js";
import { OwnImage } from "./own.js";
import { QueryPane } from "./query.js";
import { begin, goTo, goToOwn, link, onChange, openGallery, read, set, settle, state, trail } from "./state.js";

const main = document.querySelector("main");
let workspace = null;

const gallery = () => workspace?.galleries.find((one) => one.id === state.gallery) ?? null;

/** The columns to show, in the order of the gallery. */
function visible() {
  const all = gallery()?.columns ?? [];
  const chosen = state.columns ? all.filter((column) => state.columns.includes(column.id)) : all;
  return chosen.length ? chosen : all;
}

const own = new OwnImage(goToOwn);
const query = new QueryPane({
  choose: goTo,
  visible: () => visible().map((column) => column.id),
  changeBox: () => own.open(state.own),
  chooseImage: () => own.open(),
  again: () => show(),
  random: () => random(),
});
const columns = new Columns({ choose: goTo, point: (row) => query.point(row) });
// The region in the middle of an image is selected first.
const images = new Images((entry) => goTo(entry.first_row + Math.floor(entry.n_rows / 2)));

async function show() {
  const found = gallery();
  if (!found) return;
  byId("gallery").value = found.id;
  byId("k").value = state.k;
  byId("exclude").checked = state.exclude;
  byId("self").checked = state.self;
  byId("self").disabled = Boolean(state.own);
  showChoices(found);
  showTrail();
  document.title = `${state.own ? state.own.name : state.row === null ? "" : `#${state.row}`} ${name(found)} · pa explore`.trim();
  images.open_gallery(found.id);
  columns.show(state, visible());
  const image = await query.show(state);
  // Shown once, at the query: the columns do not repeat it.
  if (image instanceof Problem) columns.stop();
  else images.show(image);
}

// -- galleries ----------------------------------------------------------------------------------

function name({ dataset, split, view, protocol }) {
  return [dataset, split, view, protocol].filter(Boolean).join(" / ");
}

function describe(one) {
  const rows = `${one.n_rows.toLocaleString("en")} regions of ${one.n_images.toLocaleString("en")} images`;
  const encoders = [...new Set(one.columns.map((column) => column.encoder))];
  return `${name(one)}: ${rows}${encoders.length ? ` · ${encoders.join(", ")}` : ""}`;
}

async function load() {
  main.setAttribute("aria-busy", "true");
  try {
    workspace = await get("workspace");
  } catch (problem) {
    stop(problemBox(problem, () => location.reload()));
    return;
  }
  const usable = workspace.galleries.filter((one) => one.columns.length);
  if (!usable.length) {
    stop(nothingYet());
    return;
  }
  main.removeAttribute("aria-busy");
  byId("gallery").replaceChildren(...usable.map((one) => el("option", { value: one.id }, describe(one))));
  byId("gallery").disabled = false;
  read();
  const asked = state.gallery;
  if (!usable.some((one) => one.id === asked)) {
    settle({ gallery: usable[0].id, row: asked ? null : state.row, columns: null });
  }
  if (state.row === null && !state.lost) {
    const random = await get(`galleries/${state.gallery}/random`).catch(() => null);
    if (random) settle({ row: random.row });
  } else if (!state.lost) settle({});
  onChange(show);
  begin();
}

function stop(content) {
  main.removeAttribute("aria-busy");
  main.className = "stopped";
  main.replaceChildren(content);
  for (const control of document.querySelectorAll(".bar button:not(#theme), .bar input, .bar select")) control.disabled = true;
}

function nothingYet() {
  const unfinished = workspace.galleries.flatMap((one) => one.unfinished);
  const words = unfinished.length
    ? "No store of this workspace is complete yet. Complete one, then load this page again:"
    : "There are no features in this workspace yet. Encode the regions of a dataset, build the indexes, then load this page again:";
  const commands = unfinished.length
    ? unfinished.map((store) => store.command)
    : [
        "pa extract --encoder NAME --dataset folder --root PHOTOS --view grid",
        "pa index build --representation cls,pooled",
        "pa demo",
      ];
  return el(
    "div",
    { className: "empty" },
    el("h2", {}, "No features yet"),
    el("p", {}, words),
    ...commands.map(commandLine),
    el("p", { className: "quiet" }, `Workspace: ${workspace.workspace}`),
    ...workspace.faults.map((fault) => problemBox({ message: fault, commands: [] })),
    el("button", { type: "button", onclick: () => location.reload() }, "Load again"),
  );
}

// -- columns and trail --------------------------------------------------------------------------

function showChoices(found) {
  const now = new Set(visible().map((column) => column.id));
  byId("chosen").textContent = `${now.size} of ${found.columns.length}`;
  const boxes = found.columns.map((column) => {
    const box = el("input", { type: "checkbox", checked: now.has(column.id) });
    box.addEventListener("change", () => {
      if (box.checked) now.add(column.id);
      else now.delete(column.id);
      if (!now.size) {
        box.checked = true;
        now.add(column.id);
        return;
      }
      const chosen = found.columns.map((one) => one.id).filter((id) => now.has(id));
      set({ columns: chosen.length === found.columns.length ? null : chosen });
      byId("choices").querySelectorAll("input")[found.columns.indexOf(column)]?.focus();
    });
    const note = column.indexed ? "" : " (no index yet)";
    return el("label", { className: "check", title: column.store }, box, ` ${column.encoder} · ${column.representation}${note}`);
  });
  const waiting = found.unfinished.map((store) =>
    el("div", { className: "unfinished" }, el("p", {}, `${store.encoder} is not finished:`), commandLine(store.command)),
  );
  byId("choices").replaceChildren(...boxes, ...waiting);
}

function showTrail() {
  const steps = trail();
  const list = el("ol");
  for (const [at, step] of steps.entries()) {
    const back = at - (steps.length - 1);
    const current = back === 0;
    const what = step.own ? step.own : `row ${step.row}`;
    const inside = step.own
      ? el("span", { className: "own-step" }, "own")
      : picture(paths.region(state.gallery, step.row), { width: 30, height: 30 });
    const item = el(
      "a",
      {
        href: step.own ? "#" : link(step.row),
        title: what,
        aria: { label: current ? `${what}, shown now` : `back to ${what}`, ...(current ? { current: "step" } : {}) },
      },
      inside,
    );
    item.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      if (back) history.go(back);
    });
    list.append(el("li", {}, item));
  }
  byId("trail").replaceChildren(list);
  list.scrollLeft = list.scrollWidth;
}

// -- controls -----------------------------------------------------------------------------------

async function random() {
  if (!state.gallery) return;
  const found = await get(`galleries/${state.gallery}/random`).catch(() => null);
  if (found) goTo(found.row);
}

byId("gallery").addEventListener("change", async (event) => {
  const id = event.target.value;
  const found = await get(`galleries/${id}/random`).catch(() => null);
  openGallery(id, found?.row ?? null);
});
byId("k").addEventListener("change", (event) => {
  const k = Math.min(Math.max(Math.round(Number(event.target.value)) || 24, 1), 1000);
  event.target.value = k;
  set({ k });
});
byId("exclude").addEventListener("change", (event) => set({ exclude: event.target.checked, self: false }));
byId("self").addEventListener("change", (event) => set({ self: event.target.checked, exclude: false }));
byId("random").addEventListener("click", random);
byId("own").addEventListener("click", () => own.open());
addEventListener("click", (event) => {
  const menu = byId("choose");
  if (menu.open && !menu.contains(event.target) && event.target.isConnected) menu.open = false;
});
byId("choose").addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    byId("choose").open = false;
    byId("choose").querySelector("summary").focus();
  }
});

themes();
keys({
  "/": () => byId("text").focus(),
  r: random,
  o: () => own.open(),
  q: () => query.focus(),
  n: () => columns.focus(),
  b: () => history.back(),
  c: () => byId("copy-command")?.click(),
});
load();
