"""Index: a folder of documents, searched with vectors. Exact, memory-mapped, safe to read from many threads.

with Index.open("my-index") as index:
    for hit in index.search(encoder.encode(["¿Quién puede casarse?"], kind="query"), k=3)[0]:
        print(hit.score, hit.id, hit.fields)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.catalog import Catalog
from polylex.columns import Counts, counts_of
from polylex.documents import Record
from polylex.errors import BadInput
from polylex.filters import holds, parse, parse_field
from polylex.kernels import Allowed
from polylex.postings import Precision, rows_between
from polylex.snapshot import Snapshot, Top
from polylex.storage import read_vocab, vocab_name
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

__all__ = ["Hit", "Index", "IndexBuilder", "IndexInfo", "IndexWriter", "Record"]

Part = TypeVar("Part")
_QUERIES = 256  # for one call of the kernel: short enough that Ctrl-C is answered soon
_SEGMENTS = 4  # a thread at least, for one query over several: waking a thread takes as long as searching two
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
    deleted             int    documents that are gone but still take space in segments
    segments            int    files that hold its postings
    postings            int    (document, term) weights
    terms_per_document  float  mean
    bytes               int    on disk, everything included
    vocab               str    fingerprint of the term space
    encoder             str    name of the model; weights_id: its identity, "" if unknown
    settings            dict   what the caller stored when building
    precision           str    "f32", "u16" or "u8"
    created             str    UTC, ISO 8601
    generation          int    transactions since it was built
    format_version      int
    """

    path: Path
    documents: int
    deleted: int
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
    generation: int
    format_version: int


class Index:
    """An index opened for reading: one consistent state, from any number of threads. Close it, or use `with`.

    What writers do meanwhile is seen after `refresh`, and not before.
    """

    def __init__(self, path: Path, snapshot: Snapshot) -> None:
        """Take an opened state; call `Index.open`."""
        self.path = path
        self._snapshot: Snapshot | None = snapshot
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._vocab: Vocab | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Index:
        """Open a folder that a builder finished. Sizes and the catalog are verified; `check` verifies every byte.

        Raises IndexNotFound, CorruptIndex naming the file, UnknownFormat.
        """
        return cls(Path(path), Snapshot.open(Path(path)))

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

    def refresh(self) -> bool:
        """Go on to the state that is in the folder now; whether there was another. Costs microseconds if not.

        Searches that are under way end in the state in which they began. Raises as `open` does, and then nothing
        changes.
        """
        with self._refreshing:
            before = self._require_open()
            if before.catalog.is_current():
                return False
            self._snapshot = Snapshot.open(self.path, before)
            return True

    @property
    def snapshot(self) -> Snapshot:
        """The state that searches see now; it stays what it is when the index is refreshed or closed."""
        return self._require_open()

    @property
    def generation(self) -> int:
        """Transactions since the index was built; two states of one index are equal if this is."""
        return self._catalog.generation

    @property
    def span(self) -> int:
        """One more than the greatest row that was ever given to a document."""
        return self._catalog.next_row

    @property
    def vocab_fingerprint(self) -> str:
        """Identity of the term space: SparseVectors.vocab of everything in here."""
        return str(self._catalog.meta["vocab"])

    @property
    def vocab(self) -> Vocab:
        """The names of all terms, read when first asked for. Raises CorruptIndex."""
        wanted = self.vocab_fingerprint
        if self._vocab is None or self._vocab.fingerprint != wanted:
            self._vocab = read_vocab(self.path / vocab_name(wanted), wanted)
        return self._vocab

    def info(self) -> IndexInfo:
        """Counts, sizes and the model it was made with."""
        catalog = self._catalog
        meta, entries = catalog.meta, catalog.segments
        postings = sum(entry.postings for entry in entries)
        stored = sum(entry.rows for entry in entries)
        files = {entry.file: entry.bytes for entry in entries}
        files |= {written.name: written.bytes for written in catalog.places.values()}
        return IndexInfo(
            path=self.path,
            documents=len(catalog),
            deleted=stored - len(catalog),
            segments=len(entries),
            postings=postings,
            terms_per_document=postings / stored if stored else 0.0,
            bytes=catalog.path.stat().st_size + int(meta["vocab_bytes"]) + sum(files.values()),
            vocab=self.vocab_fingerprint,
            encoder=meta["encoder"],
            weights_id=meta["weights_id"],
            settings=json.loads(meta["settings"]),
            precision=cast(Precision, meta["precision"]),
            created=meta["created"],
            generation=catalog.generation,
            format_version=catalog.version,
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
        """The `k` best documents of each query, best first; ties in the order of rows. Exact.

        where        only documents of which this is true, such as "lang = 'de' and year >= 2020" (docs/filters.md)
        threads      cores to use: for several queries at one time, or for one over several segments
        with_fields  False leaves Hit.fields empty, which is quicker

        Raises BadFilter, VocabMismatch, BadInput for k or threads < 1, CorruptIndex.
        """
        snapshot = self._require_open()
        allowed = None if where is None else snapshot.columns.matching(where)
        rows, scores = self._top(snapshot, queries, k, allowed, threads)
        distinct = np.unique(rows[rows >= 0]).tolist()
        if with_fields:
            records = {record.row: record for record in snapshot.catalog.records(distinct)}
        else:
            records = {row: Record(row, id, {}) for row, id in snapshot.catalog.ids(distinct).items()}
        return [
            [
                Hit(records[row].id, score, row, records[row].fields)
                for row, score in zip(query_rows, query_scores, strict=True)
                if row >= 0
            ]
            for query_rows, query_scores in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def top(self, queries: SparseVectors, k: int = 10, *, allowed: Allowed | None = None, threads: int = 1) -> Top:
        """`search` as arrays: rows int64 and scores float32, both [queries, k]; (-1, 0) where hits are fewer.

        allowed  which documents may be hits, as `matching` tells; None: all
        """
        return self._top(self._require_open(), queries, k, allowed, threads)

    def _top(self, snapshot: Snapshot, queries: SparseVectors, k: int, allowed: Allowed | None, threads: int) -> Top:
        queries.require(str(snapshot.catalog.meta["vocab"]), f"the index {self.path}")
        if k < 1 or threads < 1:
            raise BadInput(f"k and threads must be at least 1, got {k} and {threads}")
        within = max(1, min(k, len(snapshot.catalog)))
        sharers = min(threads, len(snapshot.rows) // _SEGMENTS)
        if len(queries) < sharers:
            rows, scores = self._over_segments(snapshot, queries, within, allowed, sharers)
        else:
            rows, scores = self._over_queries(snapshot, queries, within, allowed, threads)
        if within < k:
            missing = ((0, 0), (0, k - within))
            rows, scores = np.pad(rows, missing, constant_values=-1), np.pad(scores, missing)
        return rows, scores

    def _require_open(self) -> Snapshot:
        if self._snapshot is None:
            raise BadInput(f"the index {self.path} is closed; open it again")
        return self._snapshot

    @property
    def _catalog(self) -> Catalog:
        return self._require_open().catalog

    def _over_queries(
        self, snapshot: Snapshot, queries: SparseVectors, k: int, allowed: Allowed | None, threads: int
    ) -> Top:
        """Share the queries out."""
        step = min(_QUERIES, -(-len(queries) // threads))
        if len(queries) <= step:
            return snapshot.top(queries, k, allowed=allowed)
        parts = [rows_between(queries, at, min(at + step, len(queries))) for at in range(0, len(queries), step)]
        found = self._run(lambda part: snapshot.top(part, k, allowed=allowed), parts, threads)
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _over_segments(
        self, snapshot: Snapshot, queries: SparseVectors, k: int, allowed: Allowed | None, threads: int
    ) -> Top:
        """Share the segments out, and merge what each share found."""
        count = len(snapshot.rows)
        cuts = np.linspace(0, count, min(threads, count) + 1).astype(int)
        parts = [slice(start, stop) for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
        found = self._run(lambda part: snapshot.top(queries, k, part, allowed=allowed), parts, threads)
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

    # -- filters and facets ----------------------------------------------------------------------

    def matching(self, where: str) -> Allowed:
        """The documents of which a filter is true, for `top`. Raises BadFilter, CorruptIndex."""
        return self._require_open().columns.matching(where)

    def facets(
        self, fields: Sequence[str], *, where: str | None = None, rows: Sequence[int] | None = None
    ) -> dict[str, Counts]:
        """How many documents have each value of some fields: the most frequent first, then in the order of the values.

        fields  names as filters have them, such as "lang" or "author.name"
        where   count only documents of which this is true
        rows    count only these, such as the rows of hits

        The elements of a list count one by one. Null, missing fields and objects do not count.
        Raises BadFilter, CorruptIndex.
        """
        wanted = {name: parse_field(name) for name in fields}
        if rows is None:
            allowed = None if where is None else self.matching(where)
            return {name: self._require_open().columns.counts(field, allowed) for name, field in wanted.items()}
        records = self._catalog.records(sorted(set(rows)))
        if where is not None:
            expression = parse(where)
            records = [record for record in records if holds(expression, record.id, record.fields)]
        return {name: counts_of(field, records) for name, field in wanted.items()}

    # -- looking up ------------------------------------------------------------------------------

    def document(self, id: str) -> Record:
        """The document of that id: row, id, fields. Raises DocumentNotFound."""
        return self._catalog.record(id)

    def documents(self) -> Iterator[Record]:
        """All documents, in the order of rows."""
        for start in range(0, self.span, _DOCUMENTS):
            yield from self._catalog.records_between(start, start + _DOCUMENTS)

    def rows(self, where: str | None = None) -> NDArray[np.int64]:
        """Rows of all documents, or of those of which a filter is true, int64, increasing. Raises as `matching`."""
        snapshot = self._require_open()
        allowed = snapshot.permitted(None if where is None else snapshot.columns.matching(where))
        found = [np.zeros(0, np.int64)]
        for number, rows in enumerate(snapshot.rows):
            bits = None if allowed is None else allowed[number]
            whole = np.arange(rows.count)
            found.append(
                rows.of(whole if bits is None else whole[np.unpackbits(bits, count=rows.count, bitorder="little") > 0])
            )
        return np.concatenate(found)

    def text_fields(self, row: int) -> list[str] | None:
        """Which fields of the document of a row were encoded; None: those with the usual names."""
        found: list[str] | None = json.loads(self._catalog.meta["settings"]).get("text_fields")
        return found

    def vectors(self, rows: Sequence[int] | NDArray[np.int64]) -> SparseVectors:
        """The vectors of some rows, in that order, recovered from the postings (u8 weights come rounded).

        Reads the segments of these rows whole: some 10 ms each. Raises BadInput for a row that is not there.
        """
        snapshot, wanted = self._require_open(), np.asarray(rows, np.int64)
        parts, order = [SparseVectors.empty(self.vocab_fingerprint)], [np.zeros(0, np.int64)]
        for number, segment in enumerate(snapshot.table.segments):
            here, documents = snapshot.find(number, wanted)
            if len(here):
                parts.append(segment.vectors(segment.first_row + documents))
                order.append(here)
        found = np.concatenate(order)
        if len(found) < len(wanted):
            missing = wanted[np.setdiff1d(np.arange(len(wanted)), found)[0]]
            raise BadInput(f"row {missing} is not in [0, {snapshot.catalog.next_row}), or its document was deleted")
        return SparseVectors.concat(parts).take(np.argsort(found))

    def blocks(self) -> Iterator[tuple[int, SparseVectors]]:
        """First row and vectors of up to 65,536 rows at a time, in the order of rows (u8 weights come rounded).

        Rows without a document, as deleting leaves them, have empty vectors or are in no block.
        """
        return self._require_open().blocks()

    def values(self, field: str) -> dict[int, str]:
        """What each document holds in a field, as text, by row in increasing order; "" where it has none."""
        found = {}
        for record in self.documents():
            value = record.fields.get(field)
            found[record.row] = "" if value is None else str(value)
        return found

    # -- changing --------------------------------------------------------------------------------

    def writer(self) -> IndexWriter:
        """A writer of the index in this folder; `refresh` shows what it commits. Raises as IndexWriter does."""
        return IndexWriter(self.path)

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
        snapshot = self._require_open()
        for number, segment in enumerate(snapshot.table.segments):
            live, rows = snapshot.live(number), snapshot.rows[number]
            vectors = prune(segment.vectors(None if len(live) == rows.count else rows.first + live))
            for start in range(0, len(live), _DOCUMENTS):
                stop = min(start + _DOCUMENTS, len(live))
                records = snapshot.catalog.records(rows.of(live[start:stop]).tolist())
                builder.add(
                    [record.id for record in records],
                    [record.fields for record in records],
                    rows_between(vectors, start, stop),
                )

    def check(self) -> list[str]:
        """Read every byte and verify it against its checksum; what is wrong, in words, each naming the file."""
        return self._require_open().faults()

    def close(self) -> None:
        """Let go of the files. Searches that are under way in other threads end well."""
        for pool in self._pools.values():
            pool.shutdown()
        self._pools.clear()
        self._snapshot = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
