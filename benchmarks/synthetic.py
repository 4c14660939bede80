"""Vectors without a model: random, with the statistics that decide how long an exact search takes.

Real texts, expanded by a SPLADE model with their own words added, had 280,522 terms in the vocabulary, 113 terms a
document, 37.5 a query, and 4.4 postings of a query's terms a document. Terms here follow one Zipf-Mandelbrot law
for documents and queries, whose two constants were chosen to give these four numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

TERMS = 280_522
PIVOT = 30_522
EXPONENT, SHIFT = 1.2, 31.0  # probability of the term of rank r ~ (r + SHIFT) ** -EXPONENT
DOCUMENT, QUERY = 122.6, 39.3  # terms drawn; some are drawn twice
_ROWS = 8192  # drawn at one time


def vocabulary() -> Vocab:
    """280,522 made-up names."""
    return Vocab([f"word{i}" for i in range(PIVOT)], [f"▁{i:x}" for i in range(TERMS - PIVOT)])


def vectors(rows: int, mean: float, vocab: Vocab, seed: int) -> SparseVectors:
    """`rows` vectors for which about `mean` terms are drawn; `seed` decides everything but the terms' popularity."""
    return SparseVectors.concat(list(parts(rows, mean, vocab, seed)))


def parts(rows: int, mean: float, vocab: Vocab, seed: int) -> Iterator[SparseVectors]:
    """The same, some thousand at a time: for more vectors than memory holds."""
    term_of_rank = np.random.default_rng(0).permutation(TERMS)
    random = np.random.default_rng(seed)
    for start in range(0, rows, _ROWS):
        yield _part(random, min(_ROWS, rows - start), mean, term_of_rank, vocab.fingerprint)


def _part(
    random: np.random.Generator, rows: int, mean: float, term_of_rank: NDArray[np.int64], vocab: str
) -> SparseVectors:
    lengths = np.maximum(random.gamma(6, mean / 6, rows), 3).astype(np.int64)
    terms = term_of_rank[_ranks(random.random(lengths.sum()))]
    keys = np.unique(np.repeat(np.arange(rows), lengths) * TERMS + terms)
    indptr = np.searchsorted(keys, np.arange(rows + 1) * TERMS)
    weights = np.exp(random.normal(-0.7, 0.7, len(keys))).astype(np.float32)
    return SparseVectors(indptr, keys % TERMS, weights, vocab)


def _ranks(uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ranks by the inverse of the law's distribution function."""
    power = 1 - EXPONENT
    spread = (1 - uniform) * SHIFT**power + uniform * (TERMS + SHIFT) ** power
    return np.minimum(spread ** (1 / power) - SHIFT, TERMS - 1).astype(np.int64)


def statistics(documents: SparseVectors, queries: SparseVectors) -> dict[str, float]:
    """The numbers above, as they came out."""
    size = int(max(documents.terms.max(), queries.terms.max())) + 1
    in_documents = np.bincount(documents.terms, minlength=size)
    in_queries = np.bincount(queries.terms, minlength=size)
    return {
        "documents": len(documents),
        "queries": len(queries),
        "terms_per_document": round(documents.nnz / len(documents), 2),
        "terms_per_query": round(queries.nnz / len(queries), 2),
        "postings_per_document_and_query": round(float(in_documents @ in_queries) / len(documents) / len(queries), 3),
    }
