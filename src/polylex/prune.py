"""Drop light terms after encoding, to trade quality for size and speed. SparseVectors -> SparseVectors.

Four rules, each with the name its users know from elsewhere: `top_k`, `mass` (alpha_mass), `max_ratio`,
`threshold` (abs_value). A vector with a term never becomes a vector without one. Ties go to the smaller term id.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.vectors import SparseVectors


class Ranking:
    """The terms of some vectors, ranked inside each row: what every rule asks. Ranked once, it answers many.

        ranking = Ranking(vectors)
        vectors.select(ranking.kept(Pruning(mass=0.9)))

    Every rule keeps a prefix of one order, heaviest first, ties by the smaller term id. Holds about 40 bytes a weight.
    """

    def __init__(self, vectors: SparseVectors) -> None:
        self.vectors = vectors
        self._lengths = np.diff(vectors.indptr)

    @cached_property
    def _rows(self) -> NDArray[np.intp]:
        return np.repeat(np.arange(len(self.vectors)), self._lengths)

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        """Positions of the weights, row by row, heaviest first."""
        # Positive floats sort as their bits do; one stable sort of numbers is quicker than a lexsort of three columns.
        keys = self._rows.astype(np.uint64) << np.uint64(32)
        keys |= ~self.vectors.weights.view(np.uint32) & np.uint64(0xFFFFFFFF)
        return np.argsort(keys, kind="stable")

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Place of each weight in its row, int64 [nnz]; 0 is the heaviest."""
        ranks = np.empty(self.vectors.nnz, np.int64)
        ranks[self._order] = np.arange(self.vectors.nnz) - np.repeat(self.vectors.indptr[:-1], self._lengths)
        return ranks

    @cached_property
    def _held(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight that the heavier terms of the same row hold, per weight; weight of each row."""
        indptr = self.vectors.indptr
        running = np.concatenate([[0.0], np.cumsum(self.vectors.weights[self._order], dtype=np.float64)])
        before = np.empty(self.vectors.nnz)
        before[self._order] = running[:-1] - np.repeat(running[indptr[:-1]], self._lengths)
        return before, np.diff(running[indptr])

    @cached_property
    def _heaviest(self) -> NDArray[np.float32]:
        """Of each row; 0 for an empty one."""
        best = np.zeros(len(self.vectors), np.float32)
        filled = self._lengths > 0
        if filled.any():
            best[filled] = np.maximum.reduceat(self.vectors.weights, self.vectors.indptr[:-1][filled])
        return best

    def top_k(self, k: int) -> NDArray[np.bool_]:
        """Which weights `top_k` keeps; as all that follows, bool [nnz]."""
        return self.ranks < k

    def mass(self, share: float) -> NDArray[np.bool_]:
        """Which weights `mass` keeps."""
        if share == 1:
            return np.ones(self.vectors.nnz, bool)
        before, total = self._held
        # The running sum starts at the first row, so it carries rounding of about 1e-16 of the grand total.
        return before < np.repeat(share * total - 1e-12 * np.maximum(total, 1.0), self._lengths)

    def max_ratio(self, ratio: float) -> NDArray[np.bool_]:
        """Which weights `max_ratio` keeps."""
        least: NDArray[np.float32] = np.repeat(np.float32(ratio) * self._heaviest, self._lengths)
        return self.vectors.weights >= least

    def threshold(self, weight: float) -> NDArray[np.bool_]:
        """Which weights `threshold` keeps."""
        keep: NDArray[np.bool_] = self.vectors.weights >= np.float32(weight)
        keep[self.ranks == 0] = True
        return keep

    def kept(self, pruning: Pruning) -> NDArray[np.bool_]:
        """Which weights all limits of `pruning` keep, each asked of the vectors as they are."""
        keep = np.ones(self.vectors.nnz, bool)
        for name in _LIMITS:
            limit = getattr(pruning, name)
            if limit is not None:
                keep &= getattr(self, name)(limit)
        return keep


def top_k(vectors: SparseVectors, k: int) -> SparseVectors:
    """Keep the `k` heaviest terms of every row; k >= 1."""
    return Pruning(top_k=k)(vectors)


def mass(vectors: SparseVectors, share: float) -> SparseVectors:
    """Keep, per row, the fewest heaviest terms that hold at least `share` of the row's weight; 0 < share <= 1.

    The number of terms follows the document: a plain text keeps few, a rich one many (MILCO, mass-based pruning).
    """
    return Pruning(mass=share)(vectors)


def max_ratio(vectors: SparseVectors, ratio: float) -> SparseVectors:
    """Keep the terms that weigh at least `ratio` times the heaviest of their row; 0 <= ratio <= 1."""
    return Pruning(max_ratio=ratio)(vectors)


def threshold(vectors: SparseVectors, weight: float) -> SparseVectors:
    """Keep the terms that weigh at least `weight`; a row that has none keeps its heaviest."""
    return Pruning(threshold=weight)(vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """A rule to apply to vectors: every limit given applies, the strictest decides.

        Pruning(mass=0.9)(vectors)
        Pruning(mass=0.9, top_k=64)(vectors)

    top_k      int    at most this many terms a row; >= 1
    mass       float  fewest heaviest terms that hold this share of the row's weight; (0, 1]
    max_ratio  float  at least this share of the row's heaviest weight; [0, 1]
    threshold  float  at least this weight; >= 0
    """

    top_k: int | None = None
    mass: float | None = None
    max_ratio: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise BadInput(f"top_k must be at least 1, got {self.top_k}")
        if self.mass is not None and not 0 < self.mass <= 1:
            raise BadInput(f"mass must be in (0, 1], got {self.mass}. 1 keeps every term; 0.9 is a usual start.")
        if self.max_ratio is not None and not 0 <= self.max_ratio <= 1:
            raise BadInput(
                f"max_ratio must be in [0, 1], got {self.max_ratio}. 0 keeps every term, 1 only the heaviest."
            )
        if self.threshold is not None and not self.threshold >= 0:
            raise BadInput(f"threshold must be 0 or more, got {self.threshold}")

    def __bool__(self) -> bool:
        return bool(self.limits())

    def __call__(self, vectors: SparseVectors) -> SparseVectors:
        """Apply the limits, each to the vectors as they came, and keep what all of them keep."""
        # Applying one rule to the result of another would not do: `mass` would take its share of what is left.
        return vectors.select(Ranking(vectors).kept(self)) if self else vectors

    def limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        return {name: limit for name in _LIMITS if (limit := getattr(self, name)) is not None}


_LIMITS = ("top_k", "mass", "max_ratio", "threshold")


def per_view(
    vectors: SparseVectors, pivot_size: int, *, pivot: Pruning | None = None, source: Pruning | None = None
) -> SparseVectors:
    """Prune each view by its own rule, e.g. `per_view(v, 30522, pivot=Pruning(top_k=64), source=Pruning(top_k=16))`.

    pivot_size  int  ids below it are pivot terms (len(vocab.pivot)). A view without a rule is kept whole.
    """
    keep = np.ones(vectors.nnz, bool)
    is_pivot = vectors.terms < pivot_size
    for rule, view in ((pivot, is_pivot), (source, ~is_pivot)):
        if rule:
            keep[view] = Ranking(vectors.select(view)).kept(rule)
    return vectors.select(keep)
