"""Catalog: the one SQLite file of an index. It names the segments that count, and holds the documents.

What it does not name does not exist: files are written first, then one transaction makes them visible.
Here it is read; its one writer has it as `polylex.transactions.WritableCatalog`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from polylex.database import batches, check_version, connect_read, faults_named, identity, require_readable
from polylex.documents import Record, is_id, json_path, records_of, value_text
from polylex.errors import CorruptIndex, DocumentNotFound
from polylex.locks import READERS, Pin
from polylex.storage import vocab_name
from polylex.tables import (
    Deleted,
    digest_of,
    end_of,
    misfit_of_deleted,
    misfit_of_files,
    misfit_of_meta,
    number_in,
    read_deleted,
    read_entries,
    read_places,
)

_DOCUMENTS = 500  # in memory at one time


class Catalog:
    """An open catalog, from any number of threads: what was there when it was opened.

    path        Path  of the SQLite file
    version     int   of the format
    building    bool  True until the index is complete
    meta        dict  str -> str; this and all that follows are as of opening, or of the last own transaction
    segments    list of FileEntry, by row
    chunks      list of FileEntry, by row; empty unless building
    deleted     dict  first row of a segment -> Deleted
    places      dict  first row of a segment with gaps -> Written, the file that lists its rows
    generation  int   transactions of writers so far
    next_row    int   row of the next document; rows below may be gaps, none above is used
    """

    _frozen: ClassVar[bool] = True  # what others change is never seen

    def __init__(self, path: Path, connection: sqlite3.Connection, file: tuple[int, int]) -> None:
        """Take a connection to a file with the tables of an index; call `read` instead.

        file  what `identity` says of it
        """
        self.path = path
        self._connection = connection
        self._file = file
        self._pin: Pin | None = None
        self._lock = threading.Lock()
        self._has_view = False
        self.deleted: dict[int, Deleted] = {}
        self._load()

    # -- opening ---------------------------------------------------------------------------------

    @staticmethod
    def read(path: Path) -> Catalog:
        """Open for reading what is there now; the folder may be read-only. What writers do later is never seen.

        Raises CorruptIndex, UnknownFormat, IndexLocked; FileNotFoundError and PermissionError as the system does.
        """
        require_readable(path)
        file = identity(path)  # before it is opened: if another takes its place meanwhile, that is a change
        with faults_named(path):
            connection = connect_read(path)
            try:
                connection.execute("PRAGMA cell_size_check = ON")
                connection.execute("PRAGMA temp_store = MEMORY")
                check_version(path, connection)
                catalog = Catalog(path, connection, file)
                catalog._pin_state()
                return catalog
            except BaseException:
                connection.close()
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
            self._connection.close()
            if self._pin is not None:
                self._pin.release()

    # -- state -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents."""
        gone = sum(deleted.documents for deleted in self.deleted.values())
        return sum(entry.rows for entry in (*self.segments, *self.chunks)) - gone

    @property
    def epoch(self) -> int:
        """Counts how often a writer found that all readers of the epoch before the last were gone."""
        return number_in(self.meta, "epoch", 0)

    def is_current(self) -> bool:
        """Whether nobody has changed the index since this was opened."""
        meta = dict(self._lines("SELECT key, value FROM meta WHERE key = 'generation'", ()))
        return number_in(meta, "generation", 0) == self.generation and self._is_in_place()

    def _is_in_place(self) -> bool:
        """Whether the file at the path is still the one that was opened, not one that replaced it."""
        try:
            return identity(self.path) == self._file
        except OSError:
            return False

    def obsolete(self) -> set[str]:
        """Files that readers of earlier generations may still need."""
        return {file for (file,) in self._lines("SELECT file FROM obsolete", ())} if self.version >= 2 else set()

    def require_settings(self) -> None:
        """Raise CorruptIndex unless `meta` has what a complete index needs."""
        fault = misfit_of_meta(self.meta)
        if fault:
            raise CorruptIndex(f"{self.path} is damaged: {fault}; restore it from a copy")

    def _load(self, *, verify: bool = True) -> None:
        """Read all but the documents, in one snapshot."""
        with faults_named(self.path), self._lock:
            connection = self._connection
            connection.execute("DROP VIEW IF EXISTS temp.documents")
            connection.execute("BEGIN")
            try:
                ((self.version,),) = connection.execute("PRAGMA user_version").fetchall()
                self.building = bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'chunks'").fetchone())
                self.meta = dict(connection.execute("SELECT key, value FROM meta"))
                self.segments = read_entries(connection, "segments")
                self.chunks = read_entries(connection, "chunks") if self.building else []
                self.places = read_places(connection) if self.version >= 2 else {}
                self.deleted = read_deleted(self.path, connection, self.deleted) if self.version >= 2 else {}
                digest = digest_of(connection) if verify else None
            finally:
                connection.execute("COMMIT")
            stored = self.meta.pop("digest", None)
            if verify and stored != digest:
                raise CorruptIndex(f"{self.path} is damaged: its tables fail their checksum; restore it from a copy")
            if verify:
                self._require_fit()
            self.generation = number_in(self.meta, "generation", 0)
            self.next_row = number_in(self.meta, "next_row", end_of([*self.segments, *self.chunks]))
            self._has_view = self._frozen and self.version >= 2
            if self._has_view:
                self._create_view()

    def _require_fit(self) -> None:
        """Raise CorruptIndex where the tables say what cannot be. Readers take the rest on trust."""
        fault = misfit_of_files([*self.segments, *self.chunks], self.places)
        fault = fault or misfit_of_deleted(self.segments, self.deleted)
        if fault:
            raise CorruptIndex(f"{self.path} is damaged: {fault}; restore it from a copy")

    # -- documents -------------------------------------------------------------------------------

    def records(self, rows: Sequence[int]) -> list[Record]:
        """The documents of some rows, in that order. Raises CorruptIndex where one is missing or damaged."""
        found: dict[int, Record] = {}
        for some, marks in batches(rows):
            found.update((record.row, record) for record in self._select(f"row IN ({marks})", some))
        try:
            return [found[row] for row in rows]
        except KeyError as missing:
            raise CorruptIndex(
                f"{self.path} has no document for row {missing}; restore the index from a copy"
            ) from None

    def records_between(self, start: int, stop: int) -> list[Record]:
        """The documents of rows start .. stop - 1, in order."""
        return self._select("row >= ? AND row < ? ORDER BY row", (start, stop))

    def record(self, id: str) -> Record:
        """The document of that id. Raises DocumentNotFound."""
        found = self._select("id = ?", (id,)) if is_id(id) else []
        if not found:
            raise DocumentNotFound(f"no document with id {id!r} in {self.path.parent}; ids are compared exactly")
        return found[0]

    def ids(self, rows: Sequence[int]) -> dict[int, str]:
        """Ids by row, of the rows that are there; quicker than `records`, which also reads the fields."""
        found: dict[int, str] = {}
        with self._reading() as connection:
            for some, marks in batches(rows):
                found.update(connection.execute(f"SELECT row, id FROM documents WHERE row IN ({marks})", some))
        return found

    def ids_between(self, start: int, stop: int) -> list[tuple[int, str]]:
        """Row and id of the documents of rows start .. stop - 1, in order."""
        return self._lines("SELECT row, id FROM documents WHERE row >= ? AND row < ? ORDER BY row", (start, stop))

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Rows by id, of the ids that are there."""
        known = [id for id in ids if is_id(id)]
        found: dict[str, int] = {}
        with self._reading() as connection:
            for some, marks in batches(known):
                found.update(connection.execute(f"SELECT id, row FROM documents WHERE id IN ({marks})", some))
        return found

    def field_texts(self, names: Sequence[str], start: int, stop: int) -> list[tuple[int, str]]:
        """One field of the documents of rows start .. stop - 1: row, and a JSON array that begins with its value.

        names  of the field, or of the objects that lead to it and of the field; a missing one is null

        Reads without comparing checksums, but for documents that SQLite cannot take apart.
        """
        path = json_path(names)
        if path is None:
            return [
                (record.row, value_text(record, names))
                for at in range(start, stop, _DOCUMENTS)
                for record in self.records_between(at, min(at + _DOCUMENTS, stop))
            ]
        # Two paths give an array, in which text, numbers and truth values stay apart.
        lines: list[tuple[int, str | None]] = self._lines(
            "SELECT row, CASE WHEN json_valid(fields) THEN json_extract(fields, ?, ?) END FROM documents "
            "WHERE row >= ? AND row < ? ORDER BY row",
            (path, path, start, stop),
        )
        return [
            (row, value_text(self.records([row])[0], names) if text is None else text)  # nested too deeply for SQLite
            for row, text in lines
        ]

    def _select(self, condition: str, values: Sequence[Any]) -> list[Record]:
        """Documents where `condition` holds, each checked."""
        lines = self._lines(f"SELECT row, id, fields, crc32 FROM documents WHERE {condition}", values)
        return records_of(lines, self.path)

    def _lines(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All lines of a statement that reads."""
        with self._reading() as connection:
            return connection.execute(statement, tuple(values)).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, to read `documents` with, for a moment: no transaction stays open, which a writer would feel.

        A version 1 that was opened becomes a version 2 when somebody writes; then, too, old documents must be found.
        """
        with faults_named(self.path), self._lock:
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

    def _create_view(self) -> None:
        """Put the documents as they were in the place of those that are: all statements name them `documents`."""
        columns = "row, id, fields, crc32"
        self._connection.execute(
            f"CREATE TEMP VIEW documents AS SELECT {columns} FROM main.documents WHERE row < {self.next_row} UNION ALL "
            f"SELECT {columns} FROM main.removed WHERE row < {self.next_row} AND generation > {self.generation}"
        )

    # -- checking --------------------------------------------------------------------------------

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
        for start in range(0, len(rows), _DOCUMENTS):
            some = rows[start : start + _DOCUMENTS].tolist()
            if [record.row for record in self.records_between(some[0], some[-1] + 1)] != some:
                faults.append(f"{self.path}: documents of rows {some[0]} to {some[-1] + 1} are missing, or too many")
        return faults
