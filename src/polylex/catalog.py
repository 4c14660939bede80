"""Catalog: the one SQLite file of an index. It names the segments that count, and holds the documents.

What it does not name does not exist: files are written first, then one transaction makes them visible.
The tables are specified in docs/format.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from polylex.errors import BadInput, CorruptIndex, DocumentNotFound, DuplicateId, IndexLocked, UnknownFormat
from polylex.storage import storage_full

NAME = "index.sqlite"
VERSION = 1  # of the whole index; user_version in the header of the file
APPLICATION = 0x504C5831  # "PLX1"; application_id in the header of the file

_ENTRIES = """(
    first_row INTEGER PRIMARY KEY, rows INTEGER NOT NULL, postings INTEGER NOT NULL,
    file TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL
)"""
_SCHEMA = (
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE segments {_ENTRIES}",
    f"CREATE TABLE chunks {_ENTRIES}",
    """CREATE TABLE documents (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, fields TEXT NOT NULL, crc32 INTEGER NOT NULL
)""",
)
_VARIABLES = 500  # of one statement; old releases of SQLite allow 999
HOLDER = "writer.txt"  # who is writing; for the message of IndexLocked only
_BUSY, _IOERR, _FULL, _CANTOPEN = 5, 10, 13, 14  # primary result codes of SQLite


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


_COLUMNS = ", ".join(field.name for field in fields(FileEntry))


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
    """An open catalog: many threads may read it; only `Catalog.write` gives one that can be changed.

    path      Path  of the SQLite file
    building  bool  True until `complete`
    meta      dict  str -> str; this and the lists are as of opening, or of the last own transaction
    segments  list of FileEntry, by row
    chunks    list of FileEntry, by row; empty unless building
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take a connection to a file with the tables above; call `read` or `write` instead."""
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._load()

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> Catalog:
        """Open for reading; the folder may be read-only.

        Raises CorruptIndex, UnknownFormat; FileNotFoundError and PermissionError as the system does.
        """
        with open(path, "rb"):
            pass  # SQLite has one message for every reason; the system has a good one for each
        with _faults_named(path):
            connection = _connect(f"{path.resolve().as_uri()}?mode=ro")
            try:
                connection.execute("PRAGMA cell_size_check = ON")
                _check_version(path, connection)
                return cls(path, connection)
            except BaseException:
                connection.close()
                raise

    @classmethod
    def write(cls, path: Path) -> Catalog:
        """Open for writing, creating it where it is missing.

        Raises IndexLocked, naming the holder, while another writer has it; CorruptIndex, UnknownFormat, StorageFull.
        """
        with _faults_named(path):
            connection = _connect(path.resolve().as_uri())
            try:
                # The lock belongs to the operating system, so that no crash leaves it behind.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("PRAGMA synchronous = EXTRA")  # a power cut takes no finished transaction back
                connection.execute("BEGIN EXCLUSIVE")
                if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    _create(connection)
                    _write_digest(connection)
                connection.execute("COMMIT")
                _check_version(path, connection)
                catalog = cls(path, connection)
            except BaseException:
                connection.close()
                raise
        with suppress(OSError):
            (path.parent / HOLDER).write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        return catalog

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    # -- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents."""
        return sum(entry.rows for entry in (*self.segments, *self.chunks))

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
        with _faults_named(self.path), self._lock:
            for some, marks in _batches(rows):
                found.update(self._connection.execute(f"SELECT row, id FROM documents WHERE row IN ({marks})", some))
        return found

    def records_between(self, start: int, stop: int) -> list[Record]:
        """The documents of rows start .. stop - 1, in order."""
        return self._select("row >= ? AND row < ? ORDER BY row", (start, stop))

    def record(self, id: str) -> Record:
        """The document of that id. Raises DocumentNotFound."""
        found = self._select("id = ?", (id,)) if _is_id(id) else []
        if not found:
            raise DocumentNotFound(f"no document with id {id!r} in {self.path.parent}; ids are compared exactly")
        return found[0]

    def faults(self) -> list[str]:
        """What is wrong with the tables or with any document, in words. Reads everything."""
        faults: list[str] = []
        try:
            with _faults_named(self.path), self._lock:
                report = self._connection.execute("PRAGMA integrity_check").fetchall()
            faults += [f"{self.path}: {line}" for (line,) in report if line != "ok"]
            expected = 0
            for entry in self.segments:
                if entry.first_row != expected:
                    faults.append(f"{self.path}: rows {expected} to {entry.first_row} belong to no segment")
                for start in range(entry.first_row, entry.first_row + entry.rows, _VARIABLES):
                    stop = min(start + _VARIABLES, entry.first_row + entry.rows)
                    if len(self.records_between(start, stop)) != stop - start:
                        faults.append(f"{self.path}: documents of rows {start} to {stop} are missing")
                expected = entry.first_row + entry.rows
        except CorruptIndex as fault:
            faults.append(str(fault))
        return faults

    # -- writing ---------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside becomes durable together at the end, or, on any error, none of it."""
        try:
            with _faults_named(self.path), self._lock:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                _write_digest(self._connection)
                self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._load()

    def set_meta(self, key: str, value: str | None) -> None:
        """Set one entry of `meta`, or remove it. Inside a transaction, as all that follows."""
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value is not None:
            self._connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def add_documents(self, first_row: int, ids: Sequence[str], fields: Iterable[Mapping[str, Any]]) -> None:
        """Append documents. Raises DuplicateId, BadInput for an id or fields that cannot be stored."""
        _check_ids(ids)
        lines = [
            (row, id, text, _checksum(id, text))
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
        self._connection.execute(f"INSERT INTO {table} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", astuple(entry))

    def remove_chunks(self, before: int) -> None:
        """Name the chunks of rows below `before` no more."""
        self._connection.execute("DELETE FROM chunks WHERE first_row < ?", (before,))

    def complete(self) -> None:
        """Building is over."""
        self._connection.execute("DROP TABLE chunks")

    def clear(self) -> None:
        """Begin anew, as if just created."""
        for table in ("meta", "segments", "chunks", "documents"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        _create(self._connection)

    # -- inside ----------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read all but the documents, in one snapshot."""
        with _faults_named(self.path), self._lock:
            connection = self._connection
            connection.execute("BEGIN")
            try:
                self.building = bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunks'").fetchone())
                self.meta = dict(connection.execute("SELECT key, value FROM meta"))
                self.segments = _entries(connection, "segments")
                self.chunks = _entries(connection, "chunks") if self.building else []
                expected = _digest(connection)
            finally:
                connection.execute("COMMIT")
        if self.meta.pop("digest", None) != expected:
            raise CorruptIndex(f"{self.path} is damaged: its tables fail their checksum; restore it from a copy")

    def _select(self, condition: str, values: Sequence[Any]) -> list[Record]:
        """Documents where `condition` holds, each checked."""
        with _faults_named(self.path), self._lock:
            lines = self._connection.execute(
                f"SELECT row, id, fields, crc32 FROM documents WHERE {condition}", tuple(values)
            ).fetchall()
        for row, id, text, checksum in lines:
            if not (isinstance(id, str) and isinstance(text, str)) or checksum != _checksum(id, text):
                raise CorruptIndex(
                    f"{self.path} is damaged: row {row} fails its checksum; restore the index from a copy"
                )
        return [Record(row, id, json.loads(text)) for row, id, text, _ in lines]

    def _row_before(self, id: str, first_row: int) -> int | None:
        """Row of a document stored earlier than `first_row`."""
        found = self._connection.execute("SELECT row FROM documents WHERE id = ? AND row < ?", (id, first_row))
        return next((row for (row,) in found), None)


def _connect(uri: str) -> sqlite3.Connection:
    """A connection without implicit transactions, that never waits for a writer longer than a moment."""
    return sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None, check_same_thread=False)


def _batches(rows: Sequence[int]) -> Iterator[tuple[Sequence[int], str]]:
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
    if version != VERSION:
        raise UnknownFormat(f"{path} has format version {version}, this release reads {VERSION}; upgrade polylex")
    (pages,), (page_size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    if path.stat().st_size < pages * page_size:
        raise CorruptIndex(
            f"{path} has {path.stat().st_size} of {pages * page_size} bytes; restore the index from a copy"
        )


def _entries(connection: sqlite3.Connection, table: str) -> list[FileEntry]:
    return [FileEntry(*line) for line in connection.execute(f"SELECT {_COLUMNS} FROM {table} ORDER BY first_row")]


def _digest(connection: sqlite3.Connection) -> str:
    """SHA-256 (hex) of the settings and the segments, so that a flipped bit in either is found on opening."""
    meta = connection.execute("SELECT key, value FROM meta WHERE key <> 'digest' ORDER BY key").fetchall()
    segments = connection.execute(f"SELECT {_COLUMNS} FROM segments ORDER BY first_row").fetchall()
    text = json.dumps([meta, segments], default=repr, separators=(",", ":"))  # damage can make bytes of a text
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _write_digest(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('digest', ?)", (_digest(connection),))


def _checksum(id: str, text: str) -> int:
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
            raise IndexLocked(f"{path.parent} is being written by {_holder(path)}; wait for it, or stop it") from None
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


def _holder(path: Path) -> str:
    try:
        return (path.parent / HOLDER).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "another process"
