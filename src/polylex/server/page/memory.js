// What the browser keeps: choices for good, a key until the tab is closed. Where it may keep nothing, until a reload.

const spare = new Map();

/** What was remembered by a name; null if nothing. */
export function recall(name, { lasting = true } = {}) {
  try {
    return (lasting ? localStorage : sessionStorage).getItem(name);
  } catch {
    return spare.get(name) ?? null;
  }
}

/** Remember a text by a name. */
export function remember(name, text, { lasting = true } = {}) {
  try {
    (lasting ? localStorage : sessionStorage).setItem(name, text);
  } catch {
    spare.set(name, text);
  }
}
