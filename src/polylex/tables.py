"""Tables: what a catalog says besides its documents. Settings, the files that count, and what is deleted in them.

They are small, read whole on opening, and have one checksum together. Their layout is in docs/format.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.errors import CorruptIndex
from polylex.storage import Written
from polylex.vectors import SparseVectors

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_NEEDED = ("vocab", "vocab_bytes", "vocab_sha256", "encoder", "weights_id", "settings", "precision", "created")
_ROWS = 65_536  # of one file


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

    @classmethod
    def of(cls, first_row: int, vectors: SparseVectors, written: Written) -> FileEntry:
        """The file into which these vectors were written."""
        return cls(first_row, len(vectors), vectors.nnz, written.name, written.bytes, written.sha256)


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


# -- reading -------------------------------------------------------------------------------------


def read_entries(connection: sqlite3.Connection, table: str) -> list[FileEntry]:
    """The files of `table`, "segments" or "chunks", by row."""
    return [FileEntry(*line) for line in connection.execute(f"SELECT {COLUMNS} FROM {table} ORDER BY first_row")]


def read_places(connection: sqlite3.Connection) -> dict[int, Written]:
    """The files that list the rows of segments with gaps, by first row."""
    return {first_row: Written(*line) for first_row, *line in connection.execute("SELECT * FROM places")}


def read_deleted(path: Path, connection: sqlite3.Connection, known: Mapping[int, Deleted]) -> dict[int, Deleted]:
    """What is deleted, by first row of the segment; what is `known` already is not read again. Raises CorruptIndex."""
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


def end_of(entries: Sequence[FileEntry]) -> int:
    """The row after those of these files, which leave no gap."""
    return max((entry.first_row + entry.rows for entry in entries), default=0)


def number_in(meta: Mapping[str, str], key: str, default: int) -> int:
    """A number in `meta`; the default where there is none, which is damage if the checksum says so."""
    text = str(meta.get(key, default))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default


# -- checksum ------------------------------------------------------------------------------------


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


def write_digest(connection: sqlite3.Connection) -> None:
    """Store what `digest_of` says now."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('digest', ?)", (digest_of(connection),))


# -- what no writer of ours would say, checksum or not -------------------------------------------


def misfit_of_files(files: Sequence[FileEntry], places: Mapping[int, Written]) -> str:
    """What is wrong with the names and sizes of files, in words; else ""."""
    for entry in files:
        numbers = (entry.first_row, entry.postings, entry.bytes)
        if not (_is_count(entry.rows, _ROWS) and entry.rows and all(map(_is_count, numbers)) and _is_file(entry)):
            return f"the file of row {entry.first_row!r} cannot be what it says"
    for first_row, written in places.items():
        if not (_is_count(first_row) and _is_count(written.bytes) and _is_file(written)):
            return f"the rows of row {first_row!r} cannot be what it says"
    return ""


def misfit_of_deleted(segments: Sequence[FileEntry], deleted: Mapping[int, Deleted]) -> str:
    """What is wrong with the counts of deleted documents, in words; else ""."""
    sizes = {entry.first_row: entry.rows for entry in segments}
    for first_row, gone in deleted.items():
        if not _is_count(gone.documents, sizes.get(first_row, -1)):
            return f"the deletions of row {first_row!r} are more than its segment holds"
    return ""


def misfit_of_meta(meta: Mapping[str, object]) -> str:
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


def _is_count(value: object, most: int = 1 << 48) -> bool:
    """Whether SQLite, which lets any type stand in any column, gave a number of rows or bytes."""
    return isinstance(value, int) and 0 <= value <= most


def _is_file(entry: FileEntry | Written) -> bool:
    """Whether this names a file of the index folder."""
    name = entry.file if isinstance(entry, FileEntry) else entry.name
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None and isinstance(entry.sha256, str)
