"""Hybrid: learned terms and the words themselves, fused by reciprocal ranks.

    add_bm25("my-index")                                     # once; again after the index has changed
    with Hybrid.open("my-index") as hybrid:
        hybrid.search("ISO 8601", k=3)

Learned terms find what is meant, in any language; BM25 finds rare names, numbers and codes to the letter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.bm25 import BM25
from polylex.corpus import document_text
from polylex.errors import BadInput, IndexNotFound
from polylex.explanation import Explanation
from polylex.fusion import reciprocal_rank
from polylex.index import Hit, Index
from polylex.retriever import Encoder, Prune, Retriever

FOLDER = "bm25"  # inside of the index
DEPTH = 100  # hits of each half that are fused


class Hybrid:
    """A Retriever and BM25 over the same documents. Close it, or use it in a `with` block.

    Scores are sums of reciprocal ranks: they order the hits of one query, and mean nothing else.

    retriever  of an index, not of shards: BM25 counts words over all documents
    bm25       of the documents of the index, in their order
    weights    how much the learned half and BM25 count
    """

    def __init__(self, retriever: Retriever, bm25: BM25, weights: tuple[float, float] = (1.0, 1.0)) -> None:
        """Put both together. Raises BadInput where BM25 is of another state of the index, or of another index."""
        if not isinstance(retriever.index, Index):
            raise BadInput("hybrid search takes one index; search shards one by one and fuse the runs")
        self.retriever, self.index, self.bm25, self.weights = retriever, retriever.index, bm25, weights
        if bm25.settings.get("of") != _state(self.index):
            raise BadInput(
                f"the BM25 index in {self.index.path / FOLDER} was built for another state of the index; "
                f"run `polylex bm25 {self.index.path}`, or add_bm25"
            )

    @classmethod
    def open(cls, path: str | os.PathLike[str], encoder: Encoder | None = None) -> Hybrid:
        """Open an index and the BM25 index in it. Raises as `Retriever.open` and `BM25.load` do, and as above."""
        retriever = Retriever.open(path, encoder)
        try:
            return cls(retriever, load_bm25(path))
        except BaseException:
            retriever.close()
            raise

    def search(
        self, query: str, k: int = 10, *, where: str | None = None, prune: Prune | None = None, threads: int = 1
    ) -> list[Hit]:
        """The `k` best documents for a query, best first, as `Retriever.search`; only the score is another."""
        return self.search_batch([query], k, where=where, prune=prune, threads=threads)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        where: str | None = None,
        prune: Prune | None = None,
        threads: int = 1,
    ) -> list[list[Hit]]:
        """`search` for many queries at one time."""
        depth = max(k, DEPTH)
        vectors = self.retriever.encoder.encode(list(queries), kind="query")
        learned = self.index.search(
            prune(vectors) if prune else vectors, depth, where=where, threads=threads, with_fields=False
        )
        allowed = None if where is None else self._allowed(where)
        found = []
        for query, hits in zip(queries, learned, strict=True):
            halves = [[(hit.id, hit.score) for hit in hits], self.bm25.search(query, depth, allowed=allowed)]
            found.append([self._hit(id, score) for id, score in reciprocal_rank(halves, weights=self.weights)[:k]])
        return found

    def _allowed(self, where: str) -> NDArray[np.bool_]:
        """Which documents of BM25 pass a filter."""
        return np.isin(self.index.rows(), self.index.rows(where), assume_unique=True)

    def _hit(self, id: str, score: float) -> Hit:
        record = self.index.document(id)
        return Hit(record.id, score, record.row, record.fields)

    def explain(self, query: str, document_id: str, *, limit: int | None = None) -> Explanation:
        """Why the learned half matches, as `Retriever.explain`."""
        return self.retriever.explain(query, document_id, limit=limit)

    def close(self) -> None:
        """Release the index's files."""
        self.retriever.close()

    def __enter__(self) -> Hybrid:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def add_bm25(path: str | os.PathLike[str], *, k1: float = 0.9, b: float = 0.4) -> BM25:
    """Build BM25 over the documents of an index, and put it into its folder; an older one is replaced.

    Words are not stemmed: queries of a multilingual index come in any language. Raises as `Index.open`, `BM25.build`
    and `BM25.save` do.
    """
    with Index.open(path) as index:
        ids = [record.id for record in index.documents()]
        bm25 = BM25.build(ids, _texts(index), k1=k1, b=b, settings={"of": _state(index)})
    bm25.save(Path(path) / FOLDER, overwrite=True)
    return bm25


def load_bm25(path: str | os.PathLike[str]) -> BM25:
    """The BM25 index in the folder of an index. Raises IndexNotFound with what to do, and as `BM25.load` does."""
    folder = Path(path) / FOLDER
    if not folder.is_dir():
        raise IndexNotFound(f"{path} has no BM25 index; make it with `polylex bm25 {path}`, or add_bm25")
    return BM25.load(folder)


def _texts(index: Index) -> Iterator[str]:
    """The texts of all documents as they were encoded, in the order of rows."""
    for record in index.documents():
        try:
            yield document_text(record.fields, index.text_fields(record.row))
        except BadInput:  # an index may have been built with other fields than its texts
            yield ""


def _state(index: Index) -> dict[str, Any]:
    """What changes when the documents do."""
    info = index.info()
    return {name: getattr(info, name) for name in ("created", "generation", "documents", "postings")}
