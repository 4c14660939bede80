"""Transactions: how the catalog of an index changes. Everything between a begin and a commit, or nothing.

catalog = WritableCatalog.update(path)
with catalog.transaction():
    catalog.remove_segment(0)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, ClassVar

from polylex.catalog import Catalog
from polylex.database import (
    VERSION,
    batches,
    check_version,
    connect_write,
    create,
    faults_named,
    identity,
    require_readable,
    upgrade,
)
from polylex.documents import lines_of
from polylex.errors import DuplicateId
from polylex.locks import WriterLock
from polylex.storage import Written
from polylex.tables import COLUMNS, Deleted, FileEntry, write_digest


class WritableCatalog(Catalog):
    """A catalog as its one writer has it: reading shows what the open transaction wrote, too."""

    _frozen: ClassVar[bool] = False

    def __init__(self, path: Path, connection: sqlite3.Connection, file: tuple[int, int], lock: WriterLock) -> None:
        """Take a prepared connection and the right to write; call `write` or `update` instead."""
        self._writer_lock: WriterLock | None = lock
        super().__init__(path, connection, file)

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def write(cls, path: Path) -> WritableCatalog:
        """Open for writing alone, creating it where it is missing: nobody else can read it meanwhile.

        Raises IndexLocked, naming the holder, while another writer has it; CorruptIndex, UnknownFormat, StorageFull.
        """
        return cls._open(path, _prepare_alone)

    @classmethod
    def update(cls, path: Path) -> WritableCatalog:
        """Open for writing beside readers. Raises as `write` does, and FileNotFoundError."""
        require_readable(path)
        return cls._open(path, _prepare_beside_readers)

    @classmethod
    def _open(cls, path: Path, prepare: Callable[[Path, sqlite3.Connection], None]) -> WritableCatalog:
        lock = WriterLock(path.parent)
        try:
            with faults_named(path):
                connection = connect_write(path)
                try:
                    prepare(path, connection)
                    return cls(path, connection, identity(path), lock)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Let go of the file, and of the right to write. May be called again."""
        with self._lock:
            if self._writer_lock is not None:
                _leave(self._connection)
                self._connection.close()
                self._writer_lock.release()
                self._writer_lock = None

    # -- beginning and ending --------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside becomes durable together at the end, or, on any error, none of it."""
        try:
            self.begin()
            with faults_named(self.path):
                yield
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def begin(self) -> None:
        """Begin a transaction; an index of version 1 becomes one of version 2 in it."""
        with faults_named(self.path), self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self.version < VERSION:
                    upgrade(self._connection)
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def commit(self) -> None:
        """Make everything since `begin` durable. On any error, call `rollback`."""
        with faults_named(self.path), self._lock:
            write_digest(self._connection)
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
        with faults_named(self.path):
            self._connection.execute("SAVEPOINT step")
            try:
                yield
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have taken the whole transaction back
                    self._connection.execute("ROLLBACK TO step")
                    self._connection.execute("RELEASE step")
                raise
            self._connection.execute("RELEASE step")

    # -- inside a transaction --------------------------------------------------------------------

    def set_meta(self, key: str, value: str | None) -> None:
        """Set one entry of `meta`, or remove it."""
        self._connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value is not None:
            self._connection.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def add_documents(self, first_row: int, ids: Sequence[str], fields: Iterable[Mapping[str, Any]]) -> None:
        """Append documents. Raises DuplicateId, BadInput for an id or fields that cannot be stored."""
        lines = lines_of(first_row, ids, fields)
        try:
            self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", lines)
        except sqlite3.IntegrityError:
            known = next(id for id in ids if self._row_before(id, first_row) is not None)
            raise DuplicateId(
                f"document {known!r} is in the index already, as row {self._row_before(known, first_row)}; "
                "every document needs its own id"
            ) from None

    def _row_before(self, id: str, first_row: int) -> int | None:
        """Row of a document stored earlier than `first_row`."""
        found = self._connection.execute("SELECT row FROM documents WHERE id = ? AND row < ?", (id, first_row))
        return next((row for (row,) in found), None)

    def remove_documents(self, rows: Sequence[int], generation: int, kept_from: int) -> None:
        """Remove documents; those of rows below `kept_from` stay for readers of generations below this one."""
        for some, marks in batches(rows):
            self._connection.execute(
                "INSERT INTO removed SELECT row, id, fields, crc32, ? FROM documents "
                f"WHERE row IN ({marks}) AND row < ?",
                (generation, *some, kept_from),
            )
            self._connection.execute(f"DELETE FROM documents WHERE row IN ({marks})", tuple(some))

    def add_file(self, table: str, entry: FileEntry) -> None:
        """Name one more file: `table` is "segments" or "chunks"."""
        self._connection.execute(f"INSERT INTO {table} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", astuple(entry))

    def add_places(self, first_row: int, written: Written) -> None:
        """Name the file that lists the rows of a segment."""
        self._connection.execute("INSERT INTO places VALUES (?, ?, ?, ?)", (first_row, *astuple(written)))

    def set_deleted(self, first_row: int, deleted: Deleted) -> None:
        """Say which documents of a segment are deleted."""
        line = (first_row, deleted.documents, deleted.crc32, deleted.bits.tobytes())
        self._connection.execute("INSERT OR REPLACE INTO deleted VALUES (?, ?, ?, ?)", line)

    def remove_segment(self, first_row: int) -> None:
        """Name a segment no more, nor what belongs to it."""
        for table in ("segments", "deleted", "places"):
            self._connection.execute(f"DELETE FROM {table} WHERE first_row = ?", (first_row,))

    def remove_chunks(self, before: int) -> None:
        """Name the chunks of rows below `before` no more."""
        self._connection.execute("DELETE FROM chunks WHERE first_row < ?", (before,))

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

    def complete(self) -> None:
        """Building is over."""
        self._connection.execute("DROP TABLE chunks")

    def clear(self) -> None:
        """Begin anew, as if just created."""
        for table in ("meta", "segments", "chunks", "documents", "deleted", "places", "removed", "obsolete"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")
        create(self._connection)


def _prepare_alone(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = EXTRA")  # a power cut takes no finished transaction back
    connection.execute("BEGIN EXCLUSIVE")
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        create(connection)
        write_digest(connection)
    connection.execute("COMMIT")
    check_version(path, connection)


def _prepare_beside_readers(path: Path, connection: sqlite3.Connection) -> None:
    check_version(path, connection)
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()


def _leave(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log back into one file, where no reader has it open: then read-only folders are enough."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
