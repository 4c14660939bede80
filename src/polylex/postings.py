"""Segment: the inverted vectors of up to 65,536 documents, in one immutable file that is mapped, not read.

For every term a run of (document, weight), sorted by document (docs/format.md):

    written = write_segment(folder, vectors)
    segment = Segment.open(folder / written.name, first_row=0)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, BadVectors, CorruptIndex, UnknownFormat
from polylex.kernels import BLOCK, positions
from polylex.storage import Written, map_arrays, write_arrays
from polylex.vectors import SparseVectors

FORMAT = "polylex-segment"
VERSION = "1"
POSTINGS_LIMIT = 2**32 - 1  # a run starts at a 32-bit position

Precision = Literal["f32", "u8"]

_LAYOUT = {"terms": ["<u4"], "starts": ["<u4"], "bounds": ["<f4"], "offsets": ["<u2"], "weights": ["<f4", "|u1"]}


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Postings of documents first_row .. first_row + rows - 1. Run r is the slice starts[r]:starts[r + 1].

    terms    uint32  [runs]      strictly increasing
    starts   uint32  [runs + 1]  from 0 to the number of postings, increasing
    bounds   float32 [runs]      greatest weight of the run
    offsets  uint16  [postings]  document minus first_row, strictly increasing inside a run
    weights  float32 [postings]  or uint8, in units of the run's bound / 255, at least 1
    vocab    str                 fingerprint of the id space
    """

    path: Path
    first_row: int
    rows: int
    terms: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    bounds: NDArray[np.float32]
    offsets: NDArray[np.uint16]
    weights: NDArray[np.float32] | NDArray[np.uint8]
    vocab: str

    @classmethod
    def open(cls, path: Path, first_row: int) -> Segment:
        """Map the file of write_segment. Time does not depend on its size.

        Raises CorruptIndex where it is missing, short or its arrays do not fit together; UnknownFormat.
        """
        arrays, metadata = map_arrays(path)
        if metadata.get("format") != FORMAT:
            raise CorruptIndex(f"{path} is not a segment (format {metadata.get('format')!r}); restore it from a copy")
        if metadata.get("version") != VERSION:
            raise UnknownFormat(
                f"{path} has segment version {metadata.get('version')!r}, this release reads {VERSION!r}; "
                "upgrade polylex"
            )
        fault = _misfit(arrays, metadata)
        if fault:
            raise CorruptIndex(f"{path} is damaged: {fault}; restore the index from a copy or build it again")
        return cls(path, first_row, int(metadata["rows"]), **arrays, vocab=metadata["vocab"])

    @property
    def precision(self) -> Precision:
        """How weights are stored."""
        return "u8" if self.weights.dtype == np.uint8 else "f32"

    def vectors(self, rows: NDArray[np.int64] | None = None) -> SparseVectors:
        """The vectors of some rows of the index (in any order, with repeats), or of all rows of this segment.

        u8 weights come rounded, as stored. Reads all offsets. Raises CorruptIndex where the postings make no vectors.
        """
        try:
            if rows is None:
                return self._transpose(np.arange(len(self.offsets)), np.arange(self.rows))
            distinct, which = np.unique(rows - self.first_row, return_inverse=True)
            wanted = np.zeros(BLOCK, bool)
            wanted[distinct] = True
            return self._transpose(positions(self.offsets, wanted), distinct).take(which)
        except (BadVectors, ValueError, IndexError) as fault:
            raise CorruptIndex(f"{self.path} is damaged ({fault}); restore the index from a copy") from None

    def _transpose(self, found: NDArray[np.int64], documents: NDArray[np.int64]) -> SparseVectors:
        """Vectors of `documents` (increasing offsets), whose postings stand at `found` (increasing)."""
        offsets = self.offsets[found]
        order = np.argsort(offsets, kind="stable")  # a radix sort: 16 bits
        found, offsets = found[order], offsets[order]
        runs = np.searchsorted(self.starts, found, side="right") - 1
        weights = self.weights[found].astype(np.float32, copy=False)
        if self.precision == "u8":
            # A unit below the smallest float32 is 0; the weight is still there.
            weights = np.maximum(
                weights * (self.bounds[runs] / np.float32(255)), np.finfo(np.float32).smallest_subnormal
            )
        indptr = np.append(np.searchsorted(offsets, documents), len(found))
        return SparseVectors(indptr, self.terms[runs], weights, self.vocab)

    def faults(self) -> list[str]:
        """What breaks the contract above, in words; reads everything."""
        faults = []
        starts, runs = self.starts.astype(np.int64), len(self.terms)
        if (np.diff(self.terms.astype(np.int64)) <= 0).any():
            faults.append("terms do not strictly increase")
        if starts[0] != 0 or starts[-1] != len(self.offsets) or (np.diff(starts) <= 0).any():
            return [*faults, "runs do not start one after another"]
        keys = np.repeat(np.arange(runs) * BLOCK, np.diff(starts)) + self.offsets
        if (np.diff(keys) <= 0).any() or (self.offsets >= self.rows).any():
            faults.append("documents of a run do not strictly increase, or exceed the segment")
        heaviest = np.maximum.reduceat(self.weights, starts[:-1]) if runs else self.weights[:0]
        expected = np.full(runs, 255, np.uint8) if self.precision == "u8" else self.bounds
        if not (np.isfinite(self.bounds) & (self.bounds > 0)).all() or not (self.weights > 0).all():
            faults.append("weights are not finite and above 0")
        elif not np.array_equal(heaviest, expected):
            faults.append("bounds are not the greatest weights of their runs")
        return faults


def _misfit(arrays: dict[str, NDArray[Any]], metadata: dict[str, str]) -> str:
    """Why these arrays make no segment, or ''. All that the kernels take on trust is checked here."""
    if arrays.keys() != _LAYOUT.keys():
        return f"it holds arrays {sorted(arrays)}, not {sorted(_LAYOUT)}"
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype.str not in _LAYOUT[name]:
            return f"array {name} has shape {array.shape} and type {array.dtype.str}"
    runs, postings = len(arrays["terms"]), len(arrays["offsets"])
    if len(arrays["starts"]) != runs + 1 or len(arrays["bounds"]) != runs or len(arrays["weights"]) != postings:
        return "its arrays have different lengths"
    rows = metadata.get("rows", "")
    if not (rows.isascii() and rows.isdigit() and len(rows) <= 5 and 0 < int(rows) <= BLOCK):
        return f"it says to hold {rows!r} documents"
    return "" if "vocab" in metadata else "it does not name its vocabulary"


def write_segment(folder: Path, vectors: SparseVectors, precision: Precision = "f32") -> Written:
    """Invert vectors and write them as one segment named after its content. Takes about 40 bytes a weight of memory.

    Raises BadInput for no documents or more than a segment may hold, StorageFull.
    """
    if not 0 < len(vectors) <= BLOCK or vectors.nnz > POSTINGS_LIMIT:
        raise BadInput(
            f"a segment takes 1 to {BLOCK} documents and {POSTINGS_LIMIT} weights, got {len(vectors)} and {vectors.nnz}"
        )
    metadata = {"format": FORMAT, "version": VERSION, "rows": str(len(vectors)), "vocab": vectors.vocab}
    return write_arrays(
        folder, lambda digest: f"segment-{digest[:16]}.safetensors", invert(vectors, precision), metadata
    )


def invert(vectors: SparseVectors, precision: Precision = "f32") -> dict[str, NDArray[Any]]:
    """The five arrays of a segment that holds these vectors."""
    # Sorting (term, position) as one number is several times faster than a stable sort of the terms.
    keys = vectors.terms.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(vectors.nnz, dtype=np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    sorted_terms = (keys >> np.uint64(32)).astype(np.uint32)
    begins = np.ones(vectors.nnz, bool)
    np.not_equal(sorted_terms[1:], sorted_terms[:-1], out=begins[1:])
    first = np.flatnonzero(begins)
    weights = vectors.weights[order]
    bounds = np.maximum.reduceat(weights, first) if len(first) else weights
    starts = np.append(first, vectors.nnz)
    if precision == "u8":
        weights = _quantise(weights, np.repeat(bounds, np.diff(starts)))
    documents = np.repeat(np.arange(len(vectors), dtype=np.uint16), np.diff(vectors.indptr))
    return {
        "terms": sorted_terms[first],
        "starts": starts.astype(np.uint32),
        "bounds": bounds,
        "offsets": documents[order],
        "weights": weights,
    }


def _quantise(weights: NDArray[np.float32], bounds: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Weights in units of bounds / 255, rounded to nearest, never 0: a term that is there stays there."""
    units = np.rint(weights.astype(np.float64) / bounds * 255)
    return np.maximum(units, 1).astype(np.uint8)


def rows_between(vectors: SparseVectors, start: int, stop: int) -> SparseVectors:
    """Rows start .. stop - 1, without copying."""
    begin, end = vectors.indptr[start], vectors.indptr[stop]
    return SparseVectors(
        vectors.indptr[start : stop + 1] - begin, vectors.terms[begin:end], vectors.weights[begin:end], vectors.vocab
    )
