// The address is the state: what is asked, what is filtered, what is open. Sharing and the back button follow from it.

/**
 * @typedef {object} State
 * @property {string} query
 * @property {string | null} versus   the second query; null where one query stands alone
 * @property {string} where           the filter as written
 * @property {Record<string, (string | number | boolean)[]>} picks  values chosen of facets
 * @property {number} keep            share of each document's weight that stays in the index, in (0, 1]; 1 prunes nothing
 * @property {number} k               hits
 * @property {(string | null)[]} why  ids of the hits that are explained: of the query, of the second query
 */

const FEWEST = 0.2;
const MOST_HITS = 1000;

/** The state in the query string of an address. What it does not say, or says badly, is as at the start. */
export function read(search) {
  const given = new URLSearchParams(search);
  const picks = {};
  for (const [name, value] of given) {
    if (name.startsWith("is.")) (picks[name.slice(3)] ??= []).push(valueOf(value));
  }
  return {
    query: given.get("q") ?? "",
    versus: given.get("vs"),
    where: given.get("where") ?? "",
    picks,
    keep: within(Number(given.get("keep") ?? 100) / 100, FEWEST, 1, 1),
    k: Math.round(within(Number(given.get("k") ?? 10), 1, MOST_HITS, 10)),
    why: [given.get("why"), given.get("vswhy")],
  };
}

/** The address of a state; only what differs from the start is in it. */
export function write(state) {
  const given = new URLSearchParams();
  if (state.query) given.set("q", state.query);
  if (state.versus !== null) given.set("vs", state.versus);
  if (state.where) given.set("where", state.where);
  for (const [name, values] of Object.entries(state.picks)) {
    for (const value of values) given.append(`is.${name}`, textOf(value));
  }
  if (state.keep < 1) given.set("keep", String(Math.round(state.keep * 100)));
  if (state.k !== 10) given.set("k", String(state.k));
  if (state.why[0] !== null) given.set("why", state.why[0]);
  if (state.why[1] !== null && state.versus !== null) given.set("vswhy", state.why[1]);
  const text = given.toString();
  return text ? `?${text}` : location.pathname;
}

/** The filter of a state: as written, and the chosen values; null where there is none. */
export function filterOf(state) {
  const parts = Object.entries(state.picks)
    .filter(([, values]) => values.length)
    .map(([name, values]) => values.map((value) => `${fieldName(name)} has ${literal(value)}`).join(" or "));
  if (state.where.trim()) parts.unshift(state.where);
  if (parts.length < 2) return parts[0] ?? null;
  return parts.map((part) => `(${part})`).join(" and ");
}

/** Where a place in `filterOf(state)` stands in the filter as written, which comes first in it. */
export function placeInWhere(state, at) {
  const shift = filterOf(state) === state.where ? 0 : 1;
  return Math.max(0, Math.min(at - shift, [...state.where].length));
}

/** A filter that a field could have, for people to see how one is written. */
export function exampleOf({ name, kind }) {
  const test = { number: "> 1", truth: "= true", list: "has 'a value'" }[kind] ?? "= 'a value'";
  return `${fieldName(name)} ${test}`;
}

/** A text as a filter has it. */
export function literal(value) {
  return typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value);
}

/** The name of a field as a filter has it: in quotes, where it is not plain or a word of the language. */
export function fieldName(name) {
  const plain = /^[A-Za-z_][\w-]*$/.test(name) && !/^(and|or|not|in|like|has|exists|is|null|true|false)$/i.test(name);
  return plain ? name : `"${name.replaceAll('"', '""')}"`;
}

// A number or a truth value of a facet stays one: a text that looks like either is written with quotes.
function textOf(value) {
  return typeof value === "string" && valueOf(value) === value ? value : JSON.stringify(value);
}

function valueOf(text) {
  if (!/^(-?[0-9]|"|true$|false$)/.test(text)) return text;
  try {
    const value = JSON.parse(text);
    return ["string", "number", "boolean"].includes(typeof value) ? value : text;
  } catch {
    return text;
  }
}

function within(number, least, most, otherwise) {
  return Number.isFinite(number) && number > 0 ? Math.min(most, Math.max(least, number)) : otherwise;
}
