"""Exact rankings from vectors of any kind, the same way for every system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from polylex.collection import Collection
from polylex.trec import Run
from polylex.vectors import SparseVectors

# One row a text: dense [texts, width], or a scipy CSR matrix.
Matrix: TypeAlias = "NDArray[np.float32] | sp.csr_matrix"

BLOCK = 256


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a system made of a collection.

    run             the best documents of every query
    document_terms  mean number of terms of a document that weigh something; None for dense vectors
    query_terms     the same of a query
    encoded         texts encoded in this process, the others came from disk
    seconds         spent on encoding them
    """

    run: Run
    document_terms: float | None = None
    query_terms: float | None = None
    encoded: int = 0
    seconds: float = 0.0


def rank(collection: Collection, queries: Matrix, documents: Matrix, k: int = 100) -> Run:
    """The k documents with the highest inner product for each query; ties in document order.

    Sparse vectors rank only documents that share a term with the query, as an inverted index would.
    """
    columns = documents.T.tocsr() if sp.issparse(documents) else documents.T
    run: Run = {}
    for start, scores in _blocks(queries, columns):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        for row, ranking in enumerate(best):
            reached = [
                (index, score)
                for index in ranking
                if (score := float(scores[row, index])) > 0 or not sp.issparse(queries)
            ]
            run[collection.queries[start + row].id] = [(collection.ids[index], score) for index, score in reached]
    return run


def _blocks(queries: Matrix, columns: Matrix) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First query and scores [queries, documents] of each block of queries."""
    for start in range(0, queries.shape[0], BLOCK):
        scores: Any = queries[start : start + BLOCK] @ columns
        yield start, scores.toarray() if sp.issparse(scores) else scores


def matrix(vectors: SparseVectors, width: int) -> sp.csr_matrix:
    """Sparse vectors as CSR, `width` terms wide."""
    return sp.csr_matrix((vectors.weights, vectors.terms.astype(np.int32), vectors.indptr), shape=(len(vectors), width))


def mean_terms(vectors: sp.csr_matrix) -> float:
    """Mean number of terms a row."""
    return float(vectors.nnz / max(vectors.shape[0], 1))


def concatenated(rows: Sequence[bytes], dtype: type[np.generic]) -> NDArray[np.generic]:
    """Rows of equal length as one array [rows, width]."""
    return np.frombuffer(b"".join(rows), dtype).reshape(len(rows), -1)
