"""Previews: search an index as if its documents had been pruned, without writing anything.

    previews = Previews(limit_bytes=1 << 30)
    preview = previews.of(snapshot, Pruning(mass=0.9))
    rows, scores = preview.top(queries, 10)
    preview.terms_per_document, preview.bytes

Every rule keeps a prefix of a document's terms, heaviest first. So a term's place in its document is all that has to be
known of it once; a rule is then a number of terms a document, and what it leaves is copied out in one pass.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, CorruptIndex
from polylex.kernels import Allowed, SegmentTable
from polylex.postings import Segment
from polylex.prune import Pruning
from polylex.snapshot import Snapshot, Top
from polylex.vectors import SparseVectors

BYTES_PER_POSTING = 12  # of memory, for what all rules share: offset 2, weight 4, place 2, weight in that order 4
_BYTES_PER_KEPT = 6  # and for what one rule leaves


class _Source:
    """A segment, prepared to be pruned by one rule after another.

    offsets  uint16 [postings]  document of each posting, run by run: planes are written out as lists
    weights  [postings]         as the segment has them
    places   uint [postings]    how many terms of the document are heavier; ties by term
    sorted   float32 [postings] the weights, document by document, heaviest first
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._offsets, self._weights = _lists(segment)
        weights = _floats(segment, self._weights)
        order = _heaviest_first(self._offsets, weights)
        self._sorted = weights[order]
        self.lengths = np.bincount(self._offsets, minlength=segment.rows)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])
        places = np.empty(len(order), np.min_scalar_type(int(self.lengths.max(initial=0))))
        places[order] = np.arange(len(order)) - np.repeat(self._starts[:-1], self.lengths)
        self._places = places

    def cut(self, rule: Pruning) -> NDArray[np.int64]:
        """Terms of each document that a rule keeps, int64 [rows]; exactly as many as the rule itself."""
        kept = self.lengths if rule.top_k is None else np.minimum(self.lengths, rule.top_k)
        if rule.mass is not None and rule.mass < 1:
            kept = np.minimum(kept, self._mass(rule.mass))
        if rule.max_ratio is not None:
            heaviest = np.zeros(len(self.lengths), np.float32)
            filled = self.lengths > 0
            heaviest[filled] = self._sorted[self._starts[:-1][filled]]
            least = np.float32(rule.max_ratio) * heaviest
            kept = np.minimum(kept, self._prefix(lambda at, rows: self._sorted[at] >= least[rows]))
        if rule.threshold is not None:
            limit = np.float32(rule.threshold)
            heavy = self._prefix(lambda at, rows: self._sorted[at] >= limit)
            kept = np.minimum(kept, np.maximum(heavy, np.minimum(self.lengths, 1)))
        return kept

    def _mass(self, share: float) -> NDArray[np.int64]:
        """As `Ranking.mass`: sums begin at the first document, so that they are rounded alike."""
        running = np.concatenate([[0.0], np.cumsum(self._sorted, dtype=np.float64)])
        first = running[self._starts[:-1]]
        total = np.diff(running[self._starts])
        limit = share * total - 1e-12 * np.maximum(total, 1.0)
        return self._prefix(lambda at, rows: running[at] - first[rows] < limit[rows])

    def _prefix(self, holds: Callable[[NDArray[np.int64], NDArray[np.intp]], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """For how many of its heaviest terms something holds, for each document; once it fails, it fails."""
        low, high = self._starts[:-1].copy(), self._starts[1:].copy()
        while (open_ := np.flatnonzero(low < high)).size:
            middle = (low[open_] + high[open_]) // 2
            further = holds(middle, open_)
            low[open_[further]] = middle[further] + 1
            high[open_[~further]] = middle[~further]
        lengths: NDArray[np.int64] = low - self._starts[:-1]
        return lengths

    def pruned(self, kept: NDArray[np.int64]) -> Segment:
        """The segment with so many terms of each document."""
        old = self._segment
        keep = self._places < kept.astype(self._places.dtype)[self._offsets]
        counts = np.add.reduceat(keep, old.starts[:-1], dtype=np.int64) if len(old.terms) else old.starts[:-1]
        filled = counts > 0
        return Segment(
            old.path,
            old.first_row,
            old.rows,
            terms=old.terms[filled],
            starts=np.append(0, np.cumsum(counts[filled])).astype(np.uint32),
            bounds=old.bounds[filled],  # no tighter than need be
            dense=np.zeros(0, np.uint32),
            before=np.zeros(1, np.uint32),
            planes=np.zeros(0, np.uint8),
            ranks=np.zeros(0, np.uint16),
            offsets=self._offsets[keep],
            weights=self._weights[keep],
            vocab=old.vocab,
        )


def _lists(segment: Segment) -> tuple[NDArray[np.uint16], NDArray[Any]]:
    """Documents and stored weights of all postings, run by run. Raises CorruptIndex."""
    offsets, weights = segment.offsets, segment.weights
    if not len(segment.dense):
        return offsets, weights
    in_bytes = segment.precision == "u8"
    all_offsets = np.empty(segment.postings, np.uint16)
    all_weights = np.empty(segment.postings, np.uint8) if in_bytes else weights
    sparse = np.ones(segment.postings, bool)
    for run in segment.dense.tolist():
        part, found = slice(int(segment.starts[run]), int(segment.starts[run + 1])), segment.run(run)
        if found is None:
            raise CorruptIndex(f"{segment.path} is damaged: a run of postings lies outside of the file; restore it")
        sparse[part], all_offsets[part] = False, found[0]
        if in_bytes:
            all_weights[part] = found[1]
    all_offsets[sparse] = offsets
    if in_bytes:
        all_weights[sparse] = weights
    return all_offsets, all_weights


def _floats(segment: Segment, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Weights of all postings, run by run, as `Segment.vectors` has them."""
    weights: NDArray[np.float32] = stored.astype(np.float32, copy=False)
    if segment.precision == "u16":
        weights = (stored.astype(np.uint32) << np.uint32(15)).view(np.float32)
    elif segment.precision == "u8":
        lengths = np.diff(segment.starts.astype(np.int64)).astype(np.int64)
        weights = weights * np.repeat(segment.bounds / np.float32(255), lengths)
        weights = np.maximum(weights, np.finfo(np.float32).smallest_subnormal)
    return weights


def _heaviest_first(offsets: NDArray[np.uint16], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Postings, document by document, heaviest first; ties stay in the order of terms."""
    # Positive floats sort as their bits do, and 16 bits at a time are sorted in linear time.
    bits = ~weights.view(np.uint32)
    order = np.argsort((bits & np.uint32(0xFFFF)).astype(np.uint16), kind="stable")
    order = order[np.argsort((bits >> np.uint32(16)).astype(np.uint16)[order], kind="stable")]
    return order[np.argsort(offsets[order], kind="stable")]


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """One state of an index, pruned by one rule. From any number of threads.

    terms_per_document, terms_per_document_before  mean over the documents that were not deleted
    bytes, bytes_before                            of the postings of all documents; without planes, which an index of
                                                   more than 4,096 documents has besides
    """

    snapshot: Snapshot
    rule: Pruning
    table: SegmentTable
    terms_per_document: float
    terms_per_document_before: float
    bytes: int
    bytes_before: int

    def top(self, queries: SparseVectors, k: int, *, allowed: Allowed | None = None) -> Top:
        """As `Snapshot.top`: rows of the index and scores, both [queries, k]; (-1, 0) where hits are fewer."""
        found, scores = self.table.top(queries, k, allowed=self.snapshot.permitted(allowed))
        rows = found.copy()
        for segment, numbers in zip(self.table.segments, self.snapshot.rows, strict=True):
            here = (found >= segment.first_row) & (found < segment.first_row + segment.rows)
            rows[here] = numbers.of(found[here] - segment.first_row)
        return rows, scores


class Previews:
    """Keeps the previews that were used last, in so many bytes of memory. From any number of threads."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        """An index with too many postings for the limit is refused: it needs 12 bytes each, and up to 6 a preview."""
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._sources: dict[object, _Source] = {}
        self._kept: OrderedDict[tuple[int, Pruning], tuple[Preview, int]] = OrderedDict()
        self._snapshot: Snapshot | None = None

    def of(self, snapshot: Snapshot, rule: Pruning) -> Preview:
        """The preview of a state of an index. Raises BadInput where the index is too large for the limit.

        The first one of a state takes seconds for 100,000 documents, each other one tenths of a second, and one that
        is kept nothing.
        """
        with self._lock:
            self._follow(snapshot)
            key = id(snapshot), rule
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
            preview, size = _preview(snapshot, rule, [self._sources[name] for name in _names(snapshot)])
            self._kept[key] = preview, size
            room = self._limit - BYTES_PER_POSTING * _postings(snapshot)
            while sum(bytes_ for _, bytes_ in self._kept.values()) > room and len(self._kept) > 1:
                self._kept.popitem(last=False)
            return preview

    def _follow(self, snapshot: Snapshot) -> None:
        """Go on to a state, and forget all others."""
        if snapshot is self._snapshot:
            return
        self._kept.clear()
        self._snapshot = None
        needed = (BYTES_PER_POSTING + _BYTES_PER_KEPT) * _postings(snapshot)
        if needed > self._limit:
            self._sources.clear()
            raise BadInput(
                f"the index has {_postings(snapshot):,} postings; previewing a pruning takes {needed:,} bytes of "
                f"memory, {self._limit:,} are allowed. Allow more, or prune the index with `polylex prune`"
            )
        names = _names(snapshot)
        self._sources = {name: found for name in names if (found := self._sources.get(name)) is not None}
        for name, segment in zip(names, snapshot.table.segments, strict=True):
            if name not in self._sources:
                self._sources[name] = _Source(segment)
        self._snapshot = snapshot


def _names(snapshot: Snapshot) -> list[object]:
    """What tells segments apart, from state to state."""
    return [(entry.first_row, entry.sha256) for entry in snapshot.catalog.segments]


def _postings(snapshot: Snapshot) -> int:
    return sum(segment.postings for segment in snapshot.table.segments)


def _preview(snapshot: Snapshot, rule: Pruning, sources: list[_Source]) -> tuple[Preview, int]:
    """A preview, and the bytes of memory it takes."""
    cuts = [source.cut(rule) for source in sources]
    table = SegmentTable([source.pruned(cut) for source, cut in zip(sources, cuts, strict=True)])
    live = [snapshot.live(number) for number in range(len(sources))]
    documents = max(1, sum(map(len, live)))
    before = sum(int(source.lengths[alive].sum()) for source, alive in zip(sources, live, strict=True))
    after = sum(int(cut[alive].sum()) for cut, alive in zip(cuts, live, strict=True))
    size = sum(map(_size, table.segments))
    whole = sum(_bytes(each) for each in snapshot.table.segments)
    return Preview(snapshot, rule, table, after / documents, before / documents, size, whole), size


def _size(segment: Segment) -> int:
    arrays = (segment.terms, segment.starts, segment.bounds, segment.offsets, segment.weights)
    return sum(array.nbytes for array in arrays)


def _bytes(segment: Segment) -> int:
    """Of a segment, were all its runs lists."""
    return 12 * len(segment.terms) + 4 + (2 + segment.weights.itemsize) * segment.postings
