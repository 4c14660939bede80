// What narrows a search: the filter with its mistakes, facets as chips, and the pruning slider with what it saves.

import { make, toggle } from "./elements.js";
import { isLanguageField, languageName } from "./fields.js";
import { unitsOf } from "./passages.js";

const CHIPS = 8; // of a facet, until all are asked for
const SAME = 4; // values; two fields with more of them and with the same counts say the same

/** Show a mistake of a filter in the filter itself. `at` counts code points. */
export function showFilterError(input, place, { text, at, reason }) {
  const start = unitsOf(text)(at);
  const end = unitsOf(text)(at + 1);
  toggle(input, "aria-invalid", "true");
  place.replaceChildren(
    make("p", { class: "caret", dir: "ltr" }, text.slice(0, start), make("mark", {}, text.slice(start, end) || "\u00a0"), text.slice(end)),
    make("p", { class: "reason", role: "alert" }, reason),
  );
  if (document.activeElement === input) input.setSelectionRange(start, end);
}

/** Take the mistake away. */
export function clearFilterError(input, place) {
  toggle(input, "aria-invalid", null);
  place.replaceChildren();
}

/**
 * Facets as groups of chips.
 *
 * facets  [field, [{value, count}]]; picks: {field: [value]}; opened: fields that show all their values
 * onOpen(field) shows all or few; onPick(field, value) chooses a value or lets it go
 */
export function facetGroups(facets, picks, { opened, onOpen, onPick }) {
  const groups = facets.filter(([field, counts]) => counts.length > 1 || picks[field]?.length); // one value narrows nothing
  const hint = groups.length > 0 && make("p", { class: "hint" }, "Among the best hits");
  return [hint, ...groups.map(([field, counts]) => {
    const picked = picks[field] ?? [];
    const gone = picked.filter((value) => !counts.some((count) => count.value === value));
    const all = [...gone.map((value) => ({ value, count: 0 })), ...counts];
    const shown = opened.has(field) ? all : all.filter(({ value }, at) => at < CHIPS || picked.includes(value));
    return make(
      "fieldset",
      { class: "facet" },
      make("legend", {}, make("bdi", {}, field.replaceAll("_", " "))),
      shown.map(({ value, count }) => make(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(picked.includes(value)),
          "data-focus": `${field}=${value}`,
          onclick: () => onPick(field, value),
        },
        make("bdi", {}, chipName(field, value)),
        make("span", { class: "count" }, String(count)),
      )),
      all.length > CHIPS && make(
        "button",
        { type: "button", class: "quiet", "aria-expanded": String(opened.has(field)), "data-focus": `${field} all`, onclick: () => onOpen(field) },
        opened.has(field) ? "fewer" : `${all.length - shown.length} more`,
      ),
    );
  })].filter(Boolean);
}

/** Names of the facets, without those that only say the same by another name, such as "lang" and "language". */
export function distinct(facets) {
  const seen = new Set();
  return facets
    .filter(([, counts]) => {
      const shape = counts.map(({ count }) => count).join(" ");
      const again = counts.length > SAME && seen.has(shape);
      seen.add(shape);
      return !again;
    })
    .map(([name]) => name);
}

/** What a pruned index saves and what that does to the ranking; without an answer, what the slider is for. */
export function pruningFacts(answer, whole) {
  const pruned = answer?.pruned;
  if (!pruned) return [make("p", { class: "hint" }, "Drop the lightest terms: a smaller, quicker index, a slightly worse ranking. See it here first.")];
  const { terms_per_document: terms, terms_per_document_before: before } = pruned;
  const saved = 1 - pruned.bytes / pruned.bytes_before;
  const stay = whole ? answer.hits.filter(({ id }) => whole.hits.some((hit) => hit.id === id)).length : null;
  return [
    make("div", { class: "saving", "aria-hidden": "true" }, make("i", { vars: { share: (pruned.bytes / pruned.bytes_before).toFixed(4) } })),
    make("p", {}, make("b", {}, `${Math.round(saved * 100)} % smaller`), ` ${size(pruned.bytes_before)} → ${size(pruned.bytes)}`),
    make("p", {}, `${before.toFixed(0)} → ${terms.toFixed(0)} terms a document`),
    stay !== null && make("p", {}, `${stay} of ${answer.hits.length} hits stay`),
  ].filter(Boolean);
}

/** Bytes as people read them. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = bytes < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${units[power]}`;
}

function chipName(field, value) {
  return isLanguageField(field) && typeof value === "string" ? languageName(value) : String(value);
}
