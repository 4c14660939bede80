// What went wrong, in words, with the way out beside it.

import { make } from "./elements.js";

const TITLES = { away: "Server away", busy: "Server busy", key: "Key needed", other: "This did not work" };

/** The notice of a problem. Where another try may help, it counts down to it. */
export class Notice {
  #timer = null;

  constructor(place, onRetry, onKey) {
    this.place = place;
    this.onRetry = onRetry;
    this.onKey = onKey;
  }

  /** Show a problem; `tries` counts those before it, and makes the waits longer. */
  show(problem, tries) {
    this.clear();
    const again = make("button", { type: "button", class: "solid", onclick: this.onRetry }, "Try again");
    const left = make("span", { class: "left", "aria-hidden": "true" });
    this.place.replaceChildren(make(
      "div",
      { class: "notice" },
      make("p", {}, make("b", {}, TITLES[problem.kind]), " ", problem.message),
      problem.kind === "key" ? this.#keyForm() : make("div", { class: "retry" }, left, again),
    ));
    if (problem.after !== null) this.#count(Math.min(60, Math.max(problem.after, 2 ** tries)), left);
  }

  /** Take it away. */
  clear() {
    clearInterval(this.#timer);
    if (this.place.contains(document.activeElement)) document.getElementById("results").focus();
    this.place.replaceChildren();
  }

  #count(seconds, left) {
    const until = performance.now() + seconds * 1000;
    const tick = () => {
      const rest = Math.ceil((until - performance.now()) / 1000);
      left.textContent = `again in ${rest} s`;
      if (rest > 0) return;
      clearInterval(this.#timer);
      this.onRetry();
    };
    tick();
    this.#timer = setInterval(tick, 250);
  }

  #keyForm() {
    const input = make("input", { type: "password", autocomplete: "current-password", required: true, "aria-label": "API key", placeholder: "API key" });
    const submit = (event) => {
      event.preventDefault();
      this.onKey(input.value.trim());
    };
    return make("form", { class: "retry", onsubmit: submit }, input, make("button", { class: "solid" }, "Use it"));
  }
}
