// The HTTP API: one function for each thing the page asks of it. Addresses are relative, so a proxy may add a prefix.

import { recall, remember } from "./memory.js";

const PATIENCE_MS = 30_000;
const REMEMBERED = 80; // answers, so that the back button and the slider are instant where they were before
const KEY = "polylex-key";

/**
 * What went wrong.
 *
 * kind   "away" no answer; "busy" 429 or 503; "filter" bad filter; "key" a key is needed; "other"
 * after  seconds to wait before another try; null where another try is no use
 * at     of a bad filter: the character at which it went wrong, from 0, in code points
 */
export class Problem extends Error {
  constructor(kind, detail, { after = null, at = null } = {}) {
    super(detail);
    this.kind = kind;
    this.after = after;
    this.at = at;
  }
}

const answers = new Map();

/** What the index is. */
export function describe(signal) {
  return ask("GET", "info", null, signal);
}

/** The hits of a query, as POST /search answers. */
export function search(request, signal) {
  return remembered("search", request, signal);
}

/** Why a document matches, as POST /explain answers. */
export function explain(request, signal) {
  return remembered("explain", request, signal);
}

/** Use this key from now on, until the tab is closed. */
export function useKey(key) {
  remember(KEY, key, { lasting: false });
}

/** Forget every answer. */
export function forget() {
  answers.clear();
}

async function remembered(path, request, signal) {
  const body = JSON.stringify(request);
  const known = answers.get(path + body);
  if (known) return known;
  const answer = await ask("POST", path, body, signal);
  answers.set(path + body, answer);
  if (answers.size > REMEMBERED) answers.delete(answers.keys().next().value);
  return answer;
}

async function ask(method, path, body, signal) {
  const headers = { Accept: "application/json" };
  if (body !== null) headers["Content-Type"] = "application/json";
  const key = recall(KEY, { lasting: false });
  if (key) headers.Authorization = `Bearer ${key}`;
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let response;
  let answer;
  try {
    response = await fetch(path, { method, headers, body, signal: AbortSignal.any([signal, patience]), credentials: "omit" });
    answer = await response.json().catch((error) => {
      if (error instanceof SyntaxError) return null;
      throw error;
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem("away", patience.aborted ? "The server took too long." : "The server does not answer.", { after: 3 });
  }
  if (response.ok && answer !== null) return answer;
  throw problemOf(response, answer ?? {});
}

function problemOf(response, answer) {
  const detail = String(answer.detail ?? answer.title ?? `The server answered ${response.status}.`).split("\n")[0];
  if (response.status === 401 || response.status === 403) return new Problem("key", detail);
  if (response.status === 429 || response.status === 503) return new Problem("busy", detail, { after: waitOf(response) });
  if (Number.isInteger(answer.at)) return new Problem("filter", detail, { at: answer.at });
  return new Problem("other", detail);
}

/** Seconds of Retry-After, which is a number or a date; 2 where it says nothing. */
function waitOf(response) {
  const given = response.headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(given) ? Number(given) : (Date.parse(given) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(120, Math.max(1, Math.ceil(seconds))) : 2;
}
