"""Which words of two texts met, as colours: a word of the query and all that it met in the document look the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polylex.cli.terminal import flat, term_name

if TYPE_CHECKING:
    from rich.text import Text

    from polylex.cli.terminal import Signs
    from polylex.explanation import Match, Span

# Six colours of every terminal's own palette, so that they suit light and dark backgrounds.
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
WHOLE = 0  # group of a term that no single word of the query carries: the sentence as a whole
_CONTEXT = 60  # characters shown on each side of a highlighted word of a long text


@dataclass(frozen=True, slots=True)
class Mark:
    """Characters [start, end) of a text that belong to a group; of a long text those of low rank are shown first."""

    start: int
    end: int
    group: int
    rank: int


def style_of(group: int) -> str:
    """The look of a group."""
    return "bold" if group == WHOLE else f"bold {_COLOURS[(group - 1) % len(_COLOURS)]}"


def groups_of(matches: Iterable[Match]) -> dict[tuple[int, int], int]:
    """A group for every word of the query that carries a term, numbered from 1 by weight; by its characters."""
    groups: dict[tuple[int, int], int] = {}
    for match in matches:
        for word in match.query_words[:1]:
            groups.setdefault((word.start, word.end), len(groups) + 1)
    return groups


def group_of(match: Match, groups: dict[tuple[int, int], int]) -> int:
    """The group of a match: that of the first of its words in the query."""
    return groups[match.query_words[0].start, match.query_words[0].end] if match.query_words else WHOLE


def query_marks(matches: Sequence[Match]) -> list[Mark]:
    """The words of the query that carry a term, as they stand in it."""
    return _placed(Mark(start, end, group, group) for (start, end), group in groups_of(matches).items())


def document_marks(matches: Sequence[Match]) -> list[Mark]:
    """The words of the document that a word of the query met; the heaviest term decides where several meet in one."""
    groups = groups_of(matches)
    return _placed(
        Mark(word.start, word.end, group_of(match, groups), rank + repetition * len(matches))
        for rank, match in enumerate(matches)
        if match.query_words
        for repetition, word in enumerate(match.document_words)
    )


def _placed(marks: Iterable[Mark]) -> list[Mark]:
    """Marks that do not overlap, in text order; an earlier one wins."""
    placed: list[Mark] = []
    for mark in marks:
        if all(mark.end <= other.start or other.end <= mark.start for other in placed):
            placed.append(mark)
    return sorted(placed, key=lambda mark: mark.start)


def paint(text: str, marks: Sequence[Mark], *, brackets: bool, budget: int = 600) -> Text:
    """A text on one line with its marks in colour; of a long one what stands around them.

    brackets  without colours: [word]1, where 1 is the group
    budget    characters to show, about
    """
    from rich.text import Text

    text = flat(text)
    painted = Text()
    end = 0
    for start, stop in windows(text, marks, budget):
        painted.append("" if start == 0 else "… " if end == 0 else " … ", "dim")
        end = start
        for mark in (mark for mark in marks if start <= mark.start and mark.end <= stop):
            painted.append(text[end : mark.start])
            word = text[mark.start : mark.end]
            painted.append(f"[{word}]{mark.group}" if brackets else word, style_of(mark.group))
            end = mark.end
        painted.append(text[end:stop])
        end = stop
    if end < len(text):
        painted.append(" …", "dim")
    return painted


def wrapped(text: Text, width: int) -> Text:
    """The text in lines of `width` cells, broken at spaces, and between any two characters of a wide script."""
    from rich.cells import cell_len
    from rich.text import Text

    breaks: list[int] = []
    start = room = cells = 0  # start of the line; last place where it may be broken; its cells so far
    plain = text.plain
    for index, char in enumerate(plain):
        size = cell_len(char)
        if index > start and (size == 2 or plain[index - 1] == " " or cell_len(plain[index - 1]) == 2):
            room = index
        if cells + size > width and char != " ":
            start = room if room > start else index
            breaks.append(start)
            cells = cell_len(plain[start:index])
        cells += size
    lines = text.divide(breaks)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def windows(text: str, marks: Sequence[Mark], budget: int) -> list[tuple[int, int]]:
    """The ranges of a text to show: all of it within the budget, else those around its marks, else its beginning.

    Ranges begin and end between words where there is a space nearby; they do not overlap and stand in text order.
    """
    if len(text) <= budget:
        return [(0, len(text))]
    chosen: list[tuple[int, int]] = []
    spent = 0
    for mark in sorted(marks, key=lambda mark: (mark.rank, mark.start)):
        if any(start <= mark.start and mark.end <= end for start, end in chosen):
            continue
        window = _between_words(text, mark.start - _CONTEXT, mark.end + _CONTEXT)
        spent += window[1] - window[0]
        if chosen and spent > budget:
            break
        chosen.append(window)
    return _merged(chosen) or [_between_words(text, 0, budget)]


def _between_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Shrink a range to the nearest spaces, by 20 characters at most; scripts without spaces keep it."""
    start, end = max(start, 0), min(end, len(text))
    if start > 0:
        space = text.find(" ", start, start + 20)
        start = start if space < 0 else space + 1
    if end < len(text):
        space = text.rfind(" ", end - 20, end + 1)
        end = end if space < 0 else space
    return start, end


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, those that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def words_of(spans: Sequence[Span], limit: int = 4) -> str:
    """The distinct words of some spans, in text order."""
    words = list(dict.fromkeys(flat(span.text).strip() for span in spans))
    return ", ".join(words[:limit]) + (" …" if len(words) > limit else "")


def meetings(matches: Sequence[Match], signs: Signs, limit: int) -> list[Text]:
    """Lines such as "casarse ~ Heiratsfähige  marriage, married 26%": words that met, heaviest pair first."""
    from rich.text import Text

    groups = groups_of(matches)
    pairs: dict[tuple[str, str], list[Match]] = {}
    for match in matches:
        if match.query_words and match.document_words:
            pairs.setdefault((words_of(match.query_words, 1), words_of(match.document_words, 2)), []).append(match)
    heaviest = sorted(pairs.items(), key=lambda pair: -sum(match.share for match in pair[1]))[:limit]
    return [
        Text.assemble(
            (query_word, style_of(group_of(shared[0], groups))),
            (" ~ ", "dim"),
            (document_word, style_of(group_of(shared[0], groups))),
            (f"  {', '.join(term_name(match.term, signs) for match in shared[:3])}", ""),
            (f"  {sum(match.share for match in shared):.0%}", "dim"),
        )
        for (query_word, document_word), shared in heaviest
    ]
