"""Repair: from a damaged index a sound one, with everything that is intact. The original is only read.

found = repair("my-index", "my-index.repaired")
found.documents, found.lost                      # how many came over; what did not, and why
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from polylex.builder import IndexBuilder
from polylex.database import APPLICATION, NAME, connect_read, not_found
from polylex.documents import Record, checksum
from polylex.errors import BadInput, CorruptIndex, PolylexError
from polylex.kernels import BLOCK
from polylex.postings import Precision, Segment
from polylex.rows import Rows, open_rows
from polylex.storage import read_vocab, sha256_of, vocab_name
from polylex.tables import COLUMNS, FileEntry, digest_of
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

_LINES = 4_096  # documents read at one time
_NO_VECTOR = "no segment has its vector"

Line = tuple[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """A document that could not be recovered.

    row     int  its row
    id      str  "" where it is not known
    reason  str  what is damaged
    """

    row: int
    id: str
    reason: str


@dataclass(slots=True)
class Repaired:
    """What a repair found.

    path       Path  the new index; None where only a look was taken
    documents  int   recovered
    lost       list  documents that were not, by row
    faults     list  what is damaged, in words
    """

    path: Path | None
    documents: int = 0
    lost: list[Lost] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def repair(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    vocab: Vocab | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Repaired:
    """Write a new index of all documents whose vector, id and fields are intact; rows are numbered anew, in order.

    out          folder to write; None only looks
    vocab        the model's, for an index whose own file of names is damaged
    on_progress  called with the number of documents so far

    Raises IndexNotFound; CorruptIndex where nothing can be recovered, saying what is missing; IndexExists; StorageFull.
    """
    path = Path(path)
    if not (path / NAME).is_file():
        raise not_found(path)
    if out is not None and Path(out).resolve() == path.resolve():
        raise BadInput(f"{path} would be repaired onto itself; give another path, the original is not touched")
    found = Repaired(None if out is None else Path(out))
    wreck = _Wreck(path, found)
    try:
        if out is not None:
            _rebuild(wreck, Path(out), wreck.vocab(vocab), on_progress)
        else:
            for _ in wreck.intact():
                pass
    finally:
        wreck.close()
    found.lost.sort(key=lambda lost: lost.row)
    return found


def model_of(path: str | os.PathLike[str]) -> str:
    """The model that a damaged index was made with, "" where that cannot be read. Raises CorruptIndex."""
    wreck = _Wreck(Path(path), Repaired(None))
    try:
        return str(wreck.settings().get("model") or wreck.meta.get("encoder", ""))
    finally:
        wreck.close()


def _rebuild(wreck: _Wreck, out: Path, vocab: Vocab, on_progress: Callable[[int], None] | None) -> None:
    with IndexBuilder(
        out,
        vocab,
        encoder=wreck.meta.get("encoder", ""),
        weights_id=wreck.meta.get("weights_id", ""),
        settings=wreck.settings(),
        precision=wreck.precision(),
    ) as builder:
        try:
            if len(builder):
                builder.restart()
            for records, vectors in wreck.intact():
                builder.add([record.id for record in records], [record.fields for record in records], vectors)
                if on_progress is not None:
                    on_progress(len(builder))
            builder.finish()
        except BaseException:
            builder.discard()
            raise


class _Wreck:
    """What can be read of an index, with doubts about everything."""

    def __init__(self, path: Path, found: Repaired) -> None:
        self._path = path
        self._file = path / NAME
        self._found = found
        self._connection = self._connect()
        try:
            if self._read("SELECT 1 FROM sqlite_master WHERE name = 'chunks'"):
                raise not_found(path)
            self.meta = {str(key): str(value) for key, value in self._read("SELECT key, value FROM meta")}
            self._is_certain = self._verify()
            self._places = {line[0]: line[1:] for line in self._optional("SELECT first_row, file, sha256 FROM places")}
            lines = self._read(f"SELECT {COLUMNS} FROM segments ORDER BY first_row")
            self._entries = [FileEntry(*line) for line in lines if _is_entry(*line)]
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = connect_read(self._file)
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            ((application,),) = connection.execute("PRAGMA application_id").fetchall()
            if application == APPLICATION:
                return connection
            connection.close()
            fault: object = "its header is not that of an index"
        except sqlite3.DatabaseError as error:
            fault = error
        raise CorruptIndex(
            f"{self._file} cannot be read at all ({fault}), and only it has the ids and fields of the documents; "
            "build the index again"
        )

    def _verify(self) -> bool:
        """Whether the small tables are what they were."""
        try:
            certain = digest_of(self._connection) == self.meta.get("digest")
        except sqlite3.DatabaseError:
            certain = False
        if not certain:
            self._found.faults.append(
                f"{self._file}: its tables fail their checksum; the settings are taken as they are"
            )
        return certain

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, statement: str, values: Sequence[int] = ()) -> list[Any]:
        """All lines of a statement; what cannot be read is a fault, and no line."""
        try:
            return self._connection.execute(statement, tuple(values)).fetchall()
        except sqlite3.DatabaseError as fault:
            self._found.faults.append(f"{self._file}: {fault}")
            return []

    def _optional(self, statement: str) -> list[Any]:
        """`_read` of a table that version 1 does not have."""
        ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
        return self._read(statement) if version >= 2 else []

    def settings(self) -> dict[str, Any]:
        """What the caller stored when building; nothing where it is damaged."""
        try:
            found = json.loads(self.meta.get("settings", ""))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def precision(self) -> Precision:
        """How segments hold weights; exactly, where the settings do not say."""
        found = self.meta.get("precision", "")
        return cast(Precision, found) if found in get_args(Precision) else "f32"

    def vocab(self, given: Vocab | None) -> Vocab:
        """The names of all terms. Raises CorruptIndex where neither the index nor the caller has them."""
        fingerprint = self.meta.get("vocab", "")
        try:
            return read_vocab(self._path / vocab_name(fingerprint), fingerprint)
        except (PolylexError, OSError, ValueError) as fault:
            self._found.faults.append(str(fault))
        if given is not None and given.fingerprint == fingerprint:
            return given
        raise CorruptIndex(
            f"{self._path} has lost the names of its terms; name the model that it was made with (--model)"
        )

    # -- documents -------------------------------------------------------------------------------

    def intact(self) -> Iterator[tuple[list[Record], SparseVectors]]:
        """Documents with their vectors, some thousands at a time, in the order of rows. Notes what is lost."""
        end = 0
        for entry in self._entries:
            segment, rows, reason = self._open(entry)
            if entry.first_row < end:
                segment, reason = None, f"{entry.file} claims rows of another segment"
            self._lose(end, entry.first_row, _NO_VECTOR)
            for start in range(entry.first_row, rows.last + 1, _LINES):
                records = self._records(max(start, end), min(start + _LINES, rows.last + 1))
                if segment is None:
                    self._note(records, reason)
                elif records:
                    yield from self._match(records, segment, rows)
            end = max(end, rows.last + 1)
        ((last,),) = self._read("SELECT max(row) FROM documents") or [(None,)]
        self._lose(end, end if last is None else last + 1, _NO_VECTOR)

    def _match(
        self, records: list[Record], segment: Segment, rows: Rows
    ) -> Iterator[tuple[list[Record], SparseVectors]]:
        """These documents with their vectors."""
        documents, known = rows.find(np.array([record.row for record in records], np.int64))
        self._note([record for record, here in zip(records, known, strict=True) if not here], _NO_VECTOR)
        kept = [record for record, here in zip(records, known, strict=True) if here]
        if kept:
            self._found.documents += len(kept)
            yield kept, segment.vectors(segment.first_row + documents[known])

    def _open(self, entry: FileEntry) -> tuple[Segment | None, Rows, str]:
        """A segment if it is intact, its rows as far as known, and what is wrong with it."""
        rows = Rows(entry.first_row, max(entry.rows, 1))
        try:
            path = self._path / Path(str(entry.file)).name  # never outside of the folder
            _require(path, entry.sha256)
            segment = Segment.open(path, entry.first_row)
            faults = segment.faults()
            if faults or segment.rows != entry.rows or segment.vocab != self.meta.get("vocab"):
                raise CorruptIndex(f"{segment.path} is not what the index says ({', '.join(faults)})")
            place = self._places.get(entry.first_row)
            if place is not None:
                listing = self._path / Path(str(place[0])).name
                _require(listing, str(place[1]))
                rows = open_rows(listing, entry.first_row, entry.rows)
            if not self._is_certain:
                self._require_complete(entry, rows)
        except (PolylexError, OSError) as fault:
            self._found.faults.append(str(fault))
            return None, rows, str(fault)
        return segment, rows, ""

    def _require_complete(self, entry: FileEntry, rows: Rows) -> None:
        """Raise CorruptIndex where the rows of a segment, of which there is no checksum now, may not be these.

        Documents of rows that are not its own would get vectors of others.
        """
        deleted = self._optional(f"SELECT documents FROM deleted WHERE first_row = {entry.first_row}")
        ((count,),) = self._read(
            "SELECT count(*) FROM documents WHERE row BETWEEN ? AND ?", (rows.first, rows.last)
        ) or [(None,)]
        if count is None or count + sum(number for (number,) in deleted) != entry.rows:
            raise CorruptIndex(f"{entry.file}: which rows it holds is not certain, as the tables fail their checksum")

    def _records(self, start: int, stop: int) -> list[Record]:
        """The intact documents of rows start .. stop - 1; the others are noted as lost."""
        records = []
        for row, id, text, crc32 in self._span(start, stop):
            try:
                if checksum(id, text) != crc32:
                    raise ValueError
                records.append(Record(row, id, json.loads(text)))
            except (ValueError, AttributeError):  # no text, or no JSON
                self._found.lost.append(Lost(row, str(id), f"its line in {NAME} fails its checksum"))
        return records

    def _span(self, start: int, stop: int) -> list[Line]:
        """Lines of `documents`, around pages that cannot be read."""
        if start >= stop:
            return []
        try:
            return self._connection.execute(
                "SELECT row, id, fields, crc32 FROM documents WHERE row >= ? AND row < ? ORDER BY row", (start, stop)
            ).fetchall()
        except sqlite3.DatabaseError as fault:
            if stop - start == 1:
                self._found.lost.append(Lost(start, "", f"its line in {NAME} cannot be read ({fault})"))
                return []
            middle = (start + stop) // 2
            return self._span(start, middle) + self._span(middle, stop)

    def _lose(self, start: int, stop: int, reason: str) -> None:
        """Note the documents of these rows as lost."""
        for at in range(start, stop, _LINES):
            self._note(self._records(at, min(at + _LINES, stop)), reason)

    def _note(self, records: Sequence[Record], reason: str) -> None:
        self._found.lost += [Lost(record.row, record.id, reason) for record in records]


def _require(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise CorruptIndex(f"{path} fails its checksum")


def _is_entry(first_row: object, rows: object, *_: object) -> bool:
    """Whether a line of `segments` has numbers that one can count with."""
    return isinstance(first_row, int) and isinstance(rows, int) and 0 <= first_row < 2**62 and 0 < rows <= BLOCK
