// A list of hits, in their own scripts. The same document keeps its element from one answer to the next.

import { make, toggle } from "./elements.js";
import { partsOf } from "./fields.js";
import { beginning, lit, marksOf, marksWithin } from "./passages.js";
import { pairUp, SHOWN, whyPanel } from "./why.js";

const SNIPPET = 420; // characters

let made = 0; // cards, for the ids of their parts

/**
 * @typedef {object} View   how a list is to be seen
 * @property {string | null} open  id of the hit that is explained
 * @property {Map<string, number> | null} before  ranks in the index as it is, while a pruned one is shown
 * @property {Map<string, number> | null} beside  ranks in the other list
 */

/** One column of results. */
export class Hits {
  #cards = new Map();
  #list = make("ol", { class: "hits" });
  #said;

  /**
   * name      heading, seen only side by side
   * onWhy(id) opens or closes an explanation; onMore() asks for more hits
   */
  constructor(name, onWhy, onMore) {
    this.onWhy = onWhy;
    this.heading = make("h2", {}, name);
    this.#said = make("p", { class: "said" });
    this.more = make("button", { type: "button", class: "quiet more", hidden: true, onclick: onMore }, "More hits");
    this.empty = make("div", { class: "empty" });
    this.element = make("section", { class: "column" }, this.heading, this.#said, this.#list, this.empty, this.more);
  }

  /** Show an answer of POST /search. */
  show(answer, view, { said, more }) {
    this.#said.replaceChildren(...said);
    this.empty.replaceChildren();
    toggle(this.#list, "data-waiting", null);
    const top = answer.hits[0]?.score ?? 1;
    const cards = answer.hits.map((hit) => {
      const card = this.#cards.get(hit.id) ?? new Card(hit, this.onWhy);
      card.show(hit, top, view);
      return card;
    });
    glide(this.#list, cards.map(({ element }) => element));
    this.#cards = new Map(cards.map((card) => [card.id, card]));
    this.more.hidden = !more;
  }

  /** Show that nothing is there, and what to do about it. */
  clear(...children) {
    this.#said.replaceChildren();
    this.#list.replaceChildren();
    this.#cards.clear();
    this.more.hidden = true;
    toggle(this.#list, "data-waiting", null);
    this.empty.replaceChildren(...children);
  }

  /** Hold the place of hits that are on their way. */
  wait(number) {
    if (this.#cards.size) return;
    this.empty.replaceChildren();
    toggle(this.#list, "data-waiting", true);
    const lines = () => [make("i"), make("i"), make("i")];
    this.#list.replaceChildren(...Array.from({ length: number }, () => make("li", { class: "ghost", "aria-hidden": "true" }, lines())));
  }

  /** Whether it shows hits. */
  get any() {
    return this.#cards.size > 0;
  }

  /** The card of an id; undefined where it is not among the hits. */
  card(id) {
    return this.#cards.get(id);
  }
}

/** One hit. */
class Card {
  #parts;
  #explained = null;

  constructor(hit, onWhy) {
    this.id = hit.id;
    this.#parts = partsOf(hit.fields);
    const { title, lang, language, facts } = this.#parts;
    const key = (made += 1);
    this.rank = make("span", { class: "rank" });
    this.title = make("h3", { dir: "auto", lang: title ? lang : null, id: `title-${key}` }, title || hit.id);
    this.text = make("p", { class: "text", dir: "auto", lang });
    this.score = make("span", { class: "score" });
    this.notes = make("span", { class: "notes" });
    this.toggle = make(
      "button",
      {
        type: "button",
        class: "why-open",
        "aria-expanded": "false",
        "aria-controls": `why-${key}`,
        "aria-describedby": `title-${key}`,
        onclick: () => onWhy(this.id),
      },
      "Why?",
    );
    this.panel = make("div", { class: "why", id: `why-${key}`, hidden: true });
    this.article = make(
      "article",
      { tabindex: "-1", "aria-labelledby": `title-${key}` },
      this.rank,
      make("div", { class: "body" }, this.title, this.text),
      this.score,
      make(
        "div",
        { class: "facts" },
        language && make("span", { class: "tongue", title: lang }, language),
        title && make("bdi", { class: "id" }, hit.id),
        this.notes,
        facts.length > 0 && factsOf(facts),
        this.toggle,
      ),
      this.panel,
    );
    this.element = make("li", { class: "hit", "data-id": hit.id }, this.article);
    pairUp(this.article);
    this.#plain();
  }

  show({ rank, score }, top, { open, before, beside }) {
    this.rank.replaceChildren(make("span", { class: "unseen" }, "Hit "), String(rank));
    const bar = make("i", { vars: { share: (score / top).toFixed(4) } });
    this.score.replaceChildren(make("span", { class: "unseen" }, "score "), score.toFixed(1), bar);
    const notes = [before && movement(before.get(this.id), rank), beside && meeting(beside.get(this.id))];
    this.notes.replaceChildren(...notes.filter(Boolean));
    this.element.classList.toggle("shared", beside?.has(this.id) ?? false);
    if (open !== this.id) this.#close();
  }

  /** Show that an explanation is on its way. */
  await() {
    this.toggle.setAttribute("aria-expanded", "true");
    this.element.classList.add("open");
    this.panel.hidden = false;
    if (!this.#explained) this.panel.replaceChildren(make("p", { class: "plain wait" }, "Looking for the words …"));
  }

  /** Show an explanation. */
  explain(explanation, askedLang, { whole = false } = {}) {
    this.await();
    const { lang } = this.#parts;
    if (this.#explained?.explanation === explanation && this.#explained.whole === whole) return;
    this.#explained = { explanation, whole };
    this.#light(explanation.document, explanation.matches.slice(0, whole ? undefined : SHOWN));
    const onWhole = () => {
      this.article.focus({ preventScroll: true }); // the button is about to go
      this.explain(explanation, askedLang, { whole: true });
    };
    this.panel.replaceChildren(whyPanel(explanation, { whole, onWhole, lang, askedLang }));
  }

  /** Show why there is no explanation. */
  fail(message) {
    this.#explained = null;
    this.panel.replaceChildren(make("p", { class: "plain", role: "alert" }, make("b", {}, "No explanation"), " ", message));
  }

  #close() {
    if (this.panel.hidden) return;
    this.#explained = null;
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.toggle.setAttribute("aria-expanded", "false");
    this.element.classList.remove("open");
    this.article.classList.remove("pairing");
    this.#plain();
  }

  #plain() {
    const { title, text } = this.#parts;
    if (title) this.title.textContent = title;
    this.text.textContent = beginning(text.replace(/\s+/g, " "), SNIPPET);
  }

  // The model read title and text as one; where the title begins it, each is lit in its own place.
  #light(read, matches) {
    const marks = marksOf(read, matches, "document_words");
    const { title } = this.#parts;
    const split = title && read.startsWith(title) ? title.length : 0;
    if (split) this.title.replaceChildren(...lit(title, marksWithin(marks, 0, split)));
    const start = split + (read.slice(split).length - read.slice(split).trimStart().length);
    this.text.replaceChildren(...lit(read.slice(start), marksWithin(marks, start, read.length)));
  }
}

function factsOf(facts) {
  const fact = ([name, value]) => make(
    "div",
    {},
    make("dt", {}, make("bdi", {}, name.replaceAll("_", " "))),
    make("dd", { dir: "auto" }, link(value) ?? beginning(value, 80)),
  );
  return make("dl", {}, facts.map(fact));
}

/** A link, where a text is the address of a web page and nothing else. */
function link(text) {
  if (!/^https?:\/\/[^\s]+$/i.test(text) || !URL.canParse(text)) return null;
  const { host, href } = new URL(text);
  return make("a", { href, rel: "noopener noreferrer nofollow", target: "_blank", title: text }, host);
}

function movement(before, rank) {
  if (before === rank) return null;
  if (before === undefined) return make("span", { class: "moved new" }, "new");
  const up = before > rank;
  const places = Math.abs(before - rank);
  return make(
    "span",
    { class: up ? "moved up" : "moved down" },
    make("span", { "aria-hidden": "true" }, `${up ? "▲" : "▼"} ${places}`),
    make("span", { class: "unseen" }, `${places} ${up ? "up" : "down"} from the whole index`),
  );
}

function meeting(rank) {
  return rank !== undefined && make("span", { class: "meeting" }, make("span", { class: "unseen" }, "also "), `№ ${rank} beside`);
}

/** Put elements in a list in this order; those that were in it glide to their new place. */
function glide(list, elements) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const tops = new Map([...list.children].map((child) => [child, child.getBoundingClientRect().top]));
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  if (elements.length !== list.children.length || elements.some((element, at) => list.children[at] !== element)) {
    list.replaceChildren(...elements);
    if (focused?.isConnected) focused.focus({ preventScroll: true });
  }
  if (still) return;
  for (const element of elements) {
    const moved = tops.has(element) ? tops.get(element) - element.getBoundingClientRect().top : 0;
    if (Math.abs(moved) > 1) element.animate([{ transform: `translateY(${moved}px)` }, {}], { duration: 320, easing: "cubic-bezier(.2, .7, .2, 1)" });
  }
}
