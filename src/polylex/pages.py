"""Pages: headings, texts, tables and figures, written as one HTML file or as Markdown.

    page = [Heading(1, "Results"), Table(["system", "nDCG@10"], [["polylex-mini", ".523"]]), Figure("curve", svg)]
    html("Results", page), markdown(page)

The HTML file is self-contained: no script, no font, no address outside itself. Every text is escaped; each cell and
paragraph takes the direction of its own text, so that Arabic and Hebrew stand as they should; colours follow the
reader's light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

_STYLE = """
:root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ddd;--soft:#666;--link:#0060a8}
@media (prefers-color-scheme:dark){:root{--ink:#e8e8e8;--paper:#16181c;--line:#3a3d44;--soft:#a8abb2;--link:#7cc0ff}}
body{font:16px/1.5 system-ui,"Segoe UI","Noto Sans",sans-serif;color:var(--ink);background:var(--paper);
max-width:72rem;margin:2rem auto;padding:0 1rem}
h2{margin-top:3rem;border-bottom:1px solid var(--line)} a{color:var(--link)}
div.wide{overflow-x:auto;margin:1rem 0} table{border-collapse:collapse;font-size:.9rem}
th,td{border-bottom:1px solid var(--line);padding:.3rem .7rem;text-align:start;vertical-align:top}
th{color:var(--soft);font-weight:600} td.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
figure{margin:1.5rem 0;overflow-x:auto} svg{max-width:100%;height:auto}
"""
_NUMBER = re.compile(r"[−+\-<]?[\d.,]+(?: ?[%†*×]| ms| s| [kMGT]?B| bytes)*")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~&])")


@dataclass(frozen=True, slots=True)
class Link:
    """Words that lead to the heading with that anchor on the same page."""

    text: str
    anchor: str


Cell: TypeAlias = "str | Link"


@dataclass(frozen=True, slots=True)
class Heading:
    """Level 1 is the page's own. `anchor` is what links lead to."""

    level: int
    text: str
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells as long as the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as SVG. Markdown refers to it as `plots/<name>.svg`."""

    name: str
    svg: str


Block: TypeAlias = "Heading | Paragraph | Table | Figure"


def html(title: str, blocks: Iterable[Block]) -> str:
    """The page as one HTML file."""
    body = "\n".join(map(_html, blocks))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        anchor = f' id="{escape(block.anchor)}"' if block.anchor else ""
        return f'<h{block.level}{anchor} dir="auto">{escape(block.text)}</h{block.level}>'
    if isinstance(block, Paragraph):
        return f'<p dir="auto">{escape(block.text)}</p>'
    if isinstance(block, Figure):
        return f"<figure>{block.svg}</figure>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in block.head)
    rows = "\n".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in block.rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<td dir="auto"><a href="#{escape(cell.anchor)}">{escape(cell.text)}</a></td>'
    if _NUMBER.fullmatch(cell):
        return f'<td class="number">{escape(cell)}</td>'
    return f'<td dir="auto">{escape(cell)}</td>'


def markdown(blocks: Iterable[Block]) -> str:
    """The page as Markdown. Links lead to report.html beside it, where the anchors are."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_plain(block.text)}"
    if isinstance(block, Paragraph):
        return _plain(block.text)
    if isinstance(block, Figure):
        return f"![{_plain(block.name)}](plots/{block.name}.svg)"
    lines = [_row(block.head), _row(["---"] * len(block.head), plain=False)]
    return "\n".join([*lines, *(_row(row) for row in block.rows)])


def _row(cells: Sequence[Cell], *, plain: bool = True) -> str:
    return "| " + " | ".join(_markdown_cell(cell) if plain else str(cell) for cell in cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f"[{_plain(cell.text)}](report.html#{cell.anchor})"
    return _plain(cell)


def _plain(text: str) -> str:
    """A text on one line that means itself; one with right-to-left letters is isolated from what stands around it."""
    flat = _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
    return f"\u2068{flat}\u2069" if _RIGHT_TO_LEFT.search(flat) else flat
