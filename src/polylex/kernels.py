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

from polylex.errors import BadInput, CorruptIndex

if TYPE_CHECKING:
    from polylex.postings import Segment
    from polylex.vectors import SparseVectors

BLOCK = 65_536  # documents of a segment at most: what a 16-bit offset can tell apart

# Per segment the documents that may be hits, uint8 [ceil(rows / 8)], one bit each as numpy.packbits(...,
# bitorder="little") makes them; None where all may be.
Allowed = Sequence[NDArray[np.uint8] | None]

_FEW = 4  # documents that are looked for one by one

_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_ARRAYS = ("terms", "starts", "bounds", "dense", "before", "planes", "ranks", "offsets", "weights")


class _Segment(ctypes.Structure):
    """`Segment` of _kernels.c."""

    _fields_ = (
        *((name, _POINTER) for name in _ARRAYS),
        *((name, _COUNT) for name in ("runs", "plane_count", "sparse", "postings", "rows", "first_row", "weight_size")),
    )


def _load() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they were not built."""
    try:
        _kernels = import_module("polylex._kernels")
    except ImportError:
        return None
    library = ctypes.CDLL(str(_kernels.__file__))
    library.polylex_search.restype = _COUNT
    library.polylex_search.argtypes = [_POINTER, _COUNT, *[_POINTER] * 4, *[_COUNT] * 2, *[_POINTER] * 4]
    library.polylex_scratch_bytes.restype = _COUNT
    library.polylex_scratch_bytes.argtypes = [_COUNT]
    library.polylex_positions.restype = _COUNT
    library.polylex_positions.argtypes = [_POINTER, _COUNT, _POINTER, _POINTER]
    library.polylex_positions_of.restype = _COUNT
    library.polylex_positions_of.argtypes = [_POINTER, _COUNT, ctypes.c_uint16, _POINTER]
    return library


_library = _load()
_scratch = threading.local()  # memory of the kernel; kept, as a megabyte costs more to map than to use


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
        self, queries: SparseVectors, k: int, part: slice = slice(None), allowed: Allowed | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best documents of each query over segments[part]: rows and scores, both [queries, k], best first.

        allowed  one entry for every segment of the table (not only of the part); None: every document may be a hit

        A score is the float32 sum of float32 products, added in the order of the terms. Only scores > 0 are hits;
        ties go to the smaller row; (-1, 0) stands where there are fewer than k.
        Raises CorruptIndex where the positions that a segment holds lead outside of it; BadInput unless `allowed`
        fits the segments.
        """
        if allowed is not None:
            self._check(allowed)
        rows, scores = np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32)
        start, stop, _ = part.indices(len(self.segments))
        search = self._search_numpy if _library is None else self._search_compiled
        with np.errstate(over="ignore", invalid="ignore"):  # a score beyond float32 is infinite, as in C
            broken = search(range(start, stop), allowed, queries, rows, scores)
        if broken is not None:
            raise CorruptIndex(
                f"{broken.path} is damaged: a run of postings lies outside of the file; "
                "restore the index from a copy or build it again"
            )
        return rows, scores

    def _check(self, allowed: Allowed) -> None:
        """Raise BadInput unless the kernel can read these bitmaps."""
        if len(allowed) != len(self.segments):
            raise BadInput(f"allowed has {len(allowed)} entries for {len(self.segments)} segments; give one for each")
        for segment, bits in zip(self.segments, allowed, strict=True):
            if bits is None:
                continue
            size = -(-segment.rows // 8)
            if bits.dtype != np.uint8 or bits.shape != (size,) or not bits.flags.c_contiguous:
                raise BadInput(
                    f"the documents allowed of {segment.path.name} come as {bits.dtype} {bits.shape}, expected uint8 "
                    f"({size},) without gaps; make them with numpy.packbits(mask, bitorder='little')"
                )

    def _search_compiled(
        self,
        part: range,
        allowed: Allowed | None,
        queries: SparseVectors,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Segment | None:
        assert _library is not None
        if allowed is not None:
            bitmaps = (_POINTER * len(part))(
                *(None if (bits := allowed[at]) is None else bits.ctypes.data for at in part)
            )
        found = np.empty(len(queries), np.int64)
        broken = _library.polylex_search(
            ctypes.addressof(self._table) + part.start * ctypes.sizeof(_Segment),
            len(part),
            None if allowed is None else ctypes.addressof(bitmaps),
            queries.terms.ctypes.data,
            queries.weights.ctypes.data,
            queries.indptr.ctypes.data,
            len(queries),
            rows.shape[1],
            _memory(_library.polylex_scratch_bytes(len(queries.terms))),
            scores.ctypes.data,
            rows.ctypes.data,
            found.ctypes.data,
        )
        return self.segments[part[broken - 1]] if broken else None

    def _search_numpy(
        self,
        part: range,
        allowed: Allowed | None,
        queries: SparseVectors,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> Segment | None:
        k = rows.shape[1]
        for at in part:
            segment, bits = self.segments[at], None if allowed is None else allowed[at]
            if bits is not None and not bits.any():
                continue
            for query in range(len(queries)):
                totals = _accumulate(segment, *queries.row(query))
                if totals is None:
                    return segment
                totals = totals[: segment.rows]
                if bits is not None:
                    totals[np.unpackbits(bits, count=segment.rows, bitorder="little") == 0] = 0
                hits = np.flatnonzero(totals > scores[query, -1])
                kept = int((rows[query] >= 0).sum())
                all_rows = np.concatenate([rows[query, :kept], hits + segment.first_row])
                all_scores = np.concatenate([scores[query, :kept], totals[hits]])
                best = np.argsort(-all_scores, kind="stable")[:k]
                rows[query, : len(best)], scores[query, : len(best)] = all_rows[best], all_scores[best]
        return None


def _memory(size: int) -> int:
    """Address of at least `size` bytes, the same ones for every call of a thread."""
    if getattr(_scratch, "size", 0) < size:
        _scratch.memory = np.zeros(size, np.uint8)
        _scratch.size, _scratch.address = size, _scratch.memory.ctypes.data
    return int(_scratch.address)


def _describe(segment: Segment) -> _Segment:
    """Where the arrays of a segment lie."""
    return _Segment(
        *(getattr(segment, name).ctypes.data for name in _ARRAYS),
        len(segment.terms),
        len(segment.dense),
        len(segment.offsets),
        segment.postings,
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
        found = segment.run(run)
        if found is None:
            return None
        offsets, values = found
        if segment.weights.dtype == np.uint8:
            weight = weight * (segment.bounds[run] / np.float32(255))
        scores[offsets] += values * weight
    return scores


def positions(offsets: NDArray[np.uint16], documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the postings of some documents, increasing. For a few documents quicker than for many.

    offsets    uint16 [postings]
    documents  int64  [documents] each in [0, BLOCK), without repeats
    """
    if _library is not None and len(documents) <= _FEW:
        found = np.empty(len(offsets), np.int64)  # only what is written to takes memory
        parts = []
        for document in documents.tolist():
            count = _library.polylex_positions_of(offsets.ctypes.data, len(offsets), document, found.ctypes.data)
            parts.append(found[:count].copy())
        return np.sort(np.concatenate([*parts, found[:0]]))
    wanted = np.zeros(BLOCK, bool)
    wanted[documents] = True
    if _library is None:
        return np.flatnonzero(wanted[offsets])
    arguments = (offsets.ctypes.data, len(offsets), wanted.ctypes.data)
    found = np.empty(_library.polylex_positions(*arguments, None), np.int64)
    _library.polylex_positions(*arguments, found.ctypes.data)
    return found
