// The page: the address says what is asked, the server answers, the columns show it.

import { exampleOf, fieldName, filterOf, literal, placeInWhere, read, write } from "./address.js";
import { clearFilterError, distinct, facetGroups, pruningFacts, showFilterError } from "./controls.js";
import { byId, make, toggle } from "./elements.js";
import { facetsOf, partsOf } from "./fields.js";
import { Hits } from "./hits.js";
import { lettersAreKeys, listen, setLetters } from "./keyboard.js";
import { Notice } from "./notices.js";
import { describe, explain, forget, Problem, search, useKey } from "./service.js";
import { join } from "./strands.js";
import { agreementOf, agreementPanel, readingOf } from "./terms.js";
import { startTheme } from "./theme.js";

const MOST_HITS = 1000;
const EXPLAINED = 100; // terms of a hit
const SLIDER_MS = 140; // without a movement before it searches
const SLIDER_STEP_MS = 1500;

const inputs = [byId("query"), byId("versus")];
const columns = [0, 1].map((side) => new Hits(side ? "Second query" : "First query", (id) => openWhy(side, id), moreHits));
const notice = new Notice(byId("notice"), () => show(), (key) => (useKey(key), forget(), (info = null), show()));
const openedFacets = new Set();

let state = read(location.search);
let info = null;
let running = new AbortController();
let tries = 0;
const slider = { timer: 0, searched: -Infinity };

// -- what is asked -----------------------------------------------------------------------------------

/** Change the state, and with it the address and the page. */
function go(change, { replace = false } = {}) {
  state = { ...state, ...change };
  history[replace ? "replaceState" : "pushState"](null, "", write(state));
  show();
}

/** The queries of the state, one a column. */
function queries() {
  return state.versus === null ? [state.query] : [state.query, state.versus];
}

function requestOf(query, { keep = state.keep, k = state.k, where = filterOf(state), facets = facetsOf(info) } = {}) {
  return { query, k, where, prune: keep < 1 ? { mass: keep } : null, facets: facets.length ? facets.map(fieldName) : null };
}

/** Answers for one query: of the index as shown, and of the whole one where that is another. */
async function answersOf(query, signal) {
  if (!query.trim()) return null;
  const [answer, whole] = await Promise.all([
    search(requestOf(query), signal),
    state.keep < 1 ? search(requestOf(query, { keep: 1 }), signal) : null,
  ]);
  return { answer, whole };
}

/** Counts of the facets. Of one with chosen values as if none were chosen, so that others can be chosen too. */
async function facetsFor(query, answer, signal) {
  const without = (picks) => search(requestOf(query, { k: 1, where: filterOf({ ...state, picks }) }), signal);
  const names = facetsOf(info);
  const countsIn = ({ facets }, name) => facets[fieldName(name)] ?? [];
  const picked = names.filter((name) => state.picks[name]?.length);
  const whole = picked.length ? await without({}) : answer; // tells which fields only repeat others
  const shown = distinct(names.map((name) => [name, countsIn(whole, name)]));
  return Promise.all(shown.map(async (name) => {
    const { [name]: own, ...others } = state.picks;
    return [name, countsIn(own?.length ? await without(others) : answer, name)];
  }));
}

// -- what is shown -----------------------------------------------------------------------------------

/** Make the page what the state says. Whatever was under way for an earlier state is given up. */
async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  drawInputs();
  try {
    document.documentElement.classList.add("busy");
    if (info === null) drawCollection((info = await describe(signal)));
    const asked = queries();
    drawFrame(asked);
    const found = await Promise.all(asked.map((query) => answersOf(query, signal)));
    if (found[0]) drawFacets(await facetsFor(state.query, found[0].answer, signal));
    notice.clear();
    clearFilterError(byId("where"), byId("where-error"));
    tries = 0;
    draw(asked, found);
    await Promise.all(asked.map((query, side) => found[side] && drawWhy(side, query, found[side].answer, signal)));
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    if (!signal.aborted) document.documentElement.classList.remove("busy");
  }
}

function drawInputs() {
  const two = state.versus !== null;
  [state.query, state.versus ?? ""].forEach((query, side) => {
    if (inputs[side].value !== query) inputs[side].value = query;
  });
  byId("versus-asked").hidden = !two;
  byId("query-label").textContent = two ? "Ask in one language" : "Ask in any language";
  byId("compare").setAttribute("aria-pressed", String(two));
  byId("where").value = state.where;
  byId("keep").value = Math.round(state.keep * 100);
  drawKept(state.keep);
  if (!byId("keep-facts").hasChildNodes()) byId("keep-facts").replaceChildren(...pruningFacts(null, null));
  document.title = state.query ? `${queries().filter(Boolean).join(" · ")} – Polylex` : "Polylex";
}

function drawKept(keep) {
  const percent = Math.round(keep * 100);
  byId("keep-value").textContent = percent === 100 ? "everything" : `${percent} % of its weight`;
  byId("keep").style.setProperty("--at", (percent - 20) / 80);
  byId("keep").setAttribute("aria-valuetext", percent === 100 ? "everything" : `${percent} % of the weight`);
}

function drawCollection({ documents, model, languages, fields }) {
  const facts = `${documents.toLocaleString("en")} ${documents === 1 ? "document" : "documents"}`;
  byId("collection").replaceChildren(facts, model?.name ? make("span", { class: "model" }, ` · ${model.name}`) : "");
  byId("where").placeholder = exampleOf(fields.find(({ facet }) => facet) ?? { name: "id", kind: "keyword" });
  const spoken = languages?.length > 1 ? ` in ${languages.length} languages` : "";
  byId("welcome-facts").textContent = `${facts}${spoken}. A question finds them in all, whatever language it is in.`;
}

function drawFrame(asked) {
  const view = info.documents === 0 ? "empty" : asked.some((query) => query.trim()) ? "results" : "welcome";
  const main = byId("main");
  main.dataset.view = view;
  toggle(main, "data-two", asked.length > 1);
  byId("welcome").hidden = view !== "welcome";
  columns[1].element.hidden = asked.length < 2;
  if (view === "empty") columns[0].clear(message("This index is empty", "Add documents, and they can be found here at once: polylex add, or POST /documents."));
  else asked.forEach((query, side) => (query.trim() ? columns[side].wait(Math.min(state.k, 6)) : columns[side].clear()));
}

function draw(asked, found) {
  if (info.documents === 0) return;
  const ranks = found.map((each) => each && ranksOf(each.answer));
  asked.forEach((query, side) => {
    drawUnderstood(side, found[side]?.answer.query);
    if (found[side]) drawColumn(side, found[side], found.length > 1 ? ranks[1 - side] : null);
  });
  byId("keep-facts").replaceChildren(...pruningFacts(found[0]?.answer, found[0]?.whole));
  drawAgreement(found);
  byId("status").textContent = found.filter(Boolean).map(({ answer }) => summaryOf(answer)).join("; ");
}

function drawUnderstood(side, understood) {
  const name = side ? "versus" : "query";
  const language = understood?.language;
  byId(`${name}-language`).textContent = language?.name ?? "";
  byId(`${name}-language`).title = language ? `taken for ${language.name}, ${Math.round(language.confidence * 100)} % sure` : "";
  toggle(inputs[side], "lang", language?.code ?? null);
  byId(`${name}-reading`).replaceChildren(...readingOf(understood?.terms ?? []));
}

function drawColumn(side, { answer, whole }, beside) {
  const column = columns[side];
  if (!answer.hits.length) return column.clear(...nothingFound(answer));
  const view = { open: state.why[side], before: whole && ranksOf(whole), beside };
  const ms = answer.encode_ms + answer.search_ms;
  const said = [make("b", {}, `${answer.hits.length} hits`), ` in ${languagesOf(answer)} · ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`];
  const more = answer.hits.length === state.k && state.k < Math.min(MOST_HITS, answer.documents);
  column.show(answer, view, { said, more });
}

function nothingFound({ documents }) {
  const filtered = filterOf(state) !== null;
  const which = filtered ? "No document that passes the filter" : `None of ${documents.toLocaleString("en")} documents`;
  const free = () => go({ where: "", picks: {} });
  return [
    message("No hits", `${which} shares a term with this query.`),
    ...(filtered ? [make("button", { type: "button", class: "solid", onclick: free }, "Search without the filter")] : []),
  ];
}

function drawAgreement(found) {
  const both = found.length > 1 && found.every((each) => each?.answer.hits.length);
  byId("agreement").replaceChildren(...(both ? agreementPanel(agreementOf(found[0].answer, found[1].answer)) : []));
  byId("columns").querySelector(":scope > .strands")?.remove();
  if (!both) return;
  const ties = found[0].answer.hits.flatMap(({ id }) => {
    const [left, right] = columns.map((column) => column.card(id));
    return left && right ? [{ from: left.score, to: right.rank, width: 1.5, hue: 0, matches: id }] : [];
  });
  byId("columns").append(join(byId("columns"), ties, columns.map(({ element }) => element)));
}

/** Show which curve belongs to the hit that is pointed at or focused. */
function followShared({ target }) {
  const id = target.closest?.(".hit")?.dataset.id;
  for (const each of byId("columns").querySelectorAll(":scope > .strands .strand, .hit.shared")) {
    each.classList.toggle("hot", (each.dataset.id ?? each.dataset.matches) === id);
  }
}

function drawFacets(facets) {
  const place = byId("facets");
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const open = (field) => {
    if (!openedFacets.delete(field)) openedFacets.add(field);
    drawFacets(facets);
  };
  place.replaceChildren(...facetGroups(facets, state.picks, { opened: openedFacets, onOpen: open, onPick: pick }));
  for (const each of place.querySelectorAll("button")) if (each.dataset.focus === focused) each.focus();
}

function summaryOf(answer) {
  if (!answer.hits.length) return "No hits";
  const language = answer.query.language ? `${answer.query.language.name} query: ` : "";
  return `${language}${answer.hits.length} hits in ${languagesOf(answer)}`;
}

/** The languages of some hits, most frequent first. */
function languagesOf({ hits }) {
  const counts = new Map();
  for (const { fields } of hits) {
    const name = partsOf(fields).language;
    if (name) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const names = [...counts].sort((one, other) => other[1] - one[1]).map(([name]) => name);
  if (!names.length) return "this index";
  return names.length > 4 ? `${names.length} languages` : new Intl.ListFormat("en").format(names);
}

function ranksOf({ hits }) {
  return new Map(hits.map(({ id, rank }) => [id, rank]));
}

function message(title, detail) {
  return make("p", { class: "plain" }, make("b", {}, title), " ", detail);
}

// -- why ---------------------------------------------------------------------------------------------

function openWhy(side, id) {
  const why = [...state.why];
  why[side] = why[side] === id ? null : id;
  go({ why });
}

async function drawWhy(side, query, answer, signal) {
  const id = state.why[side];
  const card = id === null ? null : columns[side].card(id);
  if (!card) return;
  card.await();
  try {
    card.explain(await explanationOf(query, id, signal), answer.query.language?.code ?? null);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    card.fail(error.message);
  }
}

/** Why a document matches; of a pruned index, why the pruned document does. */
async function explanationOf(query, id, signal) {
  if (state.keep === 1) return explain({ query, id, limit: EXPLAINED }, signal);
  const request = requestOf(query, { k: 1, where: `id = ${literal(id)}`, facets: [] });
  const { hits } = await search({ ...request, explain: EXPLAINED }, signal);
  return hits[0]?.explanation ?? { query, document: "", document_id: id, score: 0, matches: [] };
}

// -- what goes wrong ---------------------------------------------------------------------------------

function fail(error) {
  if (!(error instanceof Problem)) {
    reportError(error);
    error = new Problem("other", "The page cannot show this answer; it may be of another release than the server.");
  }
  document.documentElement.classList.remove("busy");
  for (const column of columns) if (column.element.querySelector(".ghost")) column.clear();
  if (error.kind === "filter") {
    notice.clear();
    if (!columns[0].any) columns[0].clear(message("Not searched", "The filter cannot be read."));
    showFilterError(byId("where"), byId("where-error"), { text: state.where, at: placeInWhere(state, error.at), reason: error.message });
    openRefine(true);
    return;
  }
  notice.show(error, tries++);
}

// -- what people do ----------------------------------------------------------------------------------

function pick(field, value) {
  const values = state.picks[field] ?? [];
  const left = values.includes(value) ? values.filter((each) => each !== value) : [...values, value];
  go({ picks: { ...state.picks, [field]: left } });
}

function moreHits() {
  go({ k: Math.min(MOST_HITS, state.k < 20 ? 20 : state.k < 50 ? 50 : state.k * 2) });
}

function openRefine(open) {
  byId("refine-open").setAttribute("aria-expanded", String(open));
  toggle(byId("main"), "data-refining", open);
}

// Movements that follow each other closely are one step of the back button.
function slide() {
  const keep = Number(byId("keep").value) / 100;
  drawKept(keep);
  clearTimeout(slider.timer);
  slider.timer = setTimeout(() => {
    const replace = performance.now() - slider.searched < SLIDER_STEP_MS;
    slider.searched = performance.now();
    go({ keep }, { replace });
  }, SLIDER_MS);
}

function closeOpen() {
  if (state.why.some((id) => id !== null)) {
    go({ why: [null, null] });
    return true;
  }
  const refining = byId("main").hasAttribute("data-refining");
  openRefine(false);
  return refining;
}

function start() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const versus = state.versus === null ? null : inputs[1].value.trim();
    go({ query: inputs[0].value.trim(), versus, why: [null, null], k: 10 });
  });
  byId("filter").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ where: byId("where").value });
  });
  byId("where").addEventListener("change", () => {
    if (byId("where").value !== state.where) go({ where: byId("where").value });
  });
  byId("prune").addEventListener("submit", (event) => event.preventDefault());
  byId("keep").addEventListener("input", slide);
  byId("compare").addEventListener("click", () => {
    go({ versus: state.versus === null ? "" : null, why: [null, null] });
    if (state.versus !== null) inputs[1].focus();
  });
  byId("refine-open").addEventListener("click", () => openRefine(!byId("main").hasAttribute("data-refining")));
  byId("home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(read(""));
    inputs[0].focus();
  });
  byId("letters").checked = lettersAreKeys();
  byId("letters").addEventListener("change", () => setLetters(byId("letters").checked));
  byId("keys-open").addEventListener("click", () => byId("keys").showModal());
  for (const kind of ["pointerover", "focusin"]) byId("columns").addEventListener(kind, followShared);
  addEventListener("popstate", () => {
    state = read(location.search);
    show();
  });
  listen({
    onFocus: () => inputs[0].select(),
    onWhy: (article) => article.querySelector(".why-open").click(),
    onClose: closeOpen,
    onHelp: () => byId("keys").showModal(),
  });
  byId("columns").append(...columns.map(({ element }) => element));
  startTheme(byId("theme"));
  if (!state.query) inputs[0].focus({ preventScroll: true });
  show().then(() => document.querySelector(".hit.open")?.scrollIntoView({ block: "start" }));
}

start();
