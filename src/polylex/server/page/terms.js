// What queries became: the English terms of one, and those of two beside each other.

import { make } from "./elements.js";
import { termName } from "./fields.js";

const READ = 9; // terms shown of a query
const COMPARED = 12;

/** The heaviest terms of a query, as /search tells them: what the model understood. */
export function readingOf(terms) {
  const shown = terms.filter(({ view }) => view === "pivot").slice(0, READ);
  if (!shown.length) return [];
  return [
    make("span", { class: "lead" }, "read as"),
    make("ul", { "aria-label": "Read as these English terms" }, shown.map(({ term, weight }) => make(
      "li",
      { vars: { share: (weight / shown[0].weight).toFixed(3) }, title: `weight ${weight.toFixed(2)}` },
      make("bdi", {}, termName(term)),
    ))),
  ];
}

/**
 * How far two answers of /search agree.
 *
 * hits    documents that are in both; of: hits of the shorter list
 * cosine  of the two queries' weights, in [0, 1]
 * terms   [{name, one, other}] weights in either query, 0 where it has none; the heaviest together first. English terms,
 *         and pieces of words that stand in both: one that stands in either alone is no news.
 */
export function agreementOf(one, other) {
  const weights = new Map();
  one.query.terms.forEach(({ term, weight }) => weights.set(term, [weight, 0]));
  other.query.terms.forEach(({ term, weight }) => weights.set(term, [weights.get(term)?.[0] ?? 0, weight]));
  let [product, first, second] = [0, 0, 0];
  for (const [a, b] of weights.values()) {
    product += a * b;
    first += a * a;
    second += b * b;
  }
  const pivots = new Set([...one.query.terms, ...other.query.terms].filter(({ view }) => view === "pivot").map(({ term }) => term));
  const ids = new Set(one.hits.map(({ id }) => id));
  return {
    hits: other.hits.filter(({ id }) => ids.has(id)).length,
    of: Math.min(one.hits.length, other.hits.length),
    cosine: first && second ? product / Math.sqrt(first * second) : 0,
    shared: [...weights.values()].filter(([a, b]) => a && b).length,
    all: weights.size,
    terms: [...weights]
      .filter(([term, [a, b]]) => pivots.has(term) || (a && b))
      .map(([term, [a, b]]) => ({ name: termName(term), one: a, other: b }))
      .sort((x, y) => y.one + y.other - x.one - x.other),
  };
}

/** The panel between two columns. */
export function agreementPanel(agreement) {
  const { hits, of, cosine, shared, all } = agreement;
  const terms = agreement.terms.slice(0, COMPARED);
  const heaviest = Math.max(...terms.flatMap(({ one, other }) => [one, other]), 0.001);
  const figure = (value, ...words) => make("p", { class: "figure" }, make("b", {}, value), " ", ...words);
  return [
    make(
      "div",
      { class: "figures" },
      figure(`${hits} of ${of}`, "hits are the same"),
      figure(`${shared} of ${all}`, "terms are in both queries"),
      figure(cosine.toFixed(2), "cosine of the two"),
      make("p", { class: "key" }, "Bars: left the first query, right the second"),
    ),
    make("ol", { class: "facing", "aria-label": "Terms of the two queries" }, terms.map(({ name, one, other }) => make(
      "li",
      { class: one && other ? null : "lone", "aria-label": `${name}: ${one.toFixed(2)} and ${other.toFixed(2)}` },
      make("bdi", { class: "name" }, name),
      make("span", { class: "scale", vars: { query: one / heaviest, document: other / heaviest } }, make("i"), make("i")),
    ))),
  ];
}
