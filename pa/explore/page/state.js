// The state of the page, and its address. The address contains all of it except an uploaded image.

const TRAIL = 40;

export const state = {
  gallery: null,
  row: null,
  own: null, // { name, blob, url, size, box }: lives as long as the page
  k: 24,
  exclude: false,
  self: false,
  columns: null, // ids, or null for all
};

const owns = new Map();
const listeners = [];

export const onChange = (listener) => listeners.push(listener);
const changed = () => listeners.forEach((listener) => listener(state));

/** Read the address of the page. */
export function read() {
  const words = new URLSearchParams(location.search);
  const number = (name) => (/^\d{1,15}$/.test(words.get(name) ?? "") ? Number(words.get(name)) : null);
  state.gallery = words.get("gallery");
  state.row = number("row");
  state.k = Math.min(Math.max(number("k") ?? 24, 1), 1000);
  state.exclude = words.get("exclude") === "1";
  state.self = words.get("self") === "1" && !state.exclude;
  state.columns = words.get("columns")?.split(",").filter(Boolean) ?? null;
  state.own = owns.get(history.state?.own) ?? null;
  state.lost = Boolean(history.state?.own) && !state.own;
}

/** The address of the state; `row` replaces its row. */
export function link(row = state.row) {
  const words = new URLSearchParams();
  if (state.gallery) words.set("gallery", state.gallery);
  if (row !== null) words.set("row", row);
  if (state.k !== 24) words.set("k", state.k);
  if (state.exclude) words.set("exclude", 1);
  if (state.self) words.set("self", 1);
  if (state.columns) words.set("columns", state.columns.join(","));
  return words.size ? `?${words.toString().replaceAll("%2C", ",")}` : location.pathname;
}

export const trail = () => history.state?.trail ?? [];

/** Another query: a step of the history, so the browser's back button undoes it. */
export function goTo(row) {
  if (row === state.row && !state.own) return;
  Object.assign(state, { row, own: null, lost: false });
  history.pushState({ trail: [...trail(), { row }].slice(-TRAIL) }, "", link());
  changed();
}

export function goToOwn(own) {
  const id = `${Date.now()}-${Math.random()}`;
  owns.set(id, own);
  Object.assign(state, { row: null, own, lost: false });
  history.pushState({ own: id, trail: [...trail(), { own: own.name }].slice(-TRAIL) }, "", link(null));
  changed();
}

/** Another gallery: row ids differ, so the trail is cleared. */
export function openGallery(gallery, row = null) {
  Object.assign(state, { gallery, row, own: null, lost: false, columns: null });
  history.pushState({ trail: row === null ? [] : [{ row }] }, "", link());
  changed();
}

/** Options of the same query: the address changes without a step. */
export function set(changes) {
  Object.assign(state, changes);
  history.replaceState(history.state, "", link(state.own ? null : state.row));
  changed();
}

/** Complete the state after reading the address, without a step. */
export function settle(changes) {
  Object.assign(state, changes);
  const begun = trail().length || state.row === null ? history.state : { trail: [{ row: state.row }] };
  history.replaceState(begun, "", link());
}

export function begin() {
  addEventListener("popstate", () => {
    read();
    changed();
  });
  changed();
}
