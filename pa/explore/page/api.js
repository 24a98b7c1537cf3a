// Requests to the server. Each response is an object, a blob, or a Problem with a message and commands.

const MAX_RETRIES = 12; // while the server is busy

export class Problem extends Error {
  constructor({ error, message, commands }) {
    super(message);
    this.error = error;
    this.commands = commands ?? [];
  }
}

const UNREACHABLE = {
  error: "unreachable",
  message: "The explorer does not answer. It may have been stopped, or its tunnel closed. Start it again:",
  commands: ["pa explore"],
};

const sleep = (seconds) => new Promise((wake) => setTimeout(wake, 1000 * seconds));

function address(path, query = {}) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? value : [value]) words.append(name, item);
  }
  return words.size ? `api/${path}?${words}` : `api/${path}`;
}

async function ask(path, query, options) {
  for (let turn = 0; ; turn += 1) {
    let response;
    try {
      response = await fetch(address(path, query), options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(UNREACHABLE);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({ error: "failed", message: `The server answered ${response.status}.` }));
    if (response.status !== 503 || turn >= MAX_RETRIES) throw new Problem(problem);
    await sleep(Number(response.headers.get("Retry-After") ?? 1) * (0.5 + Math.random()));
  }
}

const kept = new Map();
const MOST_KEPT = 400;

/** GET an object; `keep` caches it. */
export async function get(path, query = {}, { signal, keep = false } = {}) {
  const key = address(path, query);
  if (keep && kept.has(key)) {
    const found = kept.get(key);
    kept.delete(key);
    kept.set(key, found);
    return found;
  }
  const answer = await (await ask(path, query, { signal })).json();
  if (keep) {
    kept.set(key, answer);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return answer;
}

export async function blob(path, query = {}) {
  return (await ask(path, query)).blob();
}

/** POST the bytes of an image. */
export async function post(path, query, body, { signal } = {}) {
  const headers = { "Content-Type": "application/octet-stream" };
  return ask(path, query, { method: "POST", body, headers, signal });
}

export const paths = {
  thumbnail: (gallery, image) => `api/galleries/${gallery}/images/${image}/thumbnail`,
  canvas: (gallery, image) => `api/galleries/${gallery}/images/${image}/canvas`,
  region: (gallery, row) => `api/galleries/${gallery}/rows/${row}/region`,
};

/** Return the options of a query under the server's names. */
export function options(state) {
  const query = { k: state.k };
  if (state.exclude) query.exclude_same_image = true;
  if (state.self && !state.own) query.include_self = true;
  return query;
}
