// Curves that join what belongs together: words through terms, and the places of one document in two rankings.

import { draw } from "./elements.js";

/**
 * Join elements in `frame` by curves, from the side of one to the side of the other, and keep them joined as things move.
 *
 * ties     {from, to, width, hue, echo, matches} each; width in pixels
 * watched  elements whose size says where the ends are, besides the frame
 * Returns the svg, which lies over the frame and takes no part in anything but looks.
 */
export function join(frame, ties, watched = []) {
  const paths = ties.map((tie) =>
    draw("path", {
      class: tie.echo ? "strand echo" : "strand",
      "stroke-width": tie.width.toFixed(2),
      "data-hue": tie.hue,
      "data-matches": tie.matches ?? null,
    }),
  );
  const canvas = draw("svg", { class: "strands", "aria-hidden": "true" }, paths);
  const place = () => {
    const origin = frame.getBoundingClientRect();
    ties.forEach((tie, at) => paths[at].setAttribute("d", curve(anchors(tie), origin)));
  };
  const observer = new ResizeObserver(() => (canvas.isConnected ? place() : observer.disconnect()));
  for (const each of [frame, ...watched]) observer.observe(each);
  const gliding = frame.getAnimations({ subtree: true }).map(({ finished }) => finished);
  if (gliding.length) Promise.allSettled(gliding).then(place);
  return canvas;
}

function anchors({ from, to }) {
  const [one, other] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
  return [one.right, one.top + one.height / 2, other.left, other.top + other.height / 2];
}

function curve([x1, y1, x2, y2], { left, top }) {
  const middle = (x1 + x2) / 2 - left;
  const [one, other] = [`${x1 - left} ${y1 - top}`, `${x2 - left} ${y2 - top}`];
  return `M${one}C${middle} ${y1 - top} ${middle} ${y2 - top} ${other}`;
}
