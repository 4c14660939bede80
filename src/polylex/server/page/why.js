// Why a document matched: the words of the query, the English terms they became, the words of the document they met.

import { make } from "./elements.js";
import { termName } from "./fields.js";
import { groupsOf, hueOf, lit, marksOf } from "./passages.js";
import { join } from "./strands.js";

/** Terms shown until all are asked for. */
export const SHOWN = 12;

const THICKEST = 9; // of a strand, in pixels

/**
 * The panel of an explanation, as POST /explain answers it.
 *
 * whole   whether to show all its terms; onWhole() asks for them
 * lang    language tag of the document, null where unknown; askedLang: of the query
 */
export function whyPanel(explanation, { whole, onWhole, lang, askedLang }) {
  const { matches } = explanation;
  if (!matches.length) return make("p", { class: "plain" }, "Query and document share no term; the score is 0.");
  const groups = groupsOf(matches);
  const shown = matches.slice(0, whole ? matches.length : SHOWN);
  return make(
    "div",
    { class: "why-body" },
    make("p", { class: "asked-line", dir: "auto", lang: askedLang }, lit(explanation.query, marksOf(explanation.query, shown, "query_words"))),
    shares(explanation, groups),
    loom(shown, groups, { lang, askedLang }),
    make(
      "div",
      { class: "after" },
      shown.length < matches.length
        && make("button", { type: "button", class: "quiet", onclick: onWhole }, `${matches.length - shown.length} lighter terms`),
      legend(shown),
    ),
  );
}

/** Light up what carries the same matches as what is pointed at or focused, in all of an element. */
export function pairUp(element) {
  let pinned = null;
  const show = (source) => {
    const wanted = source ? new Set(source.dataset.matches.split(" ")) : null;
    element.classList.toggle("pairing", wanted !== null);
    for (const each of element.querySelectorAll("[data-matches]")) {
      each.classList.toggle("hot", wanted !== null && each.dataset.matches.split(" ").some((match) => wanted.has(match)));
    }
  };
  const pin = (source) => {
    pinned?.setAttribute("aria-pressed", "false");
    pinned = source;
    pinned?.setAttribute("aria-pressed", "true");
    show(pinned);
  };
  const sourceOf = ({ target }) => target.closest("[data-matches]");
  element.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") show(sourceOf(event) ?? pinned);
  });
  element.addEventListener("pointerleave", () => show(pinned));
  element.addEventListener("focusin", (event) => show(sourceOf(event) ?? pinned));
  element.addEventListener("focusout", () => show(pinned));
  element.addEventListener("click", (event) => {
    const term = event.target.closest("button.term");
    if (term) pin(term === pinned ? null : term);
  });
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !pinned) return;
    pin(null);
    event.stopPropagation();
  });
}

// -- shares of the score -----------------------------------------------------------------------------

function shares({ score, matches }, groups) {
  const parts = new Map();
  matches.forEach((match, at) => {
    const key = match.view === "source" ? "echo" : groups[at];
    const part = parts.get(key) ?? { key, share: 0, matches: [], hue: hueOf(groups[at]), name: nameOf(match, key) };
    part.share += match.share;
    part.matches.push(at);
    parts.set(key, part);
  });
  const listed = [...parts.values()].sort((one, other) => (one.key === "echo") - (other.key === "echo") || other.share - one.share);
  const rest = 1 - matches.reduce((sum, match) => sum + match.share, 0);
  if (rest > 0.005) listed.push({ key: "rest", share: rest, matches: [], hue: 0, name: "lighter terms" });
  return make(
    "div",
    { class: "shares" },
    make("div", { class: "stack", "aria-hidden": "true" }, listed.map((part) => segment(part))),
    make(
      "ul",
      { "aria-label": "Share of the score" },
      listed.filter(({ share }) => share >= 0.005).map((part) => make(
        "li",
        { "data-hue": part.hue, class: part.key === "echo" ? "echo" : null, "data-matches": part.matches.join(" ") || null },
        make("bdi", {}, part.name), " ", make("b", {}, percent(part.share)),
      )),
      make("li", { class: "sum" }, "score ", make("b", {}, score.toFixed(2))),
    ),
  );
}

function nameOf(match, key) {
  if (key === "echo") return "echo";
  return match.query_words[0]?.text ?? "whole query";
}

function segment({ key, share, hue, matches }) {
  return make("i", { vars: { share: share.toFixed(4) }, "data-hue": hue, class: String(key), "data-matches": matches.join(" ") || null });
}

function legend(matches) {
  return matches.some(({ view }) => view === "source")
    && make("p", { class: "legend" }, make("i", { class: "echo-sign", "aria-hidden": "true" }), "echo: the same piece of a word stands in both texts");
}

// -- the loom ----------------------------------------------------------------------------------------

function loom(matches, groups, { lang, askedLang }) {
  const rows = matches
    .map((match, at) => ({ match, at, group: groups[at] }))
    .sort((one, other) => rankOf(one.group, groups) - rankOf(other.group, groups) || one.at - other.at);
  const heaviest = Math.max(...matches.flatMap((match) => [match.query_weight, match.document_weight]));
  const terms = rows.map((row) => termOf(row, heaviest));
  const asked = sideOf(rows, "query_words", "whole query", askedLang);
  const found = sideOf(rows, "document_words", "whole text", lang);
  const widest = matches[0].product;
  const tie = ({ match, at, group }) => ({
    width: Math.max(1, (THICKEST * match.product) / widest),
    hue: hueOf(group),
    echo: match.view === "source",
    matches: String(at),
  });
  const ties = rows.flatMap((row, place) => [
    ...asked.filter(({ places }) => places.includes(place)).map(({ element }) => ({ ...tie(row), from: element, to: terms[place] })),
    ...found.filter(({ places }) => places.includes(place)).map(({ element }) => ({ ...tie(row), from: terms[place], to: element })),
  ]);
  const frame = make(
    "div",
    { class: "loom" },
    make("p", { class: "head", "aria-hidden": "true" }, "query"),
    make("p", { class: "head", "aria-hidden": "true" }, "English terms"),
    make("p", { class: "head", "aria-hidden": "true" }, "document"),
    make("div", { class: "side asked", "aria-hidden": "true" }, asked.map(({ element, places }) => make("div", { vars: { rows: places.length } }, element))),
    make("ol", { class: "terms", "aria-label": "Shared terms" }, terms.map((term) => make("li", {}, term))),
    make("div", { class: "side found", "aria-hidden": "true" }, found.map(({ element }) => element)),
  );
  frame.prepend(join(frame, ties, [...terms, ...asked, ...found].map((each) => each.element ?? each)));
  return frame;
}

/** Groups by weight, the query as a whole last. */
function rankOf(group, groups) {
  return group === 0 ? groups.length + 1 : group;
}

function termOf({ match, at, group }, heaviest) {
  const name = termName(match.term);
  const echo = match.view === "source";
  const words = (spans, whole) => [...new Set(spans.map(({ text }) => text))].join(", ") || whole;
  const said =
    `${echo ? "Echo" : "Term"} ${name}, ${percent(match.share)} of the score: weight ${match.query_weight.toFixed(2)} from ` +
    `${words(match.query_words, "the whole query")}, ${match.document_weight.toFixed(2)} from ` +
    `${words(match.document_words, "the whole text")}.`;
  return make(
    "button",
    { type: "button", class: echo ? "term echo" : "term", "data-hue": hueOf(group), "data-matches": String(at), "aria-pressed": "false", "aria-label": said },
    make("span", { class: "weight" }, match.query_weight.toFixed(2)),
    make("bdi", { class: "name" }, name),
    make("span", { class: "weight" }, match.document_weight.toFixed(2)),
    make("span", { class: "scale", vars: { query: match.query_weight / heaviest, document: match.document_weight / heaviest } }, make("i"), make("i")),
    make("span", { class: "share" }, percent(match.share)),
  );
}

/** The words of one side, each once, near the terms they carry. `places` are rows. */
function sideOf(rows, side, whole, lang) {
  const words = new Map();
  rows.forEach(({ match, at, group }, place) => {
    const texts = new Set(match[side].map(({ text }) => text));
    for (const text of texts.size ? texts : [null]) {
      const word = words.get(text) ?? { text, places: [], matches: [], hue: hueOf(group) };
      word.places.push(place);
      word.matches.push(at);
      words.set(text, word);
    }
  });
  const middle = ({ places }) => places.reduce((sum, place) => sum + place, 0) / places.length;
  return [...words.values()]
    .sort((one, other) => middle(one) - middle(other))
    .map(({ text, places, matches, hue }) => ({
      places,
      element: make(
        "span",
        {
          class: text === null ? "word whole" : "word",
          "data-hue": text === null ? 0 : hue,
          "data-matches": matches.join(" "),
          dir: "auto",
          lang: text === null ? null : lang,
        },
        text ?? whole,
      ),
    }));
}

function percent(share) {
  return share > 0 && share < 0.01 ? "<1 %" : `${Math.round(share * 100)} %`;
}
