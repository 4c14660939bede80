// Keys: every hit can be reached and explained without a mouse.

import { recall, remember } from "./memory.js";

const LETTERS = "polylex-letters";

/**
 * Listen to keys.
 *
 * onFocus()         write a query
 * onWhy(article)    open or close the explanation of a hit
 * onClose()         close what is open; false where nothing is
 * onHelp()          list the keys
 */
export function listen({ onFocus, onWhy, onClose, onHelp }) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target, key } = event;
    const writing = target.closest("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]");
    const article = target.closest("article");
    const done = writing ? inField(key, target) : onPage(key, target, article, { onFocus, onWhy, onClose, onHelp });
    if (done) event.preventDefault();
  });
}

/** Whether single characters are keys; people who speak to their computer may not want it. */
export function lettersAreKeys() {
  return recall(LETTERS) !== "no";
}

/** Choose so. */
export function setLetters(yes) {
  remember(LETTERS, yes ? "yes" : "no");
}

function inField(key, field) {
  if (key === "ArrowDown" && field.type === "search") return step(null, 1);
  if (key === "Escape" && (field.type !== "search" || !field.value)) field.blur(); // the browser empties one first
  return false;
}

function onPage(key, target, article, { onFocus, onWhy, onClose, onHelp }) {
  if (lettersAreKeys() && key.length === 1) {
    if (key === "/") return onFocus(), true;
    if (key === "?") return onHelp(), true;
    if (key === "j") return step(article, 1);
    if (key === "k") return step(article, -1);
  }
  if (key === "Escape") return onClose();
  if (article && key === "ArrowDown") return step(article, 1);
  if (article && key === "ArrowUp") return step(article, -1);
  if (article && (key === "ArrowLeft" || key === "ArrowRight")) return across(article, key === "ArrowRight" ? 1 : -1);
  if (key === "Enter" && target === article) return onWhy(article), true;
  return false;
}

function step(article, by) {
  const all = [...(article?.closest("ol.hits") ?? document).querySelectorAll("article")];
  const next = all[article ? all.indexOf(article) + by : 0];
  return reach(next);
}

function across(article, by) {
  const columns = [...document.querySelectorAll(".column:not([hidden])")];
  const own = article.closest(".column");
  const place = [...own.querySelectorAll("article")].indexOf(article);
  const there = [...(columns[columns.indexOf(own) + by]?.querySelectorAll("article") ?? [])];
  return reach(there[Math.min(place, there.length - 1)]);
}

function reach(article) {
  if (!article) return false;
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
  return true;
}
