// What the fields of a document are to a reader: a title, a text, a language, and facts.

const TITLES = ["title", "headline", "name"];
const TEXTS = ["text", "contents", "content", "body", "passage"];
const TAGS = ["lang", "language", "locale"]; // of the language, such as "de" or "zh-Hans"
const FACETS = 12;
const NAMES = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });

/**
 * The parts of a document.
 *
 * title, text  strings, "" where there is none
 * lang         language tag for the lang attribute, null where unknown; language: its name
 * facts        [name, text] of the other fields
 */
export function partsOf(fields) {
  const title = firstText(fields, TITLES);
  const text = firstText(fields, TEXTS);
  const tag = TAGS.map((name) => fields[name]).find((value) => typeof value === "string" && isTag(value)) ?? null;
  const named = TAGS.map((name) => fields[name]).find((value) => typeof value === "string" && !isTag(value));
  const used = new Set([title.name, text.name, ...TAGS, "id"]);
  return {
    title: title.text,
    text: text.text,
    lang: tag,
    language: tag ? languageName(tag) : named ?? null,
    facts: Object.entries(fields)
      .filter(([name, value]) => !used.has(name) && value !== null && value !== "")
      .map(([name, value]) => [name, factOf(value)]),
  };
}

/** The English name of a language tag; the tag itself where it has none. */
export function languageName(tag) {
  try {
    return NAMES.of(tag) ?? tag;
  } catch {
    return tag;
  }
}

/** Whether a field holds language tags, so that its values can be shown by name. */
export function isLanguageField(name) {
  return TAGS.includes(name);
}

/** Fields that are worth browsing by, as the server sees it. */
export function facetsOf({ fields }) {
  return fields.filter(({ name, facet }) => facet && name).map(({ name }) => name).slice(0, FACETS);
}

/** A term as people read it: "e_marry" is an English word, "e_##ed" the end of one, "m_▁Liu" a piece of both texts. */
export function termName(term) {
  return term.replace(/^[em]_/, "").replace(/^##/, "…").replaceAll("▁", " ").trim() || "space";
}

function isTag(text) {
  return /^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$/.test(text);
}

function firstText(fields, names) {
  const name = names.find((each) => typeof fields[each] === "string" && fields[each].trim()) ?? null;
  return { name, text: name === null ? "" : fields[name].trim() };
}

function factOf(value) {
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
