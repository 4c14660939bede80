"""Catalog: the one SQLite file of an index. It names the segments that count, and holds the documents.

What it does not name does not exist: files are written first, then one transaction makes them visible.
The tables are specified in docs/format.md.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from polylex.errors import (
    BadInput,
    CorruptIndex,
    DocumentNotFound,
    DuplicateId,
    IndexLocked,
    IndexNotFound,
    UnknownFormat,
)
from polylex.locks import Pin, WriterLock
from polylex.storage import Written, storage_full, vocab_name

Value = TypeVar("Value")

NAME = "index.sqlite"
VERSION = 2  # of the whole index; user_version in the header of the file
READABLE = (1, 2)
READERS = "readers.lock"  # pinned by readers of odd epochs; those of even ones pin the vocabulary
APPLICATION = 0x504C5831  # "PLX1"; application_id in the header of the file

_ENTRIES = """(
    first_row INTEGER PRIMARY KEY, rows INTEGER NOT NULL, postings INTEGER NOT NULL,
    file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
)"""
_SINCE_2 = (
    """CREATE TABLE deleted (
    first_row INTEGER PRIMARY KEY, documents INTEGER NOT NULL, crc32 INTEGER NOT NULL, bits BLOB NOT NULL
)""",
    """CREATE TABLE places (
    first_row INTEGER PRIMARY KEY, file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
)""",
    """CREATE TABLE removed (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, fields TEXT NOT NULL, crc32 INTEGER NOT NULL, generation INTEGER NOT NULL
)""",
    "CREATE INDEX removed_id ON removed (id)",
    "CREATE TABLE obsolete (file TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)
_SCHEMA = (
    f"PRAGMA application_id = {APPLICATION}",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE segments {_ENTRIES}",
    f"CREATE TABLE chunks {_ENTRIES}",
    """CREATE TABLE documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, fields TEXT NOT NULL, crc32 INTEGER NOT NULL
)""",
    *_SINCE_2,
)
# Names that JSON writes as they are, whatever escapes it uses; SQLite compares what is written.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ -]+")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_NEEDED = ("vocab", "vocab_bytes", "vocab_sha256", "encoder", "weights_id", "settings", "precision", "created")
_ROWS = 65_536  # of one file
_VARIABLES = 500  # of one statement; old releases of SQLite allow 999
_PATIENCE = 10.0  # seconds for a lock that another process holds for some milliseconds
_BUSY, _READONLY, _IOERR, _FULL, _CANTOPEN = 5, 8, 10, 13, 14  # primary result codes of SQLite


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of vectors named by the catalog: a segment or, while building, a chunk that waits to become part of one.

    first_row  int  row of its first document
    rows       int  documents
    postings   int  (document, term) weights
    file       str  name in the index folder
    bytes      int  size of the file
    sha256     str  hex
    """

    first_row: int
    rows: int
    postings: int
    file: str
    bytes: int
    sha256: str


COLUMNS = ", ".join(field.name for field in fields(FileEntry))


@dataclass(frozen=True, slots=True, eq=False)
class Deleted:
    """Documents of a segment that are no more.

    documents  int    how many; at least 1
    crc32      int    of `bits`
    bits       uint8  [ceil(rows / 8)], as numpy.packbits(..., bitorder="little") makes them; set: deleted
    """

    documents: int
    crc32: int
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Deleted:
        """The documents where `mask` [rows] is True."""
        bits = np.packbits(mask, bitorder="little")
        return cls(int(mask.sum()), zlib.crc32(bits.tobytes()), bits)

    def mask(self, rows: int) -> NDArray[np.bool_]:
        """`of` backwards."""
        return np.unpackbits(self.bits, count=rows, bitorder="little").view(np.bool_)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored document.

    row     int   position in the index, from 0
    id      str   the caller's name of it
    fields  dict  any JSON object
    """

    row: int
    id: str
    fields: Mapping[str, Any]


class Catalog:
    """An open catalog: many threads may read it; only `write` and `update` give one that can be changed.

    path        Path  of the SQLite file
    version     int   of the format
    building    bool  True until `complete`
    meta        dict  str -> str; this and all that follows are as of opening, or of the last own transaction
    segments    list of FileEntry, by row
    chunks      list of FileEntry, by row; empty unless building
    deleted     dict  first row of a segment -> Deleted
    places      dict  first row of a segment with gaps -> Written, the file that lists its rows
    generation  int   transactions of writers so far
    next_row    int   row of the next document; rows below may be gaps, none above is used
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, file: tuple[int, int], lock: WriterLock | None = None
    ) -> None:
        """Take a connection to a file with the tables above; call `read`, `write` or `update` instead.

        file  what `_identity` says of it
        lock  None: for reading, and what others change is never seen
        """
        self.path = path
        self._connection = connection
        self._file = file
        self._writer_lock = lock
        self._pin: Pin | None = None
        self._lock = threading.Lock()
        self._frozen = lock is None
        self._has_view = False
        self.deleted: dict[int, Deleted] = {}
        self._load()

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> Catalog:
        """Open for reading what is there now; the folder may be read-only. What writers do later is never seen.

        Raises CorruptIndex, UnknownFormat, IndexLocked; FileNotFoundError and PermissionError as the system does.
        """
        _require_readable(path)
        file = _identity(path)  # before it is opened: if another takes its place meanwhile, that is a change
        with _faults_named(path):
            connection = connect_read(path)
            try:
                connection.execute("PRAGMA cell_size_check = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                _check_version(path, connection)
                catalog = cls(path, connection, file)
                catalog._pin_state()
                return catalog
            except BaseException:
                connection.close()
                raise

    @classmethod
    def write(cls, path: Path) -> Catalog:
        """Open for writing alone, creating it where it is missing: nobody else can read it meanwhile.

        Raises IndexLocked, naming the holder, while another writer has it; CorruptIndex, UnknownFormat, StorageFull.
        """
        return cls._open_write(path, _prepare_alone)

    @classmethod
    def update(cls, path: Path) -> Catalog:
        """Open for writing beside readers. Raises as `write` does, and FileNotFoundError."""
        _require_readable(path)
        return cls._open_write(path, _prepare_beside_readers)

    @classmethod
    def _open_write(cls, path: Path, prepare: Callable[[Path, sqlite3.Connection], None]) -> Catalog:
        lock = WriterLock(path.parent)
        try:
            with _faults_named(path):
                connection = _connect(path.resolve().as_uri())
                try:
                    prepare(path, connection)
                    return cls(path, connection, _identity(path), lock)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.release()
            raise

    def _pin_state(self) -> None:
        """Make writers keep what this state consists of; move on to a newer state where they were quicker."""
        while True:
            epoch = self.epoch
            self._pin = Pin(self.pin_path(epoch), create=epoch % 2 == 1)
            try:
                self._load()
            except BaseException:
                self._pin.release()
                raise
            if self.epoch == epoch:
                return
            self._pin.release()

    def pin_path(self, epoch: int) -> Path:
        """The file on which readers of this epoch hold a lock."""
        return self.path.parent / (READERS if epoch % 2 else vocab_name(self.meta.get("vocab", "")))

    def close(self) -> None:
        """Let go of the file. May be called again."""
        with self._lock:
            if self._writer_lock is not None:
                _leave(self._connection)
            self._connection.close()
            if self._pin is not None:
                self._pin.release()
            if self._writer_lock is not None:
                self._writer_lock.release()
                self._writer_lock = None

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents."""
        gone = sum(deleted.documents for deleted in self.deleted.values())
        return sum(entry.rows for entry in (*self.segments, *self.chunks)) - gone

    @property
    def epoch(self) -> int:
        """Counts how often a writer found that all readers of the epoch before the last were gone."""
        return _number(self.meta, "epoch", 0)

    def is_current(self) -> bool:
        """Whether nobody has changed the index since this was opened."""
        meta = dict(self._lines("SELECT key, value FROM meta WHERE key = 'generation'", ()))
        return _number(meta, "generation", 0) == self.generation and self._is_in_place()

    def _is_in_place(self) -> bool:
        """Whether the file at the path is still the one that was opened, not one that replaced it."""
        try:
            return _identity(self.path) == self._file
        except OSError:
            return False

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The documents of some rows, in that order. Raises CorruptIndex where one is missing or damaged."""
        found: dict[int, Record] = {}
        for some, marks in _batches(rows):
            found.update((record.row, record) for record in self._select(f"row IN ({marks})", some))
        try:
            return [found[row] for row in rows]
        except KeyError as missing:
            raise CorruptIndex(
                f"{self.path} has no document for row {missing}; restore the index from a copy"
            ) from None

    def ids(self, rows: Sequence[int]) -> dict[int, str]:
        """Ids by row, of the rows that are there; quicker than `records`, which also reads the fields."""
        found: dict[int, str] = {}
        with self._reading() as connection:
            for some, marks in _batches(rows):
                found.update(connection.execute(f"SELECT row, id FROM documents WHERE row IN ({marks})", some))
        return found

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Rows by id, of the ids that are there."""
        known = [id for id in ids if _is_id(id)]
        found: dict[str, int] = {}
        with self._reading() as connection:
            for some, marks in _batches(known):
                found.update(connection.execute(f"SELECT id, row FROM documents WHERE id IN ({marks})", some))
        return found

    def records_between(self, start: int, stop: int) -> list[Record]:
        """The documents of rows start .. stop - 1, in order."""
        return self._select("row >= ? AND row < ? ORDER BY row", (start, stop))

    def field_texts(self, names: Sequence[str], start: int, stop: int) -> list[tuple[int, str]]:
        """One field of the documents of rows start .. stop - 1: row, and a JSON array that begins with its value.

        names  of the field, or of the objects that lead to it and of the field; a missing one is null

        Reads without comparing checksums, but for documents that SQLite cannot take apart.
        """
        if not all(map(_PLAIN_NAME.fullmatch, names)):
            return [
                (record.row, _value_text(record, names))
                for at in range(start, stop, _VARIABLES)  # not all of these documents in memory at one time
                for record in self.records_between(at, min(at + _VARIABLES, stop))
            ]
        path = "$" + "".join(f'."{name}"' for name in names)
        # Two paths give an array, in which text, numbers and truth values stay apart.
        lines: list[tuple[int, str | None]] = self._lines(
            "SELECT row, CASE WHEN json_valid(fields) THEN json_extract(fields, ?, ?) END FROM documents "
            "WHERE row >= ? AND row < ? ORDER BY row",
            (path, path, start, stop),
        )
        return [
            (row, _value_text(self.records([row])[0], names) if text is None else text)  # nested too deeply for SQLite
            for row, text in lines
        ]

    def ids_between(self, start: int, stop: int) -> list[tuple[int, str]]:
        """Row and id of the documents of rows start .. stop - 1, in order."""
        return self._lines("SELECT row, id FROM documents WHERE row >= ? AND row < ? ORDER BY row", (start, stop))

    def record(self, id: str) -> Record:
        """The document of that id. Raises DocumentNotFound."""
        found = self._select("id = ?", (id,)) if _is_id(id) else []
        if not found:
            raise DocumentNotFound(f"no document with id {id!r} in {self.path.parent}; ids are compared exactly")
        return found[0]

    def faults(self, rows: Iterable[NDArray[np.int64]]) -> list[str]:
        """What is wrong with the tables or with any document, in words. Reads everything.

        rows  for each segment in turn the rows of its documents, increasing
        """
        faults: list[str] = []
        try:
            with self._reading() as connection:
                report = connection.execute("PRAGMA integrity_check").fetchall()
            faults += [f"{self.path}: {line}" for (line,) in report if line != "ok"]
            total = 0
            for expected in rows:
                total += len(expected)
                faults += self._missing(expected)
            ((count,),) = self._lines("SELECT count(*) FROM documents", ())
            if not faults and count != total:
                faults.append(f"{self.path}: {count} documents, of which {count - total} belong to no segment")
        except CorruptIndex as fault:
            faults.append(str(fault))
        return faults

    def _missing(self, rows: NDArray[np.int64]) -> list[str]:
        """Which of these rows have no document, in words. Raises CorruptIndex for one that fails its checksum."""
        faults = []
        for start in range(0, len(rows), _VARIABLES):
            some = rows[start : start + _VARIABLES].tolist()
            if [record.row for record in self.records_between(some[0], some[-1] + 1)] != some:
                faults.append(f"{self.path}: documents of rows {some[0]} to {some[-1] + 1} are missing, or too many")
        return faults

    # -- writing ---------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside becomes durable together at the end, or, on any error, none of it."""
        try:
            self.begin()
            with _faults_named(self.path):
                yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def begin(self) -> None:
        """Begin a transaction; an index of version 1 becomes one of version 2 in it."""
        with _faults_named(self.path), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in _SINCE_2 if self.version < VERSION else ():
                    self._connection.execute(statement)
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def commit(self) -> None:
        """Make everything since `begin` durable. On any error, call `rollback`."""
        with _faults_named(self.path), self._lock:
            _write_digest(self._connection)
            self._connection.execute("COMMIT")
        self._load(verify=False)

    def rollback(self) -> None:
        """Undo everything since `begin`."""
        with self._lock, suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        self._load(verify=False)

    @property
    def in_transaction(self) -> bool:
        """Whether there is one: some errors, such as a full disk, may end it."""
        return self._connection.in_transaction

    @contextmanager
    def step(self) -> Iterator[None]:
        """A part of a transaction: what is written inside is, on any error, undone without the rest."""
        with _faults_named(self.path):
            self._connection.execute("SAVEPOINT step")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have taken the whole transaction back
                    self._connection.execute("ROLLBACK TO step")
                    self._connection.execute("RELEASE step")
                raise
            self._connection.execute("RELEASE step")

    def set_meta(self, key: str, value: str | None) -> None:
        """Set one entry of `meta`, or remove it. Inside a transaction, as all that follows."""
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value is not None:
            self._connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def add_documents(self, first_row: int, ids: Sequence[str], fields: Iterable[Mapping[str, Any]]) -> None:
        """Append documents. Raises DuplicateId, BadInput for an id or fields that cannot be stored."""
        _check_ids(ids)
        lines = [
            (row, id, text, checksum(id, text))
            for row, (id, text) in enumerate(zip(ids, map(_encode, ids, fields), strict=True), first_row)
        ]
        try:
            self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", lines)
        except sqlite3.IntegrityError:
            known = next(id for id in ids if self._row_before(id, first_row) is not None)
            raise DuplicateId(
                f"document {known!r} is in the index already, as row {self._row_before(known, first_row)}; "
                "every document needs its own id"
            ) from None

    def add_file(self, table: str, entry: FileEntry) -> None:
        """Name one more file: `table` is "segments" or "chunks"."""
        self._connection.execute(f"INSERT INTO {table} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", astuple(entry))

    def remove_segment(self, first_row: int) -> None:
        """Name a segment no more, nor what belongs to it."""
        for table in ("segments", "deleted", "places"):
            self._connection.execute(f"DELETE FROM {table} WHERE first_row = ?", (first_row,))

    def set_deleted(self, first_row: int, deleted: Deleted) -> None:
        """Say which documents of a segment are deleted."""
        line = (first_row, deleted.documents, deleted.crc32, deleted.bits.tobytes())
        self._connection.execute("INSERT OR REPLACE INTO deleted VALUES (?, ?, ?, ?)", line)

    def add_places(self, first_row: int, written: Written) -> None:
        """Name the file that lists the rows of a segment."""
        self._connection.execute("INSERT INTO places VALUES (?, ?, ?, ?)", (first_row, *astuple(written)))

    def remove_documents(self, rows: Sequence[int], generation: int, kept_from: int) -> None:
        """Remove documents; those of rows below `kept_from` stay for readers of generations below this one."""
        for some, marks in _batches(rows):
            self._connection.execute(
                "INSERT INTO removed SELECT row, id, fields, crc32, ? FROM documents "
                f"WHERE row IN ({marks}) AND row < ?",
                (generation, *some, kept_from),
            )
            self._connection.execute(f"DELETE FROM documents WHERE row IN ({marks})", tuple(some))

    def set_obsolete(self, files: Iterable[str], generation: int) -> None:
        """Files that only readers of generations below this one need."""
        lines = [(file, generation) for file in files]
        self._connection.executemany("INSERT OR REPLACE INTO obsolete VALUES (?, ?)", lines)

    def keep(self, files: Iterable[str]) -> None:
        """Files that are in use again: a new one may have the content, and so the name, of an old one."""
        self._connection.executemany("DELETE FROM obsolete WHERE file = ?", [(file,) for file in files])

    def give_back(self, generation: int) -> None:
        """Forget what only readers of generations below this one need."""
        for table in ("obsolete", "removed"):
            self._connection.execute(f"DELETE FROM {table} WHERE generation <= ?", (generation,))

    def obsolete(self) -> set[str]:
        """Files that readers of earlier generations may still need."""
        return {file for (file,) in self._lines("SELECT file FROM obsolete", ())} if self.version >= 2 else set()

    def remove_chunks(self, before: int) -> None:
        """Name the chunks of rows below `before` no more."""
        self._connection.execute("DELETE FROM chunks WHERE first_row < ?", (before,))

    def complete(self) -> None:
        """Building is over."""
        self._connection.execute("DROP TABLE chunks")

    def clear(self) -> None:
        """Begin anew, as if just created."""
        for table in ("meta", "segments", "chunks", "documents", "deleted", "places", "removed", "obsolete"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        _create(self._connection)

    # -- inside ----------------------------------------------------------------------------------

    def _load(self, *, verify: bool = True) -> None:
        """Read all but the documents, in one snapshot."""
        with _faults_named(self.path), self._lock:
            connection = self._connection
            connection.execute("DROP VIEW IF EXISTS temp.documents")
            connection.execute("BEGIN")
            try:
                ((self.version,),) = connection.execute("PRAGMA user_version").fetchall()
                self.building = bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunks'").fetchone())
                self.meta = dict(connection.execute("SELECT key, value FROM meta"))
                self.segments = _entries(connection, "segments")
                self.chunks = _entries(connection, "chunks") if self.building else []
                self.places = _places(connection) if self.version >= 2 else {}
                self.deleted = _deletions(self.path, connection, self.deleted) if self.version >= 2 else {}
                digest = digest_of(connection) if verify else None
            finally:
                connection.execute("COMMIT")
            stored = self.meta.pop("digest", None)
            if verify and stored != digest:
                raise CorruptIndex(f"{self.path} is damaged: its tables fail their checksum; restore it from a copy")
            if verify and (fault := self._misfit()):
                raise CorruptIndex(f"{self.path} is damaged: {fault}; restore it from a copy")
            self.generation = _number(self.meta, "generation", 0)
            self.next_row = _number(self.meta, "next_row", _end([*self.segments, *self.chunks]))
            self._has_view = self._frozen and self.version >= 2
            if self._has_view:
                self._create_view()

    def _misfit(self) -> str:
        """What no writer of ours would say, checksum or not, in words; else "". Readers take the rest on trust."""
        for entry in (*self.segments, *self.chunks):
            numbers = (entry.first_row, entry.postings, entry.bytes)
            if not (_is_count(entry.rows, _ROWS) and entry.rows and all(map(_is_count, numbers)) and _is_file(entry)):
                return f"the file of row {entry.first_row!r} cannot be what it says"
        for first_row, written in self.places.items():
            if not (_is_count(first_row) and _is_count(written.bytes) and _is_file(written)):
                return f"the rows of row {first_row!r} cannot be what it says"
        sizes = {entry.first_row: entry.rows for entry in self.segments}
        for first_row, deleted in self.deleted.items():
            if not _is_count(deleted.documents, sizes.get(first_row, -1)):
                return f"the deletions of row {first_row!r} are more than its segment holds"
        return ""

    def require_settings(self) -> None:
        """Raise CorruptIndex unless `meta` has what a complete index needs."""
        fault = _meta_misfit(self.meta)
        if fault:
            raise CorruptIndex(f"{self.path} is damaged: {fault}; restore it from a copy")

    def _create_view(self) -> None:
        """Put the documents as they were in the place of those that are: all statements name them `documents`."""
        columns = "row, id, fields, crc32"
        self._connection.execute(
            f"CREATE TEMP VIEW documents AS SELECT {columns} FROM main.documents WHERE row < {self.next_row} UNION ALL "
            f"SELECT {columns} FROM main.removed WHERE row < {self.next_row} AND generation > {self.generation}"
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, to read `documents` with, for a moment: no transaction stays open, which a writer would feel.

        A version 1 that was opened becomes a version 2 when somebody writes; then, too, old documents must be found.
        """
        with _faults_named(self.path), self._lock:
            if not self._frozen or self._has_view:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            try:
                if self._connection.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'removed'").fetchone():
                    self._create_view()
                    self._has_view = True
                yield self._connection
            finally:
                self._connection.execute("COMMIT")

    def _lines(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All lines of a statement that reads."""
        with self._reading() as connection:
            return connection.execute(statement, tuple(values)).fetchall()

    def _select(self, condition: str, values: Sequence[Any]) -> list[Record]:
        """Documents where `condition` holds, each checked."""
        lines = self._lines(f"SELECT row, id, fields, crc32 FROM documents WHERE {condition}", values)
        for row, id, text, crc32 in lines:
            if not (isinstance(id, str) and isinstance(text, str)) or crc32 != checksum(id, text):
                raise CorruptIndex(
                    f"{self.path} is damaged: row {row} fails its checksum; restore the index from a copy"
                )
        return [Record(row, id, json.loads(text)) for row, id, text, _ in lines]

    def _row_before(self, id: str, first_row: int) -> int | None:
        """Row of a document stored earlier than `first_row`."""
        found = self._connection.execute("SELECT row FROM documents WHERE id = ? AND row < ?", (id, first_row))
        return next((row for (row,) in found), None)


def not_found(path: Path) -> IndexNotFound:
    """The error for a path without an index, with what to do next."""
    partial = path if path.suffix == ".partial" else path.with_name(path.name + ".partial")
    if (partial / NAME).exists():
        return IndexNotFound(f"no index at {path}: building it was interrupted; run the same command again to continue")
    return IndexNotFound(f"no index at {path}; make one with `polylex index`, or check the path")


def settle(path: Path) -> None:
    """Write what lies in the write-ahead log of a catalog into the file itself, and empty the log.

    Raises IndexLocked where readers do not let that happen, CorruptIndex.
    """
    with _faults_named(path):
        connection = _connect(path.resolve().as_uri())
        try:
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
    if busy:
        raise IndexLocked(f"{path.parent} is being read by processes that do not pause; try again, or stop them")


def _connect(uri: str) -> sqlite3.Connection:
    """A connection without implicit transactions."""
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def connect_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = _connect(uri)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as fault:
        connection.close()
        if _is(fault, _READONLY, "readonly"):
            _recover(path)
            return _connect(uri)
        log = path.with_name(f"{path.name}-wal")
        if not _is(fault, _CANTOPEN, "unable to open") or (log.exists() and log.stat().st_size):
            raise
        # A writer was killed when it had just written everything into the file, and nothing may be written here.
        return _connect(f"{uri}&immutable=1")
    except BaseException:
        connection.close()
        raise


def _recover(path: Path) -> None:
    """Let SQLite undo what a killed writer left half done. Raises CorruptIndex where nothing may be written."""
    connection = _connect(path.resolve().as_uri())
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as fault:
        raise CorruptIndex(
            f"{path} was left half written by a process that was killed, and this folder does not let that be undone "
            f"({fault}); open it once where it can be written"
        ) from None
    finally:
        connection.close()


def _prepare_alone(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = EXTRA")  # a power cut takes no finished transaction back
    connection.execute("BEGIN EXCLUSIVE")
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        _create(connection)
        _write_digest(connection)
    connection.execute("COMMIT")
    _check_version(path, connection)


def _prepare_beside_readers(path: Path, connection: sqlite3.Connection) -> None:
    _check_version(path, connection)
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()


def _leave(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log back into one file, where no reader has it open: then read-only folders are enough."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()


def _require_readable(path: Path) -> None:
    """Raise as the system does where a file cannot be read; SQLite has one message for every reason.

    Opening it would do as well, but closing it again would take the locks away that SQLite holds in this process.
    """
    path.stat()
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another that is put in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _batches(rows: Sequence[Value]) -> Iterator[tuple[Sequence[Value], str]]:
    """As many rows at a time as one statement takes, with a question mark for each."""
    for start in range(0, len(rows), _VARIABLES):
        some = rows[start : start + _VARIABLES]
        yield some, ", ".join("?" * len(some))


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        connection.execute(statement)


def _check_version(path: Path, connection: sqlite3.Connection) -> None:
    """Raise unless this file is a whole catalog of a version that this release reads."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise CorruptIndex(f"{path} is an SQLite file of another program, or damaged; restore it from a copy")
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise UnknownFormat(f"{path} has format version {version}, this release reads {known}; upgrade polylex")
    (pages,), (page_size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        return  # the last pages may be in there
    if path.stat().st_size < pages * page_size:
        raise CorruptIndex(
            f"{path} has {path.stat().st_size} of {pages * page_size} bytes; restore the index from a copy"
        )


def _entries(connection: sqlite3.Connection, table: str) -> list[FileEntry]:
    return [FileEntry(*line) for line in connection.execute(f"SELECT {COLUMNS} FROM {table} ORDER BY first_row")]


def _end(entries: Sequence[FileEntry]) -> int:
    """The row after those of these files, which leave no gap."""
    return max((entry.first_row + entry.rows for entry in entries), default=0)


def _places(connection: sqlite3.Connection) -> dict[int, Written]:
    return {first_row: Written(*line) for first_row, *line in connection.execute("SELECT * FROM places")}


def _deletions(path: Path, connection: sqlite3.Connection, known: Mapping[int, Deleted]) -> dict[int, Deleted]:
    """The table `deleted`; what is `known` already is not read again."""
    found = {}
    for first_row, documents, crc32 in connection.execute("SELECT first_row, documents, crc32 FROM deleted").fetchall():
        before = known.get(first_row)
        if before is not None and (before.documents, before.crc32) == (documents, crc32):
            found[first_row] = before
            continue
        (bits,) = connection.execute("SELECT bits FROM deleted WHERE first_row = ?", (first_row,)).fetchone() or (None,)
        if not isinstance(bits, bytes) or zlib.crc32(bits) != crc32:
            raise CorruptIndex(f"{path} is damaged: the deletions of row {first_row} fail their checksum")
        found[first_row] = Deleted(documents, crc32, np.frombuffer(bits, np.uint8))
    return found


def _is_count(value: object, most: int = 1 << 48) -> bool:
    """Whether SQLite, which lets any type stand in any column, gave a number of rows or bytes."""
    return isinstance(value, int) and 0 <= value <= most


def _is_file(entry: FileEntry | Written) -> bool:
    """Whether this names a file of the index folder."""
    name = entry.file if isinstance(entry, FileEntry) else entry.name
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None and isinstance(entry.sha256, str)


def _meta_misfit(meta: Mapping[str, object]) -> str:
    """What is wrong with the settings of a complete index, in words; else ""."""
    for key in _NEEDED:
        if not isinstance(meta.get(key), str):
            return f"{key} is {meta.get(key)!r:.40}"
    if not re.fullmatch("[0-9a-f]{64}", str(meta["vocab"])):
        return "the vocabulary has no fingerprint"
    if not re.fullmatch("[0-9]{1,15}", str(meta["vocab_bytes"])):
        return "the vocabulary has no size"
    try:
        settings = json.loads(str(meta["settings"]))
    except (ValueError, RecursionError):
        settings = None
    return "" if isinstance(settings, dict) else "the settings are no object"


def _number(meta: Mapping[str, str], key: str, default: int) -> int:
    """A number in `meta`; the default where there is none, which is damage if the checksum says so."""
    text = str(meta.get(key, default))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default


def digest_of(connection: sqlite3.Connection) -> str:
    """SHA-256 (hex) of all but the documents, so that a flipped bit is found on opening."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    statements = [
        "SELECT key, value FROM meta WHERE key <> 'digest' ORDER BY key",
        f"SELECT {COLUMNS} FROM segments ORDER BY first_row",
    ]
    if version >= 2:
        statements += [
            "SELECT first_row, documents, crc32 FROM deleted ORDER BY first_row",
            "SELECT first_row, file, bytes, sha256 FROM places ORDER BY first_row",
        ]
    tables = [connection.execute(statement).fetchall() for statement in statements]
    text = json.dumps(tables, default=repr, separators=(",", ":"))  # damage can make bytes of a text
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _write_digest(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('digest', ?)", (digest_of(connection),))


def _value_text(record: Record, names: Sequence[str]) -> str:
    """A JSON array of one field of a document."""
    value: Any = record.fields
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return json.dumps([value])


def checksum(id: str, text: str) -> int:
    """CRC-32 of a document, of which `text` is the JSON of its fields."""
    return zlib.crc32(text.encode("utf-8"), zlib.crc32(id.encode("utf-8") + b"\0"))


def _is_id(id: str) -> bool:
    """Whether this can be stored as an id: text of at least one character, all of them in UTF-8, none NUL."""
    return isinstance(id, str) and bool(id) and "\0" not in id and _is_utf8(id)


def _is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for id in ids:
        if not _is_id(id):
            raise BadInput(
                f"document id {id!r}: an id is text of at least one character, without NUL or lone surrogates"
            )
        if id in seen:
            raise DuplicateId(f"two documents have the id {id!r}; every document needs its own")
        seen.add(id)


def _encode(id: str, fields: Mapping[str, Any]) -> str:
    """The JSON text of a document's fields."""
    try:
        text = json.dumps(dict(fields), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if not _is_utf8(text):
            text = json.dumps(dict(fields), allow_nan=False, separators=(",", ":"))  # escapes them
    except (TypeError, ValueError, RecursionError) as fault:
        raise BadInput(f"document {id!r}: its fields cannot be stored as a JSON object ({fault})") from None
    return text


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into our errors, naming the file."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except UnicodeDecodeError as fault:  # SQLite quotes a damaged name in its message
        raise CorruptIndex(f"{path} cannot be used ({fault}); restore the index from a copy") from fault
    except sqlite3.DatabaseError as fault:
        if _is(fault, _BUSY, "locked"):
            raise IndexLocked(
                f"{path} has been kept by another process for {_PATIENCE:.0f} seconds; wait for it, or stop it"
            ) from None
        if _is(fault, _FULL, "full") or (
            (_is(fault, _IOERR, "I/O") or _is(fault, _CANTOPEN, "unable to open"))
            and shutil.disk_usage(path.parent).free < 65_536
        ):
            raise storage_full(path) from fault
        raise CorruptIndex(f"{path} cannot be used ({fault}); restore the index from a copy") from fault


def _is(fault: sqlite3.Error, code: int, text: str) -> bool:
    """Whether SQLite gave this result code. Python 3.10 does not tell, but SQLite's messages are fixed."""
    number = getattr(fault, "sqlite_errorcode", None)
    return text in str(fault) if number is None else number & 0xFF == code
