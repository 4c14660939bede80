"""Index: a folder of documents, searched with vectors. Exact, memory-mapped, safe to read from many threads.

with Index.open("my-index") as index:
    for hit in index.search(encoder.encode(["Wer darf heiraten?"], kind="query"), k=3)[0]:
        print(hit.score, hit.id, hit.fields)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.catalog import NAME, VERSION, Catalog, Record
from polylex.errors import BadInput, CorruptIndex, IndexNotFound
from polylex.kernels import SegmentTable
from polylex.postings import Precision, Segment, rows_between
from polylex.storage import read_vocab, sha256_of, vocab_name
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

__all__ = ["Hit", "Index", "IndexBuilder", "IndexInfo", "Record"]

Top = tuple[NDArray[np.int64], NDArray[np.float32]]
Part = TypeVar("Part")
_QUERIES = 256  # for one call of the kernel: short enough that Ctrl-C is answered soon
_DOCUMENTS = 8_192  # held in memory while rewriting


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that matches a query.

    id      str    the caller's name of it
    score   float  inner product of query and document, > 0; no unit, comparable only within one model
    row     int    position in the index
    fields  dict   what was stored with it; empty where fields were not asked for
    """

    id: str
    score: float
    row: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index is.

    documents           int
    segments            int    files that hold its postings
    postings            int    (document, term) weights
    terms_per_document  float  mean
    bytes               int    on disk, everything included
    vocab               str    fingerprint of the term space
    encoder             str    name of the model; weights_id: its identity, "" if unknown
    settings            dict   what the caller stored when building
    precision           str    "f32" or "u8"
    created             str    UTC, ISO 8601
    format_version      int
    """

    path: Path
    documents: int
    segments: int
    postings: int
    terms_per_document: float
    bytes: int
    vocab: str
    encoder: str
    weights_id: str
    settings: Mapping[str, Any]
    precision: Precision
    created: str
    format_version: int


class Index:
    """An index opened for reading: one consistent state, from any number of threads. Close it, or use `with`."""

    def __init__(self, path: Path, catalog: Catalog, segments: Sequence[Segment]) -> None:
        """Take opened parts; call `Index.open`."""
        self.path = path
        self._catalog = catalog
        self._table: SegmentTable | None = SegmentTable(segments)
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Index:
        """Open a folder that a builder finished. Sizes and the catalog are verified; `check` verifies every byte.

        Raises IndexNotFound, CorruptIndex naming the file, UnknownFormat.
        """
        try:
            return cls._open(Path(path))
        except CorruptIndex:
            return cls._open(Path(path))  # it may have been replaced between two looks into the folder

    @classmethod
    def _open(cls, path: Path) -> Index:
        if not (path / NAME).is_file():
            raise _not_found(path)
        catalog = Catalog.read(path / NAME)
        try:
            if catalog.building:
                raise _not_found(path)
            return cls(path, catalog, _open_segments(path, catalog))
        except BaseException:
            catalog.close()
            raise

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        vectors: SparseVectors,
        ids: Sequence[str],
        fields: Sequence[Mapping[str, Any]] | None = None,
        *,
        vocab: Vocab,
        overwrite: bool = False,
        **identity: Any,  # noqa: ANN401
    ) -> Index:
        """Index vectors that are in memory, and open the result.

        identity  encoder, weights_id, settings, precision: as for IndexBuilder, whose errors it raises too
        """
        with IndexBuilder(path, vocab, overwrite=overwrite, **identity) as builder:
            if len(builder):
                builder.restart()
            builder.add(ids, fields, vectors)
            builder.finish()
        return cls.open(path)

    # -- what it is ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._catalog)

    @property
    def vocab_fingerprint(self) -> str:
        """Identity of the term space: SparseVectors.vocab of everything in here."""
        return str(self._catalog.meta["vocab"])

    @cached_property
    def vocab(self) -> Vocab:
        """The names of all terms, read when first asked for. Raises CorruptIndex."""
        return read_vocab(self.path / vocab_name(self.vocab_fingerprint), self.vocab_fingerprint)

    def info(self) -> IndexInfo:
        """Counts, sizes and the model it was made with."""
        meta, entries = self._catalog.meta, self._catalog.segments
        postings = sum(entry.postings for entry in entries)
        return IndexInfo(
            path=self.path,
            documents=len(self),
            segments=len(entries),
            postings=postings,
            terms_per_document=postings / len(self) if len(self) else 0.0,
            bytes=self._catalog.path.stat().st_size
            + int(meta["vocab_bytes"])
            + sum(size for _, size in {(entry.file, entry.bytes) for entry in entries}),
            vocab=self.vocab_fingerprint,
            encoder=meta["encoder"],
            weights_id=meta["weights_id"],
            settings=json.loads(meta["settings"]),
            precision="u8" if meta["precision"] == "u8" else "f32",
            created=meta["created"],
            format_version=VERSION,
        )

    # -- searching -------------------------------------------------------------------------------

    def search(
        self, queries: SparseVectors, k: int = 10, *, threads: int = 1, with_fields: bool = True
    ) -> list[list[Hit]]:
        """The `k` best documents of each query, best first; ties in document order. Exact.

        threads      cores to use: for several queries at one time, or for one over several segments
        with_fields  False leaves Hit.fields empty, which is quicker

        Raises VocabMismatch, BadInput for k or threads < 1, CorruptIndex.
        """
        rows, scores = self.top(queries, k, threads=threads)
        distinct = np.unique(rows[rows >= 0]).tolist()
        if with_fields:
            records = {record.row: record for record in self._catalog.records(distinct)}
        else:
            records = {row: Record(row, id, {}) for row, id in self._catalog.ids(distinct).items()}
        return [
            [
                Hit(records[row].id, score, row, records[row].fields)
                for row, score in zip(query_rows, query_scores, strict=True)
                if row >= 0
            ]
            for query_rows, query_scores in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def top(self, queries: SparseVectors, k: int = 10, *, threads: int = 1) -> Top:
        """`search` as arrays: rows int64 and scores float32, both [queries, k]; (-1, 0) where hits are fewer."""
        table = self._require_open()
        queries.require(self.vocab_fingerprint, f"the index {self.path}")
        if k < 1 or threads < 1:
            raise BadInput(f"k and threads must be at least 1, got {k} and {threads}")
        within = max(1, min(k, len(self)))
        if len(queries) < threads and len(table.segments) > 1:
            rows, scores = self._over_segments(table, queries, within, threads)
        else:
            rows, scores = self._over_queries(table, queries, within, threads)
        if within < k:
            missing = ((0, 0), (0, k - within))
            rows, scores = np.pad(rows, missing, constant_values=-1), np.pad(scores, missing)
        return rows, scores

    def _require_open(self) -> SegmentTable:
        if self._table is None:
            raise BadInput(f"the index {self.path} is closed; open it again")
        return self._table

    def _over_queries(self, table: SegmentTable, queries: SparseVectors, k: int, threads: int) -> Top:
        """Share the queries out."""
        step = min(_QUERIES, -(-len(queries) // threads))
        if len(queries) <= step:
            return table.top(queries, k)
        parts = [rows_between(queries, at, min(at + step, len(queries))) for at in range(0, len(queries), step)]
        found = self._run(lambda part: table.top(part, k), parts, threads)
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _over_segments(self, table: SegmentTable, queries: SparseVectors, k: int, threads: int) -> Top:
        """Share the segments out, and merge what each share found."""
        cuts = np.linspace(0, len(table.segments), min(threads, len(table.segments)) + 1).astype(int)
        parts = [slice(start, stop) for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
        found = self._run(lambda part: table.top(queries, k, part), parts, threads)
        rows, scores = (np.concatenate(column, axis=1) for column in zip(*found, strict=True))
        best = np.lexsort((rows, -scores), axis=1)[:, :k]
        return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)

    def _run(self, search: Callable[[Part], Top], parts: Sequence[Part], threads: int) -> list[Top]:
        workers = min(threads, len(parts))
        if workers == 1:
            return [search(part) for part in parts]
        with self._lock:
            pool = self._pools.get(workers)
            if pool is None:
                pool = self._pools[workers] = ThreadPoolExecutor(workers, "polylex-search")
        return list(pool.map(search, parts))

    # -- looking up ------------------------------------------------------------------------------

    def document(self, id: str) -> Record:
        """The document of that id: row, id, fields. Raises DocumentNotFound."""
        self._require_open()
        return self._catalog.record(id)

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> SparseVectors:
        """The vectors of some rows, in that order, recovered from the postings (u8 weights come rounded).

        Reads the segments of these rows whole: some 10 ms each. Raises BadInput for a row that is not there.
        """
        wanted = np.asarray(rows, np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise BadInput(f"row {outside[0]} is not in [0, {len(self)})")
        parts, order = [SparseVectors.empty(self.vocab_fingerprint)], []
        for segment in self._require_open().segments:
            here = np.flatnonzero((wanted >= segment.first_row) & (wanted < segment.first_row + segment.rows))
            if len(here):
                parts.append(segment.vectors(wanted[here]))
                order.append(here)
        return SparseVectors.concat(parts).take(np.argsort(np.concatenate([*order, np.zeros(0, np.int64)])))

    # -- maintaining -----------------------------------------------------------------------------

    def rewrite(
        self,
        path: str | os.PathLike[str],
        prune: Callable[[SparseVectors], SparseVectors],
        *,
        settings: Mapping[str, Any] | None = None,
        precision: Precision | None = None,
        overwrite: bool = False,
    ) -> Index:
        """Write a copy whose vectors went through `prune`, without encoding again, and open it.

        settings   stored instead of this index's own; say there how it was pruned
        precision  of the copy; this index's own by default

        Raises as IndexBuilder does.
        """
        info = self.info()
        with IndexBuilder(
            path,
            self.vocab,
            encoder=info.encoder,
            weights_id=info.weights_id,
            settings=info.settings if settings is None else settings,
            precision=precision or info.precision,
            overwrite=overwrite,
        ) as builder:
            if len(builder):
                builder.restart()
            try:
                self._copy_into(builder, prune)
                builder.finish()
            except BaseException:
                builder.discard()
                raise
        return type(self).open(path)

    def _copy_into(self, builder: IndexBuilder, prune: Callable[[SparseVectors], SparseVectors]) -> None:
        for segment in self._require_open().segments:
            vectors = prune(segment.vectors())
            for start in range(0, segment.rows, _DOCUMENTS):
                stop = min(start + _DOCUMENTS, segment.rows)
                records = self._catalog.records_between(segment.first_row + start, segment.first_row + stop)
                builder.add(
                    [record.id for record in records],
                    [record.fields for record in records],
                    rows_between(vectors, start, stop),
                )

    def check(self) -> list[str]:
        """Read every byte and verify it against its checksum; what is wrong, in words, each naming the file."""
        segments, entries = self._require_open().segments, self._catalog.segments
        faults = self._catalog.faults()
        named = [(vocab_name(self.vocab_fingerprint), self._catalog.meta["vocab_sha256"])]
        for name, sha256 in named + [(entry.file, entry.sha256) for entry in entries]:
            try:
                intact = sha256_of(self.path / name) == sha256
            except OSError as fault:
                faults.append(f"{self.path / name} cannot be read ({fault.strerror})")
                continue
            if not intact:
                faults.append(f"{self.path / name} fails its checksum; restore it from a copy or build the index again")
        for segment in segments:
            faults += [f"{segment.path}: {fault}" for fault in segment.faults()]
        return faults

    def close(self) -> None:
        """Let go of the files. Searches that are under way in other threads end well."""
        for pool in self._pools.values():
            pool.shutdown()
        self._pools.clear()
        self._catalog.close()
        self._table = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_segments(path: Path, catalog: Catalog) -> list[Segment]:
    """Map the segments that the catalog names; each must be what the catalog says, as far as a glance tells."""
    vocab = catalog.meta["vocab"]
    _require_size(path / vocab_name(vocab), int(catalog.meta["vocab_bytes"]))
    segments = []
    for entry in catalog.segments:
        _require_size(path / entry.file, entry.bytes)
        segment = Segment.open(path / entry.file, entry.first_row)
        if (segment.rows, len(segment.offsets), segment.vocab) != (entry.rows, entry.postings, vocab):
            raise CorruptIndex(f"{segment.path} is not the segment that the index names; restore it from a copy")
        segments.append(segment)
    return segments


def _require_size(path: Path, size: int) -> None:
    """Raise CorruptIndex unless a file has the size it was written with."""
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise CorruptIndex(f"{path} is missing; restore it from a copy or build the index again") from None
    if actual != size:
        raise CorruptIndex(
            f"{path} has {actual} bytes, it was written with {size}; restore it from a copy or build the index again"
        )


def _not_found(path: Path) -> IndexNotFound:
    """The error for a path without an index, with what to do next."""
    partial = path if path.suffix == ".partial" else path.with_name(path.name + ".partial")
    if (partial / NAME).exists():
        return IndexNotFound(f"no index at {path}: building it was interrupted; run the same command again to continue")
    return IndexNotFound(f"no index at {path}; make one with `polylex index`, or check the path")
