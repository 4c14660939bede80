"""System: anything that ranks a collection, and what it cost: a model, an index, a run file, a baseline.

outcome = Sparse(polylex.load()).search(read_beir("scifact"), 100)
outcome.run["q1"][0], outcome.document_terms, outcome.index_bytes
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

import numpy as np

from polylex.collection import Collection
from polylex.compression import SUFFIXES
from polylex.database import NAME as INDEX_MARK
from polylex.encodings import Encodings, identity_of
from polylex.errors import BadInput, DocumentNotFound
from polylex.index import Index
from polylex.prune import Pruning
from polylex.retriever import Encoder, Retriever, check_model
from polylex.trec import PathName, Run, read_run
from polylex.vectors import SparseVectors

_NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a system made of a collection. None stands for what is not known, or has no meaning for this system.

    run               per query id its best documents with their scores, best first; ties as the system broke them
    document_terms    mean number of terms of a document; None for dense vectors
    query_terms       the same of a query
    index_bytes       what was searched: the index on disk, or the matrix of vectors
    encoded           texts encoded in this call, the others came from the cache
    encoding_seconds  spent on encoding them
    search_seconds    spent on ranking, all queries together, vectors and index at hand
    """

    run: Run
    document_terms: float | None = None
    query_terms: float | None = None
    index_bytes: int | None = None
    encoded: int = 0
    encoding_seconds: float = 0.0
    search_seconds: float | None = None


class System(Protocol):
    """Anything that ranks a collection. Extend by passing an object that fits; nothing is registered."""

    @property
    def name(self) -> str:
        """Shown in tables; names the run."""

    def search(self, collection: Collection, k: int) -> Outcome:
        """The `k` best documents of every query of the collection; fewer where fewer match, none is allowed.

        Ids of documents are those of `collection.ids`. Ties are broken by the order of the documents in the collection.
        """


OnTexts = Callable[[int], None]


class Explicable(System, Protocol):
    """A system whose scores are inner products of sparse vectors, so that they can be taken apart."""

    @property
    def encoder(self) -> Encoder:
        """The model.

        It may have `term_spans`, as a Reader of polylex.explanation, to point at words; and `truncates(texts, kind=)`,
        one truth value a text, if it reads only the beginning of some.
        """

    @property
    def prune(self) -> Pruning:
        """What it drops of each document; nothing where it has no limits."""

    def vectors(self, collection: Collection) -> tuple[SparseVectors, SparseVectors]:
        """Of its queries and of its documents, as they are searched, rows as in the collection."""

    def pruned(self, prune: Pruning) -> Explicable:
        """The same system with other documents."""


class RunFile:
    """A run that exists already: a file, or a folder with `<collection>.run` for every collection, plain or packed."""

    def __init__(self, path: PathName, name: str = "") -> None:
        self.path = Path(path)
        self.name = name or self.path.name.removesuffix(".gz").removesuffix(".run")
        if not self.path.exists():
            raise BadInput(f"{path}: no such run; give a file in TREC's six columns, or a folder of COLLECTION.run")

    def search(self, collection: Collection, k: int) -> Outcome:
        """The first `k` documents of each query.

        Raises BadRecord (file:line) for what cannot be read, BadInput for a run of another collection: one that shares
        no query, or no document, with this one.
        """
        path = self._of(collection.name) if self.path.is_dir() else self.path
        run = read_run(path)
        queries = {query.id for query in collection.queries} | collection.judgments.keys()
        if run and queries.isdisjoint(run):
            raise BadInput(f"{path}: none of its queries, such as {next(iter(run))!r}, is in {collection.name}")
        known = set(collection.ids)
        found = {document for ranking in run.values() for document, _ in ranking}
        if known and found and known.isdisjoint(found):
            raise BadInput(f"{path}: none of its documents, such as {min(found)!r}, is in {collection.name}")
        return Outcome({query: ranking[:k] for query, ranking in run.items()})

    def _of(self, collection: str) -> Path:
        names = [f"{collection}.run{packed}" for packed in ("", *SUFFIXES)]
        path = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if path is None:
            raise BadInput(f"{self.path} has no {names[0]}, plain or packed; name the runs by their collections")
        return path


class Sparse:
    """A Polylex model, or any encoder of its kind: encode, prune, build a real index, search it on one core.

    encodings  where vectors are kept between runs; in memory by default
    on_texts   called with the number of texts whose vectors have just been made or found
    """

    def __init__(
        self,
        encoder: Encoder,
        name: str = "",
        *,
        encodings: Encodings | None = None,
        prune: Pruning | None = None,
        on_texts: OnTexts | None = None,
    ) -> None:
        self.encoder = encoder
        self.prune = prune or Pruning()
        self._base = name or encoder.name
        self.name = self._base + label(self.prune)
        self._encodings = encodings or Encodings("")
        self._on_texts = on_texts

    def pruned(self, prune: Pruning) -> Sparse:
        """The same model with other pruning. Vectors are shared."""
        return Sparse(self.encoder, self._base, encodings=self._encodings, prune=prune, on_texts=self._on_texts)

    def vectors(self, collection: Collection) -> tuple[SparseVectors, SparseVectors]:
        """Of its queries, and of its documents after pruning."""
        if collection.queries and not collection.ids:
            raise BadInput(f"{collection.name} was read without its documents, which a model has to encode")
        texts = [query.text for query in collection.queries]
        documents = self._encodings.vectors("document", collection.texts, self.encoder, self._on_texts)
        queries = self._encodings.vectors("query", texts, self.encoder, self._on_texts)
        return queries, self.prune(documents)

    def search(self, collection: Collection, k: int) -> Outcome:
        """The `k` best documents of every query."""
        before = self._encodings.encoded, self._encodings.seconds
        queries, documents = self.vectors(collection)
        with (
            TemporaryDirectory() as folder,
            Index.build(Path(folder) / "index", documents, collection.ids, vocab=self.encoder.vocab) as index,
        ):
            run, seconds = _searched(index, collection, queries, k)
            info = index.info()
        return Outcome(
            run,
            document_terms=info.terms_per_document,
            query_terms=queries.nnz / max(1, len(queries)),
            index_bytes=info.bytes,
            encoded=self._encodings.encoded - before[0],
            encoding_seconds=self._encodings.seconds - before[1],
            search_seconds=seconds,
        )


class Indexed:
    """An index that exists already, asked by its own model.

    Documents of the collection that it does not have are never found. The collection may have been read without its
    documents.
    """

    def __init__(self, encoder: Encoder, index: Index, name: str = "", *, prune: Pruning | None = None) -> None:
        check_model(encoder, index)
        self.encoder = encoder
        self.prune = prune or Pruning()
        self._index = index
        self._base = name or index.path.name
        self.name = self._base + label(self.prune)

    def pruned(self, prune: Pruning) -> Indexed:
        """The same documents, pruned."""
        return Indexed(self.encoder, self._index, self._base, prune=prune)

    def vectors(self, collection: Collection) -> tuple[SparseVectors, SparseVectors]:
        """Of its queries, and of its documents as they are in the index; empty for those that it does not have."""
        rows = np.array([_row(self._index, name) for name in collection.ids], np.int64)
        here = np.flatnonzero(rows >= 0)
        found = self.prune(self._index.vectors(rows[here]))
        lengths = np.zeros(len(rows), np.int64)
        lengths[here] = np.diff(found.indptr)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        queries = self.encoder.encode([query.text for query in collection.queries], kind="query")
        return queries, SparseVectors(indptr, found.terms, found.weights, found.vocab)

    def search(self, collection: Collection, k: int) -> Outcome:
        """The `k` best documents of every query."""
        start = time.perf_counter()
        queries = self.encoder.encode([query.text for query in collection.queries], kind="query")
        encoding_seconds = time.perf_counter() - start
        with self._pruned_index() as index:
            run, seconds = _searched(index, collection, queries, k)
            info = index.info()
        return Outcome(
            run,
            document_terms=info.terms_per_document,
            query_terms=queries.nnz / max(1, len(queries)),
            index_bytes=info.bytes,
            encoded=len(queries),
            encoding_seconds=encoding_seconds,
            search_seconds=seconds,
        )

    @contextmanager
    def _pruned_index(self) -> Iterator[Index]:
        if not self.prune:
            yield self._index
            return
        with (
            TemporaryDirectory() as folder,
            self._index.rewrite(Path(folder) / "index", self.prune) as index,
        ):
            yield index


def open_system(
    spec: str, *, cache: PathName | None = None, threads: int | None = None, on_texts: OnTexts | None = None
) -> System:
    """The system that a user's word stands for: [NAME=]WHAT.

    WHAT is a run file or a folder of runs, an index, a model (bundled name, folder, hub id; of SPLADE models of other
    libraries too), or a baseline: "bm25", "dense:FOLDER", "sparse-encoder:FOLDER" (polylex.baselines). NAME is what
    tables call it.

    cache    folder that keeps the vectors of a model; None keeps them in memory
    threads  texts encoded at one time

    Raises BadInput, and what opening an index or a model raises.
    """
    name, what = _split(spec)
    path = Path(what)
    if path.is_file() or (path.is_dir() and any(_is_run(each) for each in path.iterdir())):
        return RunFile(path, name)
    if (path / INDEX_MARK).is_file():
        retriever = Retriever.open(path)
        return Indexed(retriever.encoder, cast(Index, retriever.index), name)  # one path gives one index
    from polylex.baselines import open_baseline
    from polylex.models import load, locate

    if not path.exists() and (baseline := open_baseline(what, name, cache=cache, on_texts=on_texts)) is not None:
        return baseline
    encodings = Encodings(identity_of(locate(what)), cache)
    return Sparse(load(what, threads=threads), name, encodings=encodings, on_texts=on_texts)


def _split(spec: str) -> tuple[str, str]:
    """Name, "" where none is given, and the rest."""
    named = _NAMED.fullmatch(spec)
    return (named[1], named[2]) if named and not Path(spec).exists() else ("", spec)


def _is_run(path: Path) -> bool:
    return any(path.name.endswith(f".run{packed}") for packed in ("", *SUFFIXES))


def label(prune: Pruning) -> str:
    """What pruning adds to the name of a system: "+mass=0.9"; "" for none."""
    return "".join(f"+{name}={limit:g}" for name, limit in prune.limits().items())


def _row(index: Index, name: str) -> int:
    try:
        return index.document(name).row
    except DocumentNotFound:
        return -1


def _searched(index: Index, collection: Collection, queries: SparseVectors, k: int) -> tuple[Run, float]:
    """The run, and the seconds of all searches together, one core."""
    start = time.perf_counter()
    hits = index.search(queries, k, with_fields=False)
    seconds = time.perf_counter() - start
    run = {
        query.id: [(hit.id, hit.score) for hit in found] for query, found in zip(collection.queries, hits, strict=True)
    }
    return run, seconds
