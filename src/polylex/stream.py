"""Stream: documents with their vectors, to be sent somewhere batch by batch, and read again as often as need be.

with Index.open("articles.plx") as index:
for batch in Stream.of_index(index):
batch.ids, batch.vectors, batch.fields
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from polylex.documents import Record
from polylex.index import Index
from polylex.postings import rows_between
from polylex.vectors import SparseVectors

SIZE = 1_000  # documents of a batch


@dataclass(frozen=True, slots=True)
class Batch:
    """Some documents.

    ids      list of str
    vectors  SparseVectors, one row an id
    fields   list of mappings, one an id; empty ones where documents have none
    """

    ids: Sequence[str]
    vectors: SparseVectors
    fields: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> Batch:
        """Some of them."""
        return Batch([self.ids[row] for row in rows], self.vectors.take(rows), [self.fields[row] for row in rows])


@dataclass(frozen=True, slots=True)
class Stream:
    """Documents of one collection, always in the same order.

    documents  int  how many there are
    vocab      str  fingerprint of the id space of their vectors
    begin      makes an iterator over batches that starts at the first document
    """

    documents: int
    vocab: str
    begin: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.begin()

    def __len__(self) -> int:
        return self.documents

    @classmethod
    def of_vectors(
        cls, vectors: SparseVectors, ids: Sequence[str], fields: Sequence[Mapping[str, Any]] | None = None
    ) -> Stream:
        """Rows that are in memory, or mapped."""

        def begin() -> Iterator[Batch]:
            for start in range(0, len(ids), SIZE):
                stop = min(start + SIZE, len(ids))
                some = [{}] * (stop - start) if fields is None else fields[start:stop]
                yield Batch(list(ids[start:stop]), rows_between(vectors, start, stop), some)

        return cls(len(ids), vectors.vocab, begin)

    @classmethod
    def of_index(cls, index: Index) -> Stream:
        """The documents of an index, in the order of rows (u8 weights come rounded)."""

        def begin() -> Iterator[Batch]:
            documents = index.documents()
            held = next(documents, None)
            for first, vectors in index.blocks():
                end = first + len(vectors)
                while held is not None and held.row < end:
                    records: list[Record] = []
                    while held is not None and held.row < end and len(records) < SIZE:
                        records.append(held)
                        held = next(documents, None)
                    rows = np.array([record.row for record in records]) - first
                    yield Batch(
                        [record.id for record in records],
                        vectors.take(rows),
                        [record.fields for record in records],
                    )

        return cls(len(index), index.vocab_fingerprint, begin)

    def through(self, change: Callable[[SparseVectors], SparseVectors]) -> Stream:
        """The same documents, their vectors changed batch by batch."""
        vocab = change(SparseVectors.empty(self.vocab)).vocab

        def begin() -> Iterator[Batch]:
            return (replace(batch, vectors=change(batch.vectors)) for batch in self)

        return Stream(self.documents, vocab, begin)

    def watched(self, look: Callable[[Batch], object]) -> Stream:
        """The same documents; `look` is shown each batch as it passes."""

        def begin() -> Iterator[Batch]:
            for batch in self:
                look(batch)
                yield batch

        return Stream(self.documents, self.vocab, begin)

    def ids(self) -> Iterator[str]:
        """Of all documents."""
        return chain.from_iterable(batch.ids for batch in self)
