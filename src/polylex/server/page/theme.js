// Light, dark, or as the system has it.

import { recall, remember } from "./memory.js";

const NAMES = { system: "Auto", light: "Light", dark: "Dark" };
const ORDER = Object.keys(NAMES);
const KEPT = "polylex-theme";

/** Let a button go through the themes; the choice stays in this browser. */
export function startTheme(button) {
  const use = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.querySelector("span").textContent = NAMES[theme];
    button.setAttribute("aria-label", `Colours: ${NAMES[theme]}`);
  };
  const kept = recall(KEPT);
  use(ORDER.includes(kept) ? kept : "system");
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(document.documentElement.dataset.theme) + 1) % ORDER.length];
    remember(KEPT, next);
    use(next);
  });
}
