// Elements are built, never parsed: what comes from a document can only ever become text.

/**
 * An element with attributes and children.
 *
 * attributes  null and false leave one out, true is an empty one; "on…" is a listener, `vars` are custom properties
 * children    nodes and texts; null and false are left out
 */
export function make(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** The element of an id; the page has it. */
export function byId(id) {
  return document.getElementById(id);
}

/** Set or take away an attribute. */
export function toggle(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : value);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, each] of Object.entries(value)) element.style.setProperty(`--${key}`, each);
    else toggle(element, name, value ?? null);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
