// The selected neighbour: its box in its whole image, and its description.

import { get, paths } from "./api.js";
import { byId, el, picture } from "./dom.js";
import { boxedImage } from "./picture.js";

const DELAY = 60; // milliseconds; a pointer that only passes sends no request
let waiting;
let shown = null;

function twins(row) {
  for (const patch of document.querySelectorAll(".patch.twin")) patch.classList.remove("twin");
  if (row === null) return;
  const same = document.querySelectorAll(`.patch[data-row="${row}"]`);
  if (same.length > 1) for (const patch of same) patch.classList.add("twin");
}

/** Show a neighbour; on touch screens a button calls `choose`. */
export function inspect(gallery, neighbour, choose) {
  clearTimeout(waiting);
  shown = neighbour.row;
  twins(neighbour.row);
  waiting = setTimeout(async () => {
    const info = await get(`galleries/${gallery}/rows/${neighbour.row}`, {}, { keep: true }).catch(() => null);
    if (!info || shown !== neighbour.row) return;
    const box = byId("inspector");
    if (!box) return;
    const image = picture(paths.canvas(gallery, info.image), { alt: "" });
    const use = el("button", { type: "button", className: "use", onclick: choose }, "Make it the query");
    box.replaceChildren(
      boxedImage({ image, size: info.size ?? [1, 1], box: neighbour.box }),
      el(
        "dl",
        { className: "facts" },
        ...fact("cosine", neighbour.cosine.toFixed(4)),
        ...fact("rank", `${neighbour.rank} in ${neighbour.column}`),
        ...fact("label", [neighbour.label, info.image_label].filter((l, i, all) => l && all.indexOf(l) === i).join(" · ") || "none"),
        ...fact("row", neighbour.row),
        ...fact("path", info.path),
      ),
      use,
    );
    box.hidden = false;
  }, DELAY);
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, String(value))];

/** The pointer has left: keep the neighbour visible until the next query. */
export function leave() {
  clearTimeout(waiting);
  shown = null;
  twins(null);
}

export function clear() {
  leave();
  const box = byId("inspector");
  if (box) {
    box.hidden = true;
    box.replaceChildren();
  }
}
