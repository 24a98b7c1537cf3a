// The relations of the neighbours to the query as a bar, and those expected by chance as a thinner one.

import { byId, el } from "./dom.js";

// The colours of the figure of `pa evaluate neighbours`, distinct for colour-blind readers too.
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
  const labels = shares.map(
    ({ name, value, chance: random }) =>
      `${name} ${percent(value)}${random === null ? "" : ` (chance ${percent(random)})`}`,
  );
  return el(
    "div",
    { className: "shares", role: "img", aria: { label: labels.join(", ") } },
    bar(shares, "value", "found"),
    chance ? bar(shares, "chance", "chance") : null,
  );
}

/** Show the meaning of the colours of all bars. */
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
