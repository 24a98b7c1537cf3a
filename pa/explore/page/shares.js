// What the neighbours are to the query, as a bar; below it, thinner, what chance gives.

import { byId, el } from "./dom.js";

// The colours of the figure of `pa evaluate neighbours`, told apart by colour-blind eyes too.
const KINDS = new Map([
  ["same part, another object of the same class", "part-class"],
  ["same part, object of another class", "part"],
  ["another part of the same object", "object"],
  ["another part, another object of the same class", "class"],
  ["another part, object of another class", "unrelated"],
  ["same part of the same object", "self"],
  ["same image", "part-class"],
  ["same label, another image", "object"],
  ["another label", "unrelated"],
  ["no label known", "self"],
]);

const percent = (value) => `${Math.round(100 * value)} %`;

function bar(shares, of, className) {
  const segments = shares
    .filter((share) => share[of] > 0)
    .map((share) =>
      el("span", {
        className: `share ${KINDS.get(share.name) ?? "unrelated"}`,
        title: `${share.name}: ${percent(share[of])}`,
        style: { "flex-grow": share[of] },
      }),
    );
  return el("span", { className }, segments);
}

/** The bar of one column. */
export function shareBar(shares) {
  if (!shares.length) return null;
  const chance = shares.some((share) => share.chance !== null);
  const told = shares.map(
    ({ name, value, chance: random }) =>
      `${name} ${percent(value)}${random === null ? "" : ` (chance ${percent(random)})`}`,
  );
  return el(
    "div",
    { className: "shares", role: "img", aria: { label: told.join(", ") } },
    bar(shares, "value", "found"),
    chance ? bar(shares, "chance", "chance") : null,
  );
}

/** What the colours mean, of all bars that are shown. */
export function legend(answers) {
  const names = [...KINDS.keys()].filter((name) =>
    answers.some((answer) => answer.shares.some((share) => share.name === name)),
  );
  const chance = answers.some(({ shares }) => shares.some((share) => share.chance !== null));
  byId("legend").replaceChildren(
    ...names.map((name) =>
      el("span", { className: "key" }, el("span", { className: `share ${KINDS.get(name)}` }), name),
    ),
    ...(chance ? [el("span", { className: "key quiet" }, "thin bar: by chance")] : []),
  );
}
