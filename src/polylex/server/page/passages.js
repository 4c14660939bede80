// Texts with lit words. Offsets from the server count code points, JavaScript counts UTF-16 units.

import { make } from "./elements.js";

const HUES = 6;
const LONG = 1400; // characters; of a longer text only what stands around lit words is shown
const CONTEXT = 90;

/**
 * @typedef {object} Mark    characters [start, end) of a text, in UTF-16 units
 * @property {number} start
 * @property {number} end
 * @property {number} group  the word of the query behind it, from 1; 0 for the query as a whole
 * @property {boolean} echo  whether only an echo lit it
 * @property {number[]} matches  positions of the matches that it carries
 */

/** A function from code points to UTF-16 units of a text. */
export function unitsOf(text) {
  if (!/[\ud800-\udbff]/.test(text)) return (point) => point;
  const units = [0];
  for (const char of text) units.push(units[units.length - 1] + char.length);
  return (point) => units[Math.min(point, units.length - 1)];
}

/** The groups of some matches: for each the number of its first word in the query, by weight from 1; 0 without one. */
export function groupsOf(matches) {
  const groups = new Map();
  return matches.map(({ query_words: [word] }) => {
    if (!word) return 0;
    const key = `${word.start}-${word.end}`;
    if (!groups.has(key)) groups.set(key, groups.size + 1);
    return groups.get(key);
  });
}

/** The hue of a group: 0 has none. */
export function hueOf(group) {
  return group === 0 ? 0 : ((group - 1) % HUES) + 1;
}

/**
 * The marks of one side of an explanation, in text order. Where two overlap the heavier one stands and carries both.
 *
 * What only the query as a whole brought up has no mark: it says nothing about a word.
 */
export function marksOf(text, matches, side) {
  const units = unitsOf(text);
  const groups = groupsOf(matches);
  const marks = [];
  matches.forEach((match, position) => {
    for (const word of groups[position] ? match[side] : []) {
      const [start, end] = [units(word.start), units(word.end)];
      const there = marks.find((mark) => mark.start < end && start < mark.end);
      if (there) {
        if (!there.matches.includes(position)) there.matches.push(position);
        there.echo &&= match.view === "source";
      } else {
        marks.push({ start, end, group: groups[position], echo: match.view === "source", matches: [position] });
      }
    }
  });
  return marks.sort((one, other) => one.start - other.start);
}

/** Nodes of a text with its marks lit. A long text is cut to what stands around them. */
export function lit(text, marks) {
  const nodes = [];
  let end = 0;
  for (const [from, to] of windowsOf(text, marks)) {
    if (from > end) nodes.push(make("span", { class: "cut" }, end ? " … " : "… "));
    end = from;
    for (const mark of marks.filter((each) => from <= each.start && each.end <= to)) {
      nodes.push(text.slice(end, mark.start), lamp(text.slice(mark.start, mark.end), mark));
      end = mark.end;
    }
    nodes.push(text.slice(end, to));
    end = to;
  }
  if (end < text.length) nodes.push(make("span", { class: "cut" }, " …"));
  return nodes;
}

/** The part of some marks that lies in [from, to), moved to begin at `from`. */
export function marksWithin(marks, from, to) {
  return marks
    .filter((mark) => from <= mark.start && mark.end <= to)
    .map((mark) => ({ ...mark, start: mark.start - from, end: mark.end - from }));
}

/** The beginning of a text, cut between characters as people see them. */
export function beginning(text, length) {
  if (text.length <= length) return text;
  let end = 0;
  for (const { index } of new Intl.Segmenter().segment(text.slice(0, length + 16))) {
    if (index > length) break;
    end = index;
  }
  return `${text.slice(0, end).trimEnd()} …`;
}

function lamp(word, { group, echo, matches }) {
  return make("mark", { class: echo ? "echo" : null, "data-hue": hueOf(group), "data-matches": matches.join(" ") }, word);
}

function windowsOf(text, marks) {
  if (text.length <= LONG) return [[0, text.length]];
  if (!marks.length) return [[0, atSpace(text, LONG)]];
  const windows = [];
  let spent = 0;
  for (const mark of [...marks].sort((one, other) => one.matches[0] - other.matches[0])) {
    const window = [atSpace(text, mark.start - CONTEXT), atSpace(text, mark.end + CONTEXT)];
    spent += window[1] - window[0];
    if (windows.length && spent > LONG) break;
    windows.push(window);
  }
  return windows.sort((one, other) => one[0] - other[0]).reduce((merged, window) => {
    const last = merged[merged.length - 1];
    if (last && window[0] <= last[1] + 1) last[1] = Math.max(last[1], window[1]);
    else merged.push(window);
    return merged;
  }, []);
}

/** The nearest place between words before a position; never inside a pair of surrogates. */
function atSpace(text, position) {
  if (position <= 0) return 0;
  if (position >= text.length) return text.length;
  const space = text.lastIndexOf(" ", position);
  if (space > position - 20) return space + 1;
  return /[\udc00-\udfff]/.test(text[position]) ? position - 1 : position;
}
