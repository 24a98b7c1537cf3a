// An image with the boxes of its regions, each of which can be clicked.

import { el, place, roving, setActive } from "./dom.js";

/** The clickable areas of regions: windows of a grid divide the image, other boxes overlap. */
function areas(regions, size) {
  const centres = (axis) =>
    [...new Set(regions.map(({ box }) => (box[axis] + box[axis + 2]) / 2))].sort((a, b) => a - b);
  const [xs, ys] = [centres(0), centres(1)];
  if (regions.length > 1 && xs.length * ys.length === regions.length) {
    const edges = (middles, most) => [
      0,
      ...middles.slice(1).map((middle, at) => (middle + middles[at]) / 2),
      most,
    ];
    const [ex, ey] = [edges(xs, size[0]), edges(ys, size[1])];
    const areaOf = ({ box }) => {
      const x = xs.indexOf((box[0] + box[2]) / 2);
      const y = ys.indexOf((box[1] + box[3]) / 2);
      return [ex[x], ey[y], ex[x + 1], ey[y + 1]];
    };
    return { areaOf, perRow: xs.length, isGrid: true };
  }
  return { areaOf: ({ box }) => box, perRow: 1, isGrid: false };
}

const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);

/** The frame, with `choose(row)` called for a click. Regions keep their order for the keyboard. */
export function regionPicker({ image, size, regions, row, choose, name }) {
  const { areaOf, perRow, isGrid } = areas(regions, size);
  const chosen = el("div", { className: "box chosen" });
  const pointed = el("div", { className: "box pointed", hidden: true });
  const other = el("div", { className: "box other", hidden: true });
  const hits = el("div", { className: "hits", role: "group", aria: { label: name } });
  const byRow = new Map();
  const order = [...regions].sort((a, b) => area(b) - area(a));
  for (const [at, region] of regions.entries()) {
    const where = isGrid
      ? `window ${Math.floor(at / perRow) + 1}, ${(at % perRow) + 1}`
      : `${region.label ?? "region"}`;
    const show = () => {
      pointed.hidden = false;
      place(pointed, region.box, size);
    };
    const hide = () => (pointed.hidden = true);
    const hit = el("button", {
      type: "button",
      className: isGrid ? "hit" : "hit drawn",
      title: `${where} · row ${region.row}`,
      aria: { label: `${where}, row ${region.row}` },
      data: { row: region.row },
      onclick: () => choose(region.row),
      onmouseenter: show,
      onmouseleave: hide,
      onfocus: show,
      onblur: hide,
    });
    if (!isGrid) hit.style.setProperty("z-index", order.indexOf(region) + 1);
    place(hit, areaOf(region), size);
    byRow.set(region.row, { hit, region });
    hits.append(hit);
  }
  roving(hits, ".hit", () => perRow);
  const frame = el("div", { className: "frame" }, image, other, chosen, pointed, hits);
  frame.style.setProperty("--ratio", size[0] / size[1]);
  const select = (now) => {
    const found = byRow.get(now);
    chosen.hidden = !found;
    if (found) place(chosen, found.region.box, size);
    for (const [id, { hit }] of byRow) hit.setAttribute("aria-pressed", String(id === now));
    const buttons = [...hits.children];
    setActive(buttons, found?.hit ?? buttons[0]);
  };
  select(row);
  /** Show the box of another row of this image; null hides it. */
  const point = (id) => {
    const found = byRow.get(id);
    other.hidden = !found;
    if (found) place(other, found.region.box, size);
  };
  return { frame, select, point };
}

/** The frame without anything to click. */
export function boxedImage({ image, size, box }) {
  const frame = el("div", { className: "frame" }, image, place(el("div", { className: "box chosen" }), box, size));
  frame.style.setProperty("--ratio", size[0] / size[1]);
  return frame;
}
