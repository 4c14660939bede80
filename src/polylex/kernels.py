"""The inner loops of search: compiled C where it could be built, numpy with bit-equal results elsewhere.

The C functions are called through ctypes, which lets go of the interpreter lock: threads run side by side.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from polylex.errors import CorruptIndex

if TYPE_CHECKING:
    from polylex.postings import Segment
    from polylex.vectors import SparseVectors

BLOCK = 65_536  # documents of a segment at most: what a 16-bit offset can tell apart

_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64


class _Segment(ctypes.Structure):
    """`Segment` of _kernels.c."""

    _fields_ = (
        *((name, _POINTER) for name in ("terms", "starts", "bounds", "offsets", "weights")),
        *((name, _COUNT) for name in ("runs", "postings", "rows", "first_row", "weight_size")),
    )


def _load() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they were not built."""
    try:
        _kernels = import_module("polylex._kernels")
    except ImportError:
        return None
    library = ctypes.CDLL(str(_kernels.__file__))
    library.polylex_search.restype = _COUNT
    library.polylex_search.argtypes = [_POINTER, _COUNT, _POINTER, _POINTER, _POINTER, _COUNT, _COUNT, *[_POINTER] * 4]
    library.polylex_positions.restype = _COUNT
    library.polylex_positions.argtypes = [_POINTER, _COUNT, _POINTER, _POINTER]
    return library


_library = _load()
_scratch = threading.local()  # one score a document of a segment; kept, as 256 KiB cost more to map than to clear


def compiled() -> bool:
    """Whether the C kernels are in use."""
    return _library is not None


class SegmentTable:
    """Segments in the form that the kernels read. Keeps their arrays alive."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        """Take segments in the order of their rows."""
        self.segments = tuple(segments)
        self._table = (_Segment * len(self.segments))(*map(_describe, self.segments))

    def top(
        self, queries: SparseVectors, k: int, part: slice = slice(None)
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best documents of each query over segments[part]: rows and scores, both [queries, k], best first.

        A score is the float32 sum of float32 products, added in the order of the terms. Only scores > 0 are hits;
        ties go to the smaller row; (-1, 0) stands where there are fewer than k.
        Raises CorruptIndex where the positions that a segment holds lead outside of it.
        """
        rows, scores = np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32)
        start, stop, _ = part.indices(len(self.segments))
        search = self._search_numpy if _library is None else self._search_compiled
        with np.errstate(over="ignore", invalid="ignore"):  # a score beyond float32 is infinite, as in C
            broken = search(start, stop, queries, rows, scores)
        if broken is not None:
            raise CorruptIndex(
                f"{broken.path} is damaged: a run of postings lies outside of the file; "
                "restore the index from a copy or build it again"
            )
        return rows, scores

    def _search_compiled(
        self, start: int, stop: int, queries: SparseVectors, rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> Segment | None:
        assert _library is not None
        if not hasattr(_scratch, "scores"):
            _scratch.scores = np.empty(BLOCK, np.float32)
        found = np.empty(len(queries), np.int64)
        broken = _library.polylex_search(
            ctypes.addressof(self._table) + start * ctypes.sizeof(_Segment),
            stop - start,
            queries.terms.ctypes.data,
            queries.weights.ctypes.data,
            queries.indptr.ctypes.data,
            len(queries),
            rows.shape[1],
            _scratch.scores.ctypes.data,
            scores.ctypes.data,
            rows.ctypes.data,
            found.ctypes.data,
        )
        return self.segments[start + broken - 1] if broken else None

    def _search_numpy(
        self, start: int, stop: int, queries: SparseVectors, rows: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> Segment | None:
        k = rows.shape[1]
        for segment in self.segments[start:stop]:
            for query in range(len(queries)):
                totals = _accumulate(segment, *queries.row(query))
                if totals is None:
                    return segment
                hits = np.flatnonzero(totals[: segment.rows] > scores[query, -1])
                kept = int((rows[query] >= 0).sum())
                all_rows = np.concatenate([rows[query, :kept], hits + segment.first_row])
                all_scores = np.concatenate([scores[query, :kept], totals[hits]])
                best = np.argsort(-all_scores, kind="stable")[:k]
                rows[query, : len(best)], scores[query, : len(best)] = all_rows[best], all_scores[best]
        return None


def _describe(segment: Segment) -> _Segment:
    """Where the arrays of a segment lie."""
    arrays = (segment.terms, segment.starts, segment.bounds, segment.offsets, segment.weights)
    return _Segment(
        *(array.ctypes.data for array in arrays),
        len(segment.terms),
        len(segment.offsets),
        segment.rows,
        segment.first_row,
        segment.weights.itemsize,
    )


def _accumulate(
    segment: Segment, terms: NDArray[np.uint32], weights: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Scores [BLOCK] of one query in one segment; None where a run leaves the postings."""
    scores = np.zeros(BLOCK, np.float32)
    runs = np.searchsorted(segment.terms, terms)
    for run, term, weight in zip(runs.tolist(), terms, weights, strict=True):
        if run == len(segment.terms) or segment.terms[run] != term:
            continue
        start, stop = int(segment.starts[run]), int(segment.starts[run + 1])
        if not start <= stop <= len(segment.offsets):
            return None
        if segment.weights.dtype == np.uint8:
            weight = weight * (segment.bounds[run] / np.float32(255))
        scores[segment.offsets[start:stop]] += segment.weights[start:stop].astype(np.float32, copy=False) * weight
    return scores


def positions(offsets: NDArray[np.uint16], wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Positions of the postings whose document is wanted, increasing.

    offsets  uint16 [postings]
    wanted   bool   [BLOCK]
    """
    if _library is None:
        return np.flatnonzero(wanted[offsets])
    assert wanted.shape == (BLOCK,)
    arguments = (offsets.ctypes.data, len(offsets), wanted.ctypes.data)
    found = np.empty(_library.polylex_positions(*arguments, None), np.int64)
    _library.polylex_positions(*arguments, found.ctypes.data)
    return found
