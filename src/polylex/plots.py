"""Plots as SVG text: self-contained, readable in light and dark, with a title and a description for screen readers.

    Path("matrix.svg").write_text(heat_map("nDCG@10", rows, columns, values))

Every text is escaped, and set so that right-to-left names are ordered by their own direction. `png` draws the same
picture as pixels, with the extra polylex[plots].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from unicodedata import east_asian_width

from polylex.errors import MissingExtra

# Told apart by colour-blind people too: Okabe and Ito, without yellow, which white paper swallows.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555")
_MARKS = ("circle", "square", "triangle")
_FONT = "system-ui, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif"
_STYLE = f"""
svg text{{font:12px {_FONT};fill:#222;unicode-bidi:plaintext}}
svg .small{{font-size:11px;fill:#555}} svg .head{{font-size:14px;font-weight:600}}
svg .axis{{stroke:#888;stroke-width:1;fill:none}} svg .grid{{stroke:#ddd;stroke-width:1}}
@media (prefers-color-scheme:dark){{
svg text{{fill:#eee}} svg .small{{fill:#bbb}} svg .axis{{stroke:#999}} svg .grid{{stroke:#444}}
}}
"""
# A cell's text is chosen for its own background, in light and dark alike.
_DARK_TEXT, _LIGHT_TEXT = "#111", "#fff"


def heat_map(
    title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], *, axes: str = ""
) -> str:
    """A table whose cells are the darker the higher their value.

    values  one list a row; None (or nan) for a cell that has none. Colours run from the lowest value to the highest.
    axes    what rows and columns are, in words
    """
    known = [value for row in values for value in row if value is not None and not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    left, top, width, height = 20 + _width(rows), 66, 52, 26
    parts = []
    for index, name in enumerate(columns):
        parts.append(_text(left + width * (index + 0.5), top - 8, name or "?", anchor="middle"))
    for number, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + height * number
        parts.append(_text(left - 8, y + 17, name or "?", anchor="end"))
        for index, value in enumerate(row):
            parts.append(_cell(left + width * index, y, (width, height), value, (low, high)))
    size = (left + width * len(columns) + 20, top + height * len(rows) + 20)
    described = f"{title}: {len(rows)} by {len(columns)} cells from {low:.3f} to {high:.3f}. {axes}"
    return _svg(title, described, size, [*parts, _text(20, 42, axes, "small")])


def _cell(x: float, y: float, size: tuple[int, int], value: float | None, bounds: tuple[float, float]) -> str:
    width, height = size
    low, high = bounds
    if value is None or math.isnan(value):
        return _text(x + width / 2, y + 17, "–", "small", anchor="middle")
    share = (value - low) / (high - low) if high > low else 1.0
    colour = _blend((232, 241, 250), (0, 73, 128), share)
    ink = _LIGHT_TEXT if share > 0.7 else _DARK_TEXT
    shown = _short(value)
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2}" height="{height - 2}" rx="2" fill="{colour}"/>'
        f'<text x="{x + width / 2 - 1:.1f}" y="{y + 16:.1f}" text-anchor="middle" style="fill:{ink}">{shown}</text>'
    )


def curves(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    axes: tuple[str, str],
    level: tuple[str, float] | None = None,
) -> str:
    """Lines through points (x > 0, y), x on a logarithmic scale.

    lines  points by the line's name, in the order to draw them
    axes   names of x and y
    level  name and value of a height to mark, such as the value without pruning
    """
    points = [point for line in lines.values() for point in line]
    heights = [y for _, y in points] + ([level[1]] if level else [])
    plot = _Frame.around([x for x, _ in points], heights)
    parts = plot.frame(axes)
    if level:
        y = plot.y(level[1])
        parts.append(f'<path class="axis" stroke-dasharray="5 4" d="M{plot.left} {y:.1f}H{plot.right}"/>')
        parts.append(_text(plot.right - 4, y - 5, f"{level[0]} {_short(level[1])}", "small", anchor="end"))
    for number, line in enumerate(lines.values()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = sorted(line)
        path = "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in drawn)
        if path:
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_mark(_MARKS[number % len(_MARKS)], plot.x(x), plot.y(y), colour) for x, y in drawn]
    parts += _legend(list(lines), plot.right + 16, plot.top + 8)
    said = "; ".join(
        f"{name}: " + ", ".join(f"({x:.0f}, {y:.3f})" for x, y in sorted(line)) for name, line in lines.items()
    )
    return _svg(title, f"{axes[1]} against {axes[0]}. {said}", (plot.right + 30 + _width(lines), 320), parts)


def differences(title: str, values: Sequence[float], *, names: tuple[str, str], measure: str) -> str:
    """One bar a query: how much the first system is better (up) or worse (down) than the second, sorted.

    Of many queries each bar is the mean of its neighbours, at most 400 bars.
    """
    ordered = sorted(values, reverse=True)
    bars = _grouped(ordered, 400)
    left, middle, half = 60, 170, 110
    width = 560 / max(1, len(bars))
    limit = max([abs(bar) for bar in bars] or [1.0]) or 1.0
    parts = [
        f'<path class="axis" d="M{left} {middle}H620M{left} {middle - half}V{middle + half}"/>',
        _text(left - 6, middle - half + 4, f"+{limit:.2f}", "small", anchor="end"),
        _text(left - 6, middle + 4, "0", "small", anchor="end"),
        _text(left - 6, middle + half + 4, f"−{limit:.2f}", "small", anchor="end"),
    ]
    for index, bar in enumerate(bars):
        height = abs(bar) / limit * half
        y = middle - height if bar > 0 else middle
        colour = COLOURS[0] if bar > 0 else COLOURS[1]
        parts.append(
            f'<rect x="{left + index * width:.2f}" y="{y:.1f}" width="{max(width - 0.4, 0.4):.2f}" '
            f'height="{height:.1f}" fill="{colour}"/>'
        )
    wins, losses = sum(value > 0 for value in values), sum(value < 0 for value in values)
    said = f"{names[0]} is better on {wins}, worse on {losses}, equal on {len(values) - wins - losses} queries"
    parts.append(_text(20, 42, f"{measure}: {names[0]} minus {names[1]}, query by query. {said}.", "small"))
    return _svg(
        title,
        said,
        (max(660, 40 + _width([f"{measure}: {names[0]} minus {names[1]}, query by query. {said}."])), 310),
        parts,
    )


def histograms(title: str, groups: Mapping[str, Sequence[float]], *, axis: str, bins: int = 30) -> str:
    """How values spread, a stepped line a group, each scaled to its own number: groups of any size compare."""
    everything = [value for values in groups.values() for value in values]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    high = high if high > low else low + 1.0
    shares = {name: _shares(values, low, high, bins) for name, values in groups.items()}
    top = max([share for each in shares.values() for share in each] or [1.0]) or 1.0
    left, right, bottom, height = 60, 560, 260, 200
    step = (right - left) / bins
    parts = [f'<path class="axis" d="M{left} {bottom}H{right}M{left} {bottom}V{bottom - height}"/>']
    for number, each in enumerate(shares.values()):
        colour = COLOURS[number % len(COLOURS)]
        path = "".join(
            f"V{bottom - share / top * height:.1f}H{left + (index + 1) * step:.1f}" for index, share in enumerate(each)
        )
        parts.append(
            f'<path d="M{left} {bottom}{path}V{bottom}Z" fill="{colour}" fill-opacity="0.25" stroke="{colour}"/>'
        )
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        parts.append(_text(left + share * (right - left), bottom + 18, f"{value:.3g}", "small", anchor="middle"))
    parts.append(_text((left + right) / 2, bottom + 36, axis, "small", anchor="middle"))
    parts.append(_text(left - 6, bottom - height + 4, f"{top:.0%}", "small", anchor="end"))
    labels = [f"{name} ({len(values):,})" for name, values in groups.items()]
    parts += _legend(labels, right + 16, bottom - height + 8)
    said = "; ".join(f"{name}: median {_median(values):.3g}" for name, values in groups.items() if values)
    return _svg(title, f"{axis}. {said}", (right + 30 + _width(labels), 310), parts)


def png(svg: str, *, scale: float = 2.0) -> bytes:
    """A picture as PNG, on white. Raises MissingExtra without the package resvg_py."""
    try:
        import resvg_py
    except ImportError:
        raise MissingExtra("resvg_py", "plots", "A plot as PNG") from None
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=round(scale), background="white"))


# -- parts -------------------------------------------------------------------------------------------


class _Frame:
    """Where the points of a plot go; x is logarithmic."""

    left, right, top, bottom = 60, 560, 56, 260

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across = tuple(math.log(edge) for edge in across)
        self._edges, self._up = across, up

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float]) -> _Frame:
        """Room for all of these."""
        low, high = (max(min(xs), 1e-9), max(xs)) if xs else (1.0, 10.0)
        high = high if high > low else low * 2
        floor, roof = (min(ys), max(ys)) if ys else (0.0, 1.0)
        pad = (roof - floor or 0.1) * 0.08
        return cls((low, high), (floor - pad, roof + pad))

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self._across
        return self.left + (math.log(max(value, 1e-9)) - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self._up
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def frame(self, axes: tuple[str, str]) -> list[str]:
        """Axes with numbers and names."""
        parts = [f'<path class="axis" d="M{self.left} {self.top}V{self.bottom}H{self.right}"/>']
        low, high = self._up
        for step in range(5):
            value = low + (high - low) * step / 4
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>')
            parts.append(_text(self.left - 6, y + 4, _short(value), "small", anchor="end"))
        first, last = self._edges
        for step in range(5):
            value = first * (last / first) ** (step / 4)
            parts.append(_text(self.x(value), self.bottom + 18, f"{value:.3g}", "small", anchor="middle"))
        middle = (self.left + self.right) / 2
        parts.append(_text(middle, self.bottom + 38, f"{axes[0]} (logarithmic)", "small", anchor="middle"))
        return [*parts, _text(20, 42, axes[1], "small")]


def _svg(title: str, description: str, size: tuple[float, float], parts: Iterable[str]) -> str:
    width, height = (math.ceil(each) for each in size)
    width = max(width, 40 + math.ceil(_width([title]) * 1.2))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><desc>{escape(description)}</desc><style>{_STYLE}</style>'
        f"{_text(20, 24, title, 'head')}{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    styled = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{styled}>{escape(text)}</text>'


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
    if kind == "square":
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{colour}"/>'


def _legend(names: Sequence[str], x: float, y: float) -> list[str]:
    return [
        _mark(_MARKS[index % len(_MARKS)], x, y + 20 * index, COLOURS[index % len(COLOURS)])
        + _text(x + 10, y + 4 + 20 * index, name, "small")
        for index, name in enumerate(names)
    ]


def _width(names: Iterable[str]) -> float:
    """Pixels that the longest name may take."""
    return max([sum(13.0 if east_asian_width(char) in "WF" else 7.0 for char in name) for name in names] or [0.0])


def _short(value: float) -> str:
    """Three digits, as tables of measures have them: .705."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _blend(light: tuple[int, int, int], dark: tuple[int, int, int], share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(light, dark, strict=True))


def _grouped(values: Sequence[float], most: int) -> list[float]:
    """At most `most` means of neighbours."""
    if len(values) <= most:
        return list(values)
    edges = [round(index * len(values) / most) for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _shares(values: Sequence[float], low: float, high: float, bins: int) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    return [count / max(1, len(values)) for count in counts]


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
