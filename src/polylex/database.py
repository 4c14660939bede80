"""Database: the SQLite file of an index. Its schema and versions, connections to it, and what SQLite says in our words.

The tables are specified in docs/format.md; what stands in them is the business of `tables` and `documents`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from polylex.errors import CorruptIndex, IndexLocked, IndexNotFound, UnknownFormat
from polylex.storage import storage_full

Value = TypeVar("Value")

NAME = "index.sqlite"
VERSION = 2  # of the whole index; user_version in the header of the file
READABLE = (1, 2)
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
_VARIABLES = 500  # of one statement; old releases of SQLite allow 999
_PATIENCE = 10.0  # seconds for a lock that another process holds for some milliseconds
_BUSY, _READONLY, _IOERR, _FULL, _CANTOPEN = 5, 8, 10, 13, 14  # primary result codes of SQLite


def not_found(path: Path) -> IndexNotFound:
    """The error for a path without an index, with what to do next."""
    partial = path if path.suffix == ".partial" else path.with_name(path.name + ".partial")
    if (partial / NAME).exists():
        return IndexNotFound(f"no index at {path}: building it was interrupted; run the same command again to continue")
    return IndexNotFound(f"no index at {path}; make one with `polylex index`, or check the path")


# -- schema --------------------------------------------------------------------------------------


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of an index that is being built."""
    for statement in _SCHEMA:
        connection.execute(statement)


def upgrade(connection: sqlite3.Connection) -> None:
    """Make the tables that version 1 lacks."""
    for statement in _SINCE_2:
        connection.execute(statement)


def check_version(path: Path, connection: sqlite3.Connection) -> None:
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


# -- the file ------------------------------------------------------------------------------------


def require_readable(path: Path) -> None:
    """Raise as the system does where a file cannot be read; SQLite has one message for every reason.

    Opening it would do as well, but closing it again would take the locks away that SQLite holds in this process.
    """
    path.stat()
    if not os.access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def identity(path: Path) -> tuple[int, int]:
    """What tells a file from another that is put in its place."""
    found = path.stat()
    return found.st_dev, found.st_ino


def connect_write(path: Path) -> sqlite3.Connection:
    """A connection that may change the file, and makes it where it is missing."""
    return _connect(path.resolve().as_uri())


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


def _connect(uri: str) -> sqlite3.Connection:
    """A connection without implicit transactions."""
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def _recover(path: Path) -> None:
    """Let SQLite undo what a killed writer left half done. Raises CorruptIndex where nothing may be written."""
    connection = connect_write(path)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as fault:
        raise CorruptIndex(
            f"{path} was left half written by a process that was killed, and this folder does not let that be undone "
            f"({fault}); open it once where it can be written"
        ) from None
    finally:
        connection.close()


def settle(path: Path) -> None:
    """Write what lies in the write-ahead log of a catalog into the file itself, and empty the log.

    Raises IndexLocked where readers do not let that happen, CorruptIndex.
    """
    with faults_named(path):
        connection = connect_write(path)
        try:
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.close()
    if busy:
        raise IndexLocked(f"{path.parent} is being read by processes that do not pause; try again, or stop them")


# -- statements and faults -----------------------------------------------------------------------


def batches(values: Sequence[Value]) -> Iterator[tuple[Sequence[Value], str]]:
    """As many values at a time as one statement takes, with a question mark for each."""
    for start in range(0, len(values), _VARIABLES):
        some = values[start : start + _VARIABLES]
        yield some, ", ".join("?" * len(some))


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
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
