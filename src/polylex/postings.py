"""Segment: the inverted vectors of up to 65,536 documents, in one immutable file that is mapped, not read.

For every term a run of (document, weight), sorted by document (docs/format.md). Runs of terms that many documents have
are dense: they have a plane, one byte a document, in place of a list of documents.

    written = write_segment(folder, vectors)
    segment = Segment.open(folder / written.name, first_row=0)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, BadVectors, CorruptIndex, UnknownFormat
from polylex.kernels import BLOCK, positions
from polylex.storage import Written, map_arrays, write_arrays
from polylex.vectors import SparseVectors

FORMAT = "polylex-segment"
VERSION = "2"
POSTINGS_LIMIT = 2**32 - 1  # a run starts at a 32-bit position

Precision = Literal["f32", "u16", "u8"]

_LAYOUT = {
    "terms": ["<u4"],
    "starts": ["<u4"],
    "bounds": ["<f4"],
    "dense": ["<u4"],
    "before": ["<u4"],
    "planes": ["|u1"],
    "ranks": ["<u2"],
    "offsets": ["<u2"],
    "weights": ["<f4", "<u2", "|u1"],
}
_PRECISIONS: dict[str, Precision] = {"<f4": "f32", "<u2": "u16", "|u1": "u8"}
_STRIDE = 64  # planes are filled up to a multiple: what the kernel looks at together
# A run is dense where more than a seventh of the documents have it. Adding a plane takes as long as adding the postings
# of 2 to 10 % of the documents (by the width of the machine's vectors), but costs a byte a document; at a seventh, an
# index of float32 weights is no larger than 7 bytes a posting (benchmarks/scale.py).
_DENSE = 7
_DENSE_ROWS = 4096  # fewer documents are searched in microseconds anyway
_DENSE_FEW = 32  # documents that are counted one by one in a plane
_NO_PLANES: dict[str, NDArray[Any]] = {
    "dense": np.zeros(0, np.uint32),
    "before": np.zeros(1, np.uint32),
    "planes": np.zeros(0, np.uint8),
    "ranks": np.zeros(0, np.uint16),
}


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Postings of documents first_row .. first_row + rows - 1. Run r has starts[r + 1] - starts[r] of them.

    terms    uint32  [runs]       strictly increasing
    starts   uint32  [runs + 1]   from 0 to the number of postings, increasing
    bounds   float32 [runs]       greatest weight of the run
    dense    uint32  [planes]     the runs that have a plane, strictly increasing; the others are sparse
    before   uint32  [planes + 1] postings of the dense runs before each, and of all
    planes   uint8   [planes * width]  a byte a document: its weight in units of bound / 255, rounded up; 0 for none.
                                  width = rows, filled up to a multiple of 64
    ranks    uint16  [planes * width / 64]  documents of the plane before every 64th one
    offsets  uint16  [sparse]     document minus first_row, of sparse runs, strictly increasing inside a run
    weights  float32 [postings]   or uint16 [postings], bits 15 to 30 of a float32 (bit 31, the sign, is 0);
                                  or uint8 [sparse], in units of bound / 255, at least 1: then planes hold the others
    vocab    str                  fingerprint of the id space
    """

    path: Path
    first_row: int
    rows: int
    terms: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    bounds: NDArray[np.float32]
    dense: NDArray[np.uint32]
    before: NDArray[np.uint32]
    planes: NDArray[np.uint8]
    ranks: NDArray[np.uint16]
    offsets: NDArray[np.uint16]
    weights: NDArray[np.float32] | NDArray[np.uint16] | NDArray[np.uint8]
    vocab: str

    @classmethod
    def open(cls, path: Path, first_row: int) -> Segment:
        """Map the file of write_segment. Time does not depend on its size.

        Raises CorruptIndex where it is missing, short or its arrays do not fit together; UnknownFormat.
        """
        arrays, metadata = map_arrays(path)
        if metadata.get("format") != FORMAT:
            raise CorruptIndex(f"{path} is not a segment (format {metadata.get('format')!r}); restore it from a copy")
        if metadata.get("version") == "1":
            arrays = arrays | _NO_PLANES
        elif metadata.get("version") != VERSION:
            raise UnknownFormat(
                f"{path} has segment version {metadata.get('version')!r}, this release reads 1 and {VERSION}; "
                "upgrade polylex"
            )
        fault = _misfit(arrays, metadata)
        if fault:
            raise CorruptIndex(f"{path} is damaged: {fault}; restore the index from a copy or build it again")
        return cls(path, first_row, int(metadata["rows"]), **arrays, vocab=metadata["vocab"])

    @property
    def precision(self) -> Precision:
        """How weights are stored."""
        return _PRECISIONS[self.weights.dtype.str]

    @property
    def postings(self) -> int:
        """(document, term) weights, those of dense runs included."""
        return len(self.offsets) + int(self.before[-1])

    def run(self, at: int) -> tuple[NDArray[np.intp], NDArray[np.float32]] | None:
        """Offsets (increasing) and weights of run `at`, bytes as they are; None where they lie outside of the file."""
        start, stop = int(self.starts[at]), int(self.starts[at + 1])
        if not start <= stop <= self.postings:
            return None
        plane = int(np.searchsorted(self.dense, at))
        begin, end = start - int(self.before[plane]), stop - int(self.before[plane])
        in_bytes = self.precision == "u8"
        if plane < len(self.dense) and self.dense[plane] == at:
            values = self._plane(plane)
            offsets = np.flatnonzero(values)
            weights = values[offsets] if in_bytes else self.weights[start:stop]
        elif begin < 0 or end > len(self.offsets):
            return None
        else:
            offsets = self.offsets[begin:end].astype(np.intp)
            weights = self.weights[begin:end] if in_bytes else self.weights[start:stop]
        return (offsets, _floats(weights)) if len(offsets) == len(weights) else None

    def _plane(self, at: int) -> NDArray[np.uint8]:
        stride = _width(self.rows)
        return self.planes[at * stride : (at + 1) * stride]

    def vectors(self, rows: NDArray[np.int64] | None = None) -> SparseVectors:
        """The vectors of some rows of the index (in any order, with repeats), or of all rows of this segment.

        u8 and u16 weights come rounded, as stored. Reads all offsets, quickly for a few rows.
        Raises CorruptIndex where the postings make no vectors.
        """
        try:
            if rows is None:
                return self._transpose(np.arange(len(self.offsets)), np.arange(self.rows))
            distinct, which = np.unique(rows - self.first_row, return_inverse=True)
            return self._transpose(positions(self.offsets, distinct), distinct).take(which)
        except (BadVectors, ValueError, IndexError) as fault:
            raise CorruptIndex(f"{self.path} is damaged ({fault}); restore the index from a copy") from None

    def _transpose(self, found: NDArray[np.int64], documents: NDArray[np.int64]) -> SparseVectors:
        """Vectors of `documents` (increasing offsets), whose postings in sparse runs stand at `found` (increasing)."""
        gaps = self.starts[self.dense].astype(np.int64) - self.before[:-1]  # where dense runs are left out
        numbers = found + self.before[np.searchsorted(gaps, found, side="right")]
        parts = [(self.offsets[found], numbers, self.weights[found if self.precision == "u8" else numbers])]
        parts += [self._dense_postings(at, documents) for at in range(len(self.dense))]
        offsets, numbers, stored = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(numbers, kind="stable") if len(self.dense) else np.arange(len(numbers))
        order = order[np.argsort(offsets[order], kind="stable")]  # a radix sort: 16 bits
        offsets, numbers, weights = offsets[order], numbers[order], _floats(stored[order])
        runs = np.searchsorted(self.starts, numbers, side="right") - 1
        if self.precision == "u8":
            with np.errstate(all="ignore"):  # a damaged bound is no number; SparseVectors refuses what comes of it
                weights = weights * (self.bounds[runs] / np.float32(255))
            # A unit below the smallest float32 is 0; the weight is still there.
            weights = np.maximum(weights, np.finfo(np.float32).smallest_subnormal)
        indptr = np.append(np.searchsorted(offsets, documents), len(offsets))
        return SparseVectors(indptr, self.terms[runs], weights, self.vocab)

    def _dense_postings(
        self, at: int, documents: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[Any]]:
        """Offset, number and stored weight of the postings of some documents (increasing) in a plane."""
        plane, start = self._plane(at), int(self.starts[self.dense[at]])
        here = documents[plane[documents] != 0]
        if len(here) < _DENSE_FEW:
            cuts = [0, *here.tolist()]
            ranks = np.array([np.count_nonzero(plane[a:b]) for a, b in pairwise(cuts)], np.int64).cumsum()
        else:
            ranks = np.searchsorted(np.flatnonzero(plane), here)
        weights = plane[here] if self.precision == "u8" else self.weights[start + ranks]
        return here.astype(np.uint16), start + ranks, weights

    def faults(self) -> list[str]:
        """What breaks the contract above, in words; reads everything."""
        starts, dense = self.starts.astype(np.int64), self.dense.astype(np.int64)
        lengths = np.diff(starts)
        if starts[0] != 0 or starts[-1] != self.postings or (lengths <= 0).any():
            return ["runs do not start one after another"]
        if (np.diff(dense) <= 0).any() or (dense >= len(self.terms)).any():
            return ["dense runs are not named in order"]
        if not np.array_equal(self.before, np.append(0, np.cumsum(lengths[dense]))):
            return ["postings of dense runs are miscounted"]
        faults = []
        if (np.diff(self.terms.astype(np.int64)) <= 0).any():
            faults.append("terms do not strictly increase")
        sparse = np.delete(lengths, dense)
        keys = np.repeat(np.arange(len(sparse)) * BLOCK, sparse) + self.offsets
        if (np.diff(keys) <= 0).any() or (self.offsets >= self.rows).any():
            faults.append("documents of a run do not strictly increase, or exceed the segment")
        return faults + self._faults_of_weights(starts, sparse)

    def _faults_of_weights(self, starts: NDArray[np.int64], sparse: NDArray[np.int64]) -> list[str]:
        if not (np.isfinite(self.bounds) & (self.bounds > 0)).all() or not (self.weights > 0).all():
            return ["weights are not finite and above 0"]
        if self.precision == "u8":
            heaviest = np.maximum.reduceat(self.weights, np.cumsum(sparse) - sparse) if len(sparse) else self.weights
            bounded = bool((heaviest == 255).all())
        else:
            heaviest = np.maximum.reduceat(_floats(self.weights), starts[:-1]) if len(self.terms) else self.bounds
            bounded = np.array_equal(heaviest, self.bounds)
        if not bounded:
            return ["bounds are not the greatest weights of their runs"]
        fits = all(self._plane_fits(at) for at in range(len(self.dense)))
        return [] if fits else ["planes contradict the weights"]

    def _plane_fits(self, at: int) -> bool:
        plane, run = self._plane(at), self.dense[at]
        begin, end = int(self.starts[run]), int(self.starts[run + 1])
        there = plane[plane != 0]
        if plane[self.rows :].any() or len(there) != end - begin:
            return False
        if not np.array_equal(_ranks(plane[None])[0], self.ranks.reshape(len(self.dense), -1)[at]):
            return False
        if self.precision == "u8":
            return int(there.max()) == 255
        return np.array_equal(there, _levels(_floats(self.weights[begin:end]), self.bounds[run]))


def _misfit(arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> str:
    """Why these arrays make no segment, or ''. All that the kernels take on trust is checked here."""
    if arrays.keys() != _LAYOUT.keys():
        return f"it holds arrays {sorted(arrays)}, not {sorted(_LAYOUT)}"
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype.str not in _LAYOUT[name]:
            return f"array {name} has shape {array.shape} and type {array.dtype.str}"
    rows = metadata.get("rows", "")
    if not (rows.isascii() and rows.isdigit() and len(rows) <= 5 and 0 < int(rows) <= BLOCK):
        return f"it says to hold {rows!r} documents"
    runs, planes, stored = len(arrays["terms"]), len(arrays["dense"]), len(arrays["offsets"])
    if len(arrays["before"]) != planes + 1:
        return "its arrays have different lengths"
    if arrays["weights"].itemsize > 1:
        stored += int(arrays["before"][-1])
    expected = {"starts": runs + 1, "bounds": runs, "weights": stored}
    expected |= {"planes": planes * _width(int(rows)), "ranks": planes * _width(int(rows)) // _STRIDE}
    if any(len(arrays[name]) != length for name, length in expected.items()):
        return "its arrays have different lengths"
    return "" if "vocab" in metadata else "it does not name its vocabulary"


def _width(rows: int) -> int:
    """Bytes of a plane."""
    return -(-rows // _STRIDE) * _STRIDE


def write_segment(folder: Path, vectors: SparseVectors, precision: Precision = "f32") -> Written:
    """Invert vectors and write them as one segment named after its content. Takes about 40 bytes a weight of memory.

    Raises BadInput for no documents or more than a segment may hold, StorageFull.
    """
    if not 0 < len(vectors) <= BLOCK or vectors.nnz > POSTINGS_LIMIT:
        raise BadInput(
            f"a segment takes 1 to {BLOCK} documents and {POSTINGS_LIMIT} weights, got {len(vectors)} and {vectors.nnz}"
        )
    arrays = invert(vectors, precision)
    version = VERSION
    if precision != "u16" and not len(arrays["dense"]):  # what older releases read, too
        arrays = {name: array for name, array in arrays.items() if name not in _NO_PLANES}
        version = "1"
    metadata = {"format": FORMAT, "version": version, "rows": str(len(vectors)), "vocab": vectors.vocab}
    return write_arrays(folder, lambda digest: f"segment-{digest[:16]}.safetensors", arrays, metadata)


def invert(
    vectors: SparseVectors, precision: Precision = "f32", *, dense_from: int | None = None
) -> dict[str, NDArray[Any]]:
    """The arrays of a segment that holds these vectors.

    dense_from  documents that a dense run has at least; by default what serves search best
    """
    # Sorting (term, position) as one number is several times faster than a stable sort of the terms.
    keys = vectors.terms.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(vectors.nnz, dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    sorted_terms = (keys >> np.uint64(32)).astype(np.uint32)
    begins = np.ones(vectors.nnz, bool)
    np.not_equal(sorted_terms[1:], sorted_terms[:-1], out=begins[1:])
    first = np.flatnonzero(begins)
    stored: NDArray[Any] = vectors.weights[order]
    if precision == "u16":
        stored = _halves(stored)
    weights = _floats(stored)
    bounds = np.maximum.reduceat(weights, first) if len(first) else weights
    lengths = np.diff(np.append(first, vectors.nnz))
    if precision == "u8":
        stored = _quantise(weights, np.repeat(bounds, lengths))
    documents = np.repeat(np.arange(len(vectors), dtype=np.uint16), np.diff(vectors.indptr))[order]
    arrays = {"terms": sorted_terms[first], "starts": np.append(first, vectors.nnz).astype(np.uint32), "bounds": bounds}
    dense = np.flatnonzero(lengths >= (_dense_from(len(vectors)) if dense_from is None else dense_from))
    planes = np.zeros((len(dense), _width(len(vectors))), np.uint8)
    sparse = np.ones(vectors.nnz, bool)
    for plane, run in zip(planes, dense.tolist(), strict=True):
        part = slice(first[run], first[run] + lengths[run])
        plane[documents[part]] = stored[part] if precision == "u8" else _levels(weights[part], bounds[run])
        sparse[part] = False
    return {
        **arrays,
        "dense": dense.astype(np.uint32),
        "before": np.append(0, np.cumsum(lengths[dense])).astype(np.uint32),
        "planes": planes.ravel(),
        "ranks": _ranks(planes).ravel(),
        "offsets": documents[sparse],
        "weights": stored[sparse] if precision == "u8" else stored,
    }


def array_bytes(lengths: NDArray[np.int64], rows: int, precision: Precision = "f32") -> int:
    """Bytes of the arrays that `invert` makes of runs with so many postings (each > 0), without making them."""
    weight = {"f32": 4, "u16": 2, "u8": 1}[precision]
    dense = lengths >= _dense_from(rows)
    planes, in_planes, postings = int(dense.sum()), int(lengths[dense].sum()), int(lengths.sum())
    plane = _width(rows) + _width(rows) // _STRIDE * 2
    size = 4 * (3 * len(lengths) + 1) + 4 * (2 * planes + 1) + planes * plane + 2 * (postings - in_planes)
    return size + weight * (postings - in_planes if precision == "u8" else postings)


def _ranks(planes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Of each plane [planes, bytes] the documents before every 64th one."""
    counts = np.count_nonzero(planes.reshape(len(planes), planes.shape[1] // _STRIDE, _STRIDE), axis=2)
    before: NDArray[np.uint16] = (np.cumsum(counts, axis=1) - counts).astype(np.uint16)
    return before


def _dense_from(rows: int) -> int:
    return rows // _DENSE + 1 if rows >= _DENSE_ROWS else rows + 1


def _quantise(weights: NDArray[np.float32], bounds: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Weights in units of bounds / 255, rounded to nearest, never 0: a term that is there stays there."""
    units = np.rint(weights.astype(np.float64) / bounds * 255)
    return np.maximum(units, 1).astype(np.uint8)


def _levels(weights: NDArray[np.float32], bound: np.float32) -> NDArray[np.uint8]:
    """Weights in units of bound / 255, rounded up."""
    return np.minimum(np.ceil(weights.astype(np.float64) / bound * 255), 255).astype(np.uint8)


def _halves(weights: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each weight without its sign, rounded to nearest (0.2 %), finite and never 0."""
    halves = (weights.view(np.uint32) + np.uint32(1 << 14)) >> np.uint32(15)
    clipped: NDArray[np.uint16] = np.clip(halves, 1, 0xFEFF).astype(np.uint16)
    return clipped


def _floats(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Weights as they are stored, as floats; bytes in their units."""
    floats: NDArray[np.float32] = stored.astype(np.float32, copy=False)
    if stored.dtype == np.uint16:
        floats = (stored.astype(np.uint32) << np.uint32(15)).view(np.float32)
    return floats


def rows_between(vectors: SparseVectors, start: int, stop: int) -> SparseVectors:
    """Rows start .. stop - 1, without copying."""
    begin, end = vectors.indptr[start], vectors.indptr[stop]
    return SparseVectors(
        vectors.indptr[start : stop + 1] - begin, vectors.terms[begin:end], vectors.weights[begin:end], vectors.vocab
    )
