"""Compaction: which segments are worth one new segment.

Only neighbours are put together, so that segments stay in the order of rows, and with them ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polylex.kernels import BLOCK

# Documents of a segment. Segments below a tier that together reach it become one that does: a document is written again
# once for each tier, and at most seven segments stay between two of them.
TIERS = (8, 64, 512, 4_096, 32_768)


@dataclass(frozen=True, slots=True)
class Size:
    """Documents of a segment, and how many of them are left."""

    rows: int
    live: int


def worthwhile(sizes: Sequence[Size]) -> list[slice]:
    """After a commit: put together what reaches a tier, or else rewrite what is half gone; [] if nothing."""
    for tier in TIERS:
        for run in _runs(sizes, tier):
            groups = [group for group in _packed(sizes, run) if group.stop - group.start > 1]
            if groups and sum(size.live for size in sizes[run]) >= tier:
                return groups
    return [slice(at, at + 1) for at, size in enumerate(sizes) if 2 * size.live <= size.rows]


def everything(sizes: Sequence[Size]) -> list[slice]:
    """As few segments as neighbours allow, none with a deleted document."""
    return [
        group
        for group in _packed(sizes, slice(0, len(sizes)))
        if group.stop - group.start > 1 or sizes[group.start].live < sizes[group.start].rows
    ]


def _runs(sizes: Sequence[Size], tier: int) -> Iterator[slice]:
    """Neighbours that are all smaller than `tier`, as many as there are."""
    start = 0
    for at in range(len(sizes) + 1):
        if at == len(sizes) or sizes[at].live >= tier:
            if at > start:
                yield slice(start, at)
            start = at + 1


def _packed(sizes: Sequence[Size], run: slice) -> Iterator[slice]:
    """A run in groups, each as long as one segment takes."""
    start, live = run.start, 0
    for at in range(run.start, run.stop):
        if at > start and live + sizes[at].live > BLOCK:
            yield slice(start, at)
            start, live = at, 0
        live += sizes[at].live
    if start < run.stop:
        yield slice(start, run.stop)
