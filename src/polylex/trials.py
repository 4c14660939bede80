"""Trials: what pruning rules would make of an index, found in memory, without writing one.

A ranking depends on the postings of its query's terms alone. So every rule is tried segment by segment, on the runs of
the terms that some query has, with the kernel that searches the written index: the same rankings, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.index import Index
from polylex.kernels import BLOCK, SegmentTable
from polylex.postings import Precision, Segment, array_bytes, invert, rows_between
from polylex.rules import Block, Rule
from polylex.vectors import SparseVectors

# Of every query the grade of each relevant row of the index; rows below 0 stand for documents that it does not have.
Grades = Sequence[Mapping[int, int]]
OnProgress = Callable[[int], None]
Search = Callable[[SparseVectors, int], object]

WORK = ("run", "sparse_posting", "plane_byte")  # what a search goes through, as `Trial.work` counts it
_VECTOR_BYTES = 8  # of a weight in a file of vectors
_MEMORY = Path("a trial in memory")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is to be pruned.

    blocks      gives (first row, vectors) of up to 65,536 documents at a time, in order; called once for every pass
    documents   int
    bytes       int  on disk now
    vocab       str  fingerprint of the term space
    pivot_size  int  ids below it are pivot terms; 0 if unknown
    precision   how the pruned copy holds weights; None for a file of vectors
    search      searches it as it is, to measure latency; None: latency is measured in memory
    """

    blocks: Callable[[], Iterator[tuple[int, SparseVectors]]]
    documents: int
    bytes: int
    vocab: str
    pivot_size: int = 0
    precision: Precision | None = None
    search: Search | None = None

    @classmethod
    def of_index(cls, index: Index) -> Subject:
        """An index, which must stay open."""
        info = index.info()
        pivot_size = len(index.vocab.pivot)
        return cls(
            index.blocks,
            info.documents,
            info.bytes,
            info.vocab,
            pivot_size,
            info.precision,
            lambda q, k: index.top(q, k),
        )

    @classmethod
    def of_vectors(cls, vectors: SparseVectors, size: int, pivot_size: int = 0) -> Subject:
        """Vectors of a file of `size` bytes. Latency is that of an index made of them."""

        def blocks() -> Iterator[tuple[int, SparseVectors]]:
            for start in range(0, len(vectors), BLOCK):
                yield start, rows_between(vectors, start, min(start + BLOCK, len(vectors)))

        return cls(blocks, len(vectors), size, vectors.vocab, pivot_size)

    def bytes_of(self, documents: int, frequencies: NDArray[np.int64]) -> int:
        """Bytes on disk of some documents, as far as pruning changes them.

        frequencies  int64 [terms]  in how many of the documents each term is
        """
        if self.precision is None:
            return _VECTOR_BYTES * int(frequencies.sum())
        return array_bytes(frequencies[frequencies > 0], documents, self.precision)


class Trial:
    """What one rule makes of the subject, for some queries.

    rule
    postings  int                 (document, term) weights that stay
    bytes     int                 of what pruning changes on disk
    rows      int64 [queries, k]  the k best documents, best first; -1 where there are fewer
    scores    float32 [queries, k]
    work      int64 [queries, 3]  what a search goes through: runs, postings of sparse runs, bytes of planes
    """

    def __init__(self, rule: Rule, queries: SparseVectors, k: int) -> None:
        self.rule = rule
        self.postings = self.bytes = 0
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.scores = np.zeros((len(queries), k), np.float32)
        self.work = np.zeros((len(queries), len(WORK)), np.int64)

    def merge(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Take the best documents of later rows in."""
        rows, scores = np.concatenate([self.rows, rows], axis=1), np.concatenate([self.scores, scores], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.rows.shape[1]]  # ties stay in the order of rows
        self.rows, self.scores = np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)


def run_trials(
    subject: Subject,
    queries: SparseVectors,
    rules: Sequence[Rule],
    k: int,
    *,
    labels: Mapping[int, str] | None = None,
    on_progress: OnProgress | None = None,
) -> list[Trial]:
    """Try every rule, in one pass over the documents.

    labels       of every document by row: what a PerLabel rule tells documents apart by
    on_progress  called with the number of documents, after each rule that was tried on them

    Memory is that of one block of documents, some 100 bytes a weight, whatever the number of documents.
    """
    trials = [Trial(rule, queries, k) for rule in rules]
    for part in _parts(subject, queries, labels):
        for trial in trials:
            keep = trial.rule.kept(part.block)
            trial.postings += int(np.count_nonzero(keep))
            frequencies = np.bincount(part.block.vectors.terms[keep])
            trial.bytes += subject.bytes_of(len(part.block.vectors), frequencies)
            segment = part.segment(keep, subject.precision)
            trial.work += work_of(segment, queries)
            trial.merge(*SegmentTable([segment]).top(queries, k))
            if on_progress is not None:
                on_progress(len(part.block.vectors))
    return trials


def in_memory(
    subject: Subject, queries: SparseVectors, rules: Sequence[Rule], labels: Mapping[int, str] | None = None
) -> list[SegmentTable]:
    """The index pruned by each rule, as far as these queries look into it: what a search of the written one reads."""
    segments: list[list[Segment]] = [[] for _ in rules]
    for part in _parts(subject, queries, labels):
        for rule, those in zip(rules, segments, strict=True):
            those.append(part.segment(rule.kept(part.block), subject.precision))
    return list(map(SegmentTable, segments))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A block of documents and which of its weights some query asks for."""

    block: Block
    first_row: int
    asked: NDArray[np.bool_]

    def segment(self, keep: NDArray[np.bool_], precision: Precision | None) -> Segment:
        """What is asked for and stays, as the written index would have it."""
        pruned = self.block.vectors.select(self.asked & keep)
        arrays = invert(pruned, precision or "f32")
        return Segment(_MEMORY, self.first_row, len(pruned), **arrays, vocab=pruned.vocab)


def _parts(subject: Subject, queries: SparseVectors, labels: Mapping[int, str] | None) -> Iterator[_Part]:
    for first_row, vectors in subject.blocks():
        rows = range(first_row, first_row + len(vectors))
        here = None if labels is None else [labels.get(row, "") for row in rows]
        yield _Part(Block(vectors, subject.pivot_size, here), first_row, np.isin(vectors.terms, queries.terms))


def work_of(segment: Segment, queries: SparseVectors) -> NDArray[np.int64]:
    """What a search for each query goes through in a segment, int64 [queries, 3], as `WORK` names it."""
    running = np.zeros((queries.nnz + 1, len(WORK)), np.int64)
    if len(segment.terms):
        work = np.ones((len(segment.terms), len(WORK)), np.int64)
        work[:, 1], work[:, 2] = np.diff(segment.starts.astype(np.int64)), 0
        work[segment.dense, 1:] = 0, len(segment.planes) // max(len(segment.dense), 1)
        runs = np.minimum(np.searchsorted(segment.terms, queries.terms), len(segment.terms) - 1)
        here = segment.terms[runs] == queries.terms
        np.cumsum(np.where(here[:, None], work[runs], 0), axis=0, out=running[1:])
    return np.diff(running[queries.indptr], axis=0)


def ndcg(rows: NDArray[np.int64], grades: Grades) -> NDArray[np.float64]:
    """nDCG@k of each query, float64 [queries]: gain = grade, discount = log2(rank + 1), as trec_eval has it.

    rows  int64 [queries, k]  documents, best first; those without a grade gain nothing. 0 for a query without grades.
    """
    k = rows.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains, ideal = np.zeros((len(grades), k)), np.zeros((len(grades), k))
    for query, known in enumerate(grades):
        gains[query] = [known.get(row, 0) if row >= 0 else 0 for row in rows[query].tolist()]
        best = sorted(known.values(), reverse=True)[:k]
        ideal[query, : len(best)] = best
    found, possible = gains @ discounts, ideal @ discounts
    return np.divide(found, possible, out=np.zeros(len(grades)), where=possible > 0)
