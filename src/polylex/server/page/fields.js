// What the fields of a document are to a reader: a title, a text, a language, and facts.

const TITLES = ["title", "headline", "name"];
const TEXTS = ["text", "contents", "content", "body", "passage"];
const TAGS = ["lang", "language", "locale"]; // of the language, such as "de" or "zh-Hans"
const NAMES = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });

/**
 * The parts of a document.
 *
 * title, text  strings, "" where there is none
 * lang         language tag for the lang attribute, null where unknown; language: its name
 * facts        [name, text] of the other fields
 */
export function partsOf(fields, textFields) {
  const title = textOf(fields, TITLES);
  const texts = (textFields ?? []).filter((name) => name !== title.name);
  const text = textOf(fields, texts.length ? texts : TEXTS.filter((name) => name in fields).slice(0, 1));
  const tag = TAGS.map((name) => fields[name]).find((value) => typeof value === "string" && isTag(value)) ?? null;
  const named = TAGS.map((name) => fields[name]).find((value) => typeof value === "string" && !isTag(value));
  const used = new Set([title.name, ...text.names, ...TAGS, "id"]);
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

/** Fields that are worth browsing by: few distinct values, not the text itself. */
export function facetsOf(info) {
  const fields = Array.isArray(info.fields)
    ? info.fields
    : Object.entries(info.fields ?? {}).map(([name, of]) => ({ name, ...(typeof of === "string" ? { kind: of } : of) }));
  return fields
    .filter(({ name, kind }) => name !== "id" && kind !== "object" && ![...TITLES, ...TEXTS].includes(name))
    .filter(({ values }) => values === null || values === undefined || (values > 1 && values <= 200))
    .map(({ name }) => name);
}

/** A term as people read it: "e_marry" is an English word, "m_▁Liu" a piece of both texts. */
export function termName(term) {
  return term.replace(/^[em]_/, "").replaceAll("▁", " ").trim() || "space";
}

function isTag(text) {
  if (!/^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$/.test(text)) return false;
  return Intl.getCanonicalLocales(text).length === 1;
}

function textOf(fields, names) {
  const found = names.filter((name) => typeof fields[name] === "string" && fields[name].trim());
  return { name: found[0] ?? null, names: found, text: found.map((name) => fields[name]).join(" ") };
}

function factOf(value) {
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
