"""Shards: several indexes, searched as one. Exact: the hits and scores are those of one index of all documents.

with Shards.open(["2024.plx", "2025.plx"]) as shards:
    shards.search(encoder.encode(["¿Quién puede casarse?"], kind="query"), k=3, threads=2)
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from polylex.columns import Counts, merged
from polylex.documents import Record
from polylex.errors import BadInput, DocumentNotFound, DuplicateId, ModelMismatch, VocabMismatch
from polylex.index import Hit, Index, IndexInfo
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

Answer = TypeVar("Answer")


class Shards:
    """Indexes of different documents, with the same vocabulary and model. Close it, or use it in a `with` block.

    Has what `Index` has for searching and looking up, so that a Retriever takes either. Rows count on from shard to
    shard; ties go to the earlier shard. An id belongs to one document: two shards that share one raise DuplicateId when
    a search or a look-up meets both. Weights of precision "u8" are rounded within each segment, so that there the
    scores are those of the shards, not of one index.

    indexes  the shards, in the order given
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        """Take open indexes, which `close` closes. Raises BadInput for none, VocabMismatch, ModelMismatch."""
        if not indexes:
            raise BadInput("no shard; give one index at least")
        self.indexes = tuple(indexes)
        _check_alike([index.info() for index in indexes])
        self._starts = [0, *accumulate(index.span for index in indexes)]

    @property
    def path(self) -> Path:
        """Folder of the first shard."""
        return self.indexes[0].path

    @classmethod
    def open(cls, paths: Sequence[str | os.PathLike[str]]) -> Shards:
        """Open some folders. Raises as `Index.open` does, BadInput for a folder given twice, and as above."""
        resolved = [os.path.realpath(path) for path in paths]
        twice = [path for path, count in Counter(resolved).items() if count > 1]
        if twice:
            raise BadInput(f"{twice[0]} is given twice; a document is searched one time")
        indexes: list[Index] = []
        try:
            for path in paths:
                indexes.append(Index.open(path))
            return cls(indexes)
        except BaseException:
            for index in indexes:
                index.close()
            raise

    # -- what it is ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(map(len, self.indexes))

    def refresh(self) -> bool:
        """Go on to the states that are in the folders now, as `Index.refresh`; rows of later shards may move."""
        changed = [index.refresh() for index in self.indexes]
        self._starts = [0, *accumulate(index.span for index in self.indexes)]
        return any(changed)

    @property
    def vocab_fingerprint(self) -> str:
        """Identity of the term space."""
        return self.indexes[0].vocab_fingerprint

    @property
    def vocab(self) -> Vocab:
        """The names of all terms."""
        return self.indexes[0].vocab

    def info(self) -> IndexInfo:
        """Counts and sizes of all shards together; the rest is that of the first whose model is known."""
        infos = [index.info() for index in self.indexes]

        def total(name: str) -> int:
            return sum(getattr(info, name) for info in infos)

        stored = total("documents") + total("deleted")
        return replace(
            _named(infos),
            documents=total("documents"),
            deleted=total("deleted"),
            segments=total("segments"),
            postings=total("postings"),
            terms_per_document=total("postings") / stored if stored else 0.0,
            bytes=total("bytes"),
            generation=total("generation"),
        )

    # -- searching -------------------------------------------------------------------------------

    def search(
        self,
        queries: SparseVectors,
        k: int = 10,
        *,
        where: str | None = None,
        threads: int = 1,
        with_fields: bool = True,
    ) -> list[list[Hit]]:
        """The `k` best documents of each query over all shards, as `Index.search` gives them.

        threads  cores to use: for several shards at one time, and inside of them

        Raises as `Index.search` does, and DuplicateId.
        """
        if threads < 1:
            raise BadInput(f"threads must be at least 1, got {threads}")
        inside = max(1, threads // len(self.indexes))
        found = self._of_each(
            lambda index: index.search(queries, k, where=where, threads=inside, with_fields=with_fields), threads
        )
        return [self._merge([hits[query] for hits in found], k) for query in range(len(queries))]

    def _merge(self, found: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
        """The best hits of all shards, each shard's best first."""
        hits = [
            replace(hit, row=hit.row + start)
            for start, shard in zip(self._starts, found, strict=False)
            for hit in shard
        ]
        best = sorted(hits, key=lambda hit: (-hit.score, hit.row))[:k]
        rows: dict[str, int] = {}
        for hit in best:
            if rows.setdefault(hit.id, hit.row) != hit.row:
                raise self._duplicate(hit.id, rows[hit.id], hit.row)
        return best

    def facets(
        self, fields: Sequence[str], *, where: str | None = None, rows: Sequence[int] | None = None
    ) -> dict[str, Counts]:
        """How many documents of all shards have each value of some fields, as `Index.facets` gives them."""
        parts: Mapping[int, Sequence[int] | None] = dict.fromkeys(range(len(self.indexes)))
        if rows is not None:
            parts = self._by_shard(rows)
        found = [self.indexes[shard].facets(fields, where=where, rows=part) for shard, part in parts.items()]
        return {name: merged(counts[name] for counts in found) for name in fields}

    def _of_each(self, search: Callable[[Index], Answer], threads: int) -> list[Answer]:
        if threads == 1 or len(self.indexes) == 1:
            return [search(index) for index in self.indexes]
        with ThreadPoolExecutor(min(threads, len(self.indexes)), "polylex-shards") as pool:
            return list(pool.map(search, self.indexes))

    # -- looking up ------------------------------------------------------------------------------

    def document(self, id: str) -> Record:
        """The document of that id, in whichever shard. Raises DocumentNotFound, DuplicateId."""
        found: list[Record] = []
        for index, start in zip(self.indexes, self._starts, strict=False):
            try:
                record = index.document(id)
            except DocumentNotFound:
                continue
            found.append(replace(record, row=record.row + start))
        if not found:
            raise DocumentNotFound(f"no document with id {id!r} in {self._names()}; ids are compared exactly")
        if len(found) > 1:
            raise self._duplicate(id, found[0].row, found[1].row)
        return found[0]

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> SparseVectors:
        """The vectors of some rows, in that order, as `Index.vectors` gives them. Raises BadInput."""
        parts, order = [SparseVectors.empty(self.vocab_fingerprint)], []
        wanted = [int(row) for row in rows]
        for shard, local in self._by_shard(wanted).items():
            parts.append(self.indexes[shard].vectors(local))
            order += [at for at, row in enumerate(wanted) if self._shard(row) == shard]
        return SparseVectors.concat(parts).take(np.argsort(np.array(order, np.int64)))

    def text_fields(self, row: int) -> list[str] | None:
        """Which fields of the document of a row were encoded; None: those with the usual names."""
        return self.indexes[self._shard(row)].text_fields(row)

    def _by_shard(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Rows by shard, counted inside of it."""
        found: dict[int, list[int]] = {}
        for row in rows:
            shard = self._shard(row)
            found.setdefault(shard, []).append(row - self._starts[shard])
        return found

    def _shard(self, row: int) -> int:
        if not 0 <= row < self._starts[-1]:
            raise BadInput(f"row {row} is not in [0, {self._starts[-1]})")
        return bisect_right(self._starts, row) - 1

    def _duplicate(self, id: str, first: int, second: int) -> DuplicateId:
        one, other = (self.indexes[self._shard(row)].path for row in (first, second))
        return DuplicateId(
            f"both {one} and {other} have a document {id!r}; a document belongs to one shard: delete it from the other"
        )

    def _names(self) -> str:
        return ", ".join(str(index.path) for index in self.indexes)

    # -- ending ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all shards."""
        for index in self.indexes:
            index.close()

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_alike(infos: Sequence[IndexInfo]) -> None:
    """Raise VocabMismatch or ModelMismatch, naming two shards, unless scores of all can be compared."""
    first, known = infos[0], _named(infos)
    for other in infos[1:]:
        if other.vocab != first.vocab:
            raise VocabMismatch(
                f"{first.path} has vocabulary {first.vocab[:12]}, {other.path} has {other.vocab[:12]}; their term ids "
                "mean different words. Index one of them again with the model of the other."
            )
        if other.weights_id and other.weights_id != known.weights_id:
            raise ModelMismatch(
                f"{known.path} was made with {known.encoder} ({known.weights_id[:12]}), {other.path} with "
                f"{other.encoder} ({other.weights_id[:12]}); their scores are not comparable. Index one of them again."
            )


def _named(infos: Sequence[IndexInfo]) -> IndexInfo:
    """The first whose weights are known, else the first."""
    return next((info for info in infos if info.weights_id), infos[0])
