"""Drop light terms after encoding, to trade quality for size and speed. SparseVectors -> SparseVectors.

Four rules, each with the name its users know from elsewhere: `top_k`, `mass` (alpha_mass), `max_ratio`,
`threshold` (abs_value). A vector with a term never becomes a vector without one. Ties go to the smaller term id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.vectors import SparseVectors


def _ranked(vectors: SparseVectors) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """Positions of all weights, heaviest first inside each row; the row of each; its rank in the row."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    order = np.lexsort((vectors.terms, -vectors.weights, rows))
    ranks = np.arange(vectors.nnz, dtype=np.int64) - vectors.indptr[rows]
    return order, rows, ranks


def _heaviest(vectors: SparseVectors) -> NDArray[np.float32]:
    """Per weight [nnz], the heaviest weight of its row."""
    filled = np.diff(vectors.indptr) > 0
    best = np.zeros(len(vectors), np.float32)
    if vectors.nnz:
        best[filled] = np.maximum.reduceat(vectors.weights, vectors.indptr[:-1][filled])
    return np.repeat(best, np.diff(vectors.indptr))


def top_k(vectors: SparseVectors, k: int) -> SparseVectors:
    """Keep the `k` heaviest terms of every row; k >= 1."""
    if k < 1:
        raise BadInput(f"top_k must be at least 1, got {k}")
    order, _, ranks = _ranked(vectors)
    keep = np.zeros(vectors.nnz, bool)
    keep[order[ranks < k]] = True
    return vectors.select(keep)


def mass(vectors: SparseVectors, share: float) -> SparseVectors:
    """Keep, per row, the fewest heaviest terms that hold at least `share` of the row's weight; 0 < share <= 1.

    The number of terms follows the document: a plain text keeps few, a rich one many (MILCO, mass-based pruning).
    """
    if not 0 < share <= 1:
        raise BadInput(f"mass must be in (0, 1], got {share}. 1 keeps every term; 0.9 is a usual start.")
    if share == 1:
        return vectors
    order, rows, _ = _ranked(vectors)
    weights = vectors.weights[order].astype(np.float64)
    running = np.concatenate([[0.0], np.cumsum(weights)])
    start = running[vectors.indptr[rows]]
    total = running[vectors.indptr[rows + 1]] - start
    before = running[:-1] - start  # weight held by the heavier terms of the row
    # The running sum starts at the first row, so it carries rounding of about 1e-16 of the grand total.
    slack = 1e-12 * np.maximum(total, 1.0)
    keep = np.zeros(vectors.nnz, bool)
    keep[order[before < share * total - slack]] = True
    return vectors.select(keep)


def max_ratio(vectors: SparseVectors, ratio: float) -> SparseVectors:
    """Keep the terms that weigh at least `ratio` times the heaviest of their row; 0 <= ratio <= 1."""
    if not 0 <= ratio <= 1:
        raise BadInput(f"max_ratio must be in [0, 1], got {ratio}. 0 keeps every term, 1 only the heaviest.")
    return vectors.select(vectors.weights >= np.float32(ratio) * _heaviest(vectors))


def threshold(vectors: SparseVectors, weight: float) -> SparseVectors:
    """Keep the terms that weigh at least `weight`; a row that has none keeps its heaviest."""
    if not weight >= 0:
        raise BadInput(f"threshold must be 0 or more, got {weight}")
    order, _, ranks = _ranked(vectors)
    keep = vectors.weights >= np.float32(weight)
    keep[order[ranks == 0]] = True
    return vectors.select(keep)


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
        self(SparseVectors.empty(""))  # refuse a bad limit now, not after hours of encoding

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.top_k, self.mass, self.max_ratio, self.threshold))

    def __call__(self, vectors: SparseVectors) -> SparseVectors:
        """Apply the limits, each to the vectors as they came, and keep what all of them keep."""
        results = []
        if self.top_k is not None:
            results.append(top_k(vectors, self.top_k))
        if self.mass is not None:
            results.append(mass(vectors, self.mass))
        if self.max_ratio is not None:
            results.append(max_ratio(vectors, self.max_ratio))
        if self.threshold is not None:
            results.append(threshold(vectors, self.threshold))
        # Every rule keeps a prefix of one ranking, heaviest first, so what all keep is the shortest prefix of each row.
        # Applying one rule to the result of another would not do: `mass` would take its share of what is left.
        return reduce(_shorter, results, vectors)


def _shorter(a: SparseVectors, b: SparseVectors) -> SparseVectors:
    """Per row the vector with fewer terms."""
    a_lengths, b_lengths = np.diff(a.indptr), np.diff(b.indptr)
    if (b_lengths <= a_lengths).all():
        return b
    if (a_lengths <= b_lengths).all():
        return a
    return SparseVectors.from_rows(
        ((a if a_lengths[i] <= b_lengths[i] else b).row(i) for i in range(len(a))),
        a.vocab,
    )


def per_view(
    vectors: SparseVectors,
    pivot_size: int,
    *,
    pivot: Callable[[SparseVectors], SparseVectors] | None = None,
    source: Callable[[SparseVectors], SparseVectors] | None = None,
) -> SparseVectors:
    """Prune each view by its own rule, e.g. `per_view(v, 30522, pivot=Pruning(top_k=64), source=Pruning(top_k=16))`.

    pivot_size  int  ids below it are pivot terms (len(vocab.pivot)). A view without a rule is kept whole.
    """
    is_pivot = vectors.terms < pivot_size
    first = vectors.select(is_pivot)
    second = vectors.select(~is_pivot)
    first = pivot(first) if pivot else first
    second = source(second) if source else second
    rows = (
        tuple(np.concatenate(pair) for pair in zip(first.row(i), second.row(i), strict=True))
        for i in range(len(vectors))
    )
    return SparseVectors.from_rows(rows, vectors.vocab)  # type: ignore[arg-type]
