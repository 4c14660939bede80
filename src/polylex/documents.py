"""Documents: what an index stores beside vectors. Each is a line of the catalog: row, id, JSON of its fields, CRC-32.

lines = lines_of(0, ["a", "b"], [{"text": "one"}, {"text": "two"}])
records_of(lines, path)[1].fields["text"]          # "two"
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylex.errors import BadInput, CorruptIndex, DuplicateId

Line = tuple[int, str, str, int]

# Names that JSON writes as they are, whatever escapes it uses; SQLite compares what is written.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_ -]+")


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


# -- to lines ------------------------------------------------------------------------------------


def require_one_each(ids: Sized, fields: Sized, vectors: Sized) -> None:
    """Raise BadInput unless there are as many of each."""
    if not len(ids) == len(fields) == len(vectors):
        raise BadInput(f"{len(ids)} ids, {len(fields)} fields and {len(vectors)} vectors; give one of each a document")


def lines_of(first_row: int, ids: Sequence[str], fields: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Documents of rows from `first_row` as lines.

    Raises BadInput for an id or fields that cannot be stored, DuplicateId for one that is here twice.
    """
    _check_ids(ids)
    return [
        (row, id, text, checksum(id, text))
        for row, (id, text) in enumerate(zip(ids, map(_encode, ids, fields), strict=True), first_row)
    ]


def checksum(id: str, text: str) -> int:
    """CRC-32 of a document, of which `text` is the JSON of its fields."""
    return zlib.crc32(text.encode("utf-8"), zlib.crc32(id.encode("utf-8") + b"\0"))


def is_id(id: str) -> bool:
    """Whether this can be stored as an id: text of at least one character, all of them in UTF-8, none NUL."""
    return isinstance(id, str) and bool(id) and "\0" not in id and _is_utf8(id)


def _check_ids(ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for id in ids:
        if not is_id(id):
            raise BadInput(
                f"document id {id!r}: an id is text of at least one character, without NUL or lone surrogates"
            )
        if id in seen:
            raise DuplicateId(f"two documents have the id {id!r}; every document needs its own")
        seen.add(id)


def _is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encode(id: str, fields: Mapping[str, Any]) -> str:
    """The JSON text of a document's fields."""
    try:
        text = json.dumps(dict(fields), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if not _is_utf8(text):
            text = json.dumps(dict(fields), allow_nan=False, separators=(",", ":"))  # escapes them
    except (TypeError, ValueError, RecursionError) as fault:
        raise BadInput(f"document {id!r}: its fields cannot be stored as a JSON object ({fault})") from None
    return text


# -- from lines ----------------------------------------------------------------------------------


def records_of(lines: Sequence[Line], path: Path) -> list[Record]:
    """The documents of some lines of the catalog at `path`. Raises CorruptIndex where one fails its checksum."""
    for row, id, text, crc32 in lines:
        if not (isinstance(id, str) and isinstance(text, str)) or crc32 != checksum(id, text):
            raise CorruptIndex(f"{path} is damaged: row {row} fails its checksum; restore the index from a copy")
    return [Record(row, id, json.loads(text)) for row, id, text, _ in lines]


def json_path(names: Sequence[str]) -> str | None:
    """Where SQLite finds the field to which these names lead; None where it might take it for another, or for none."""
    if not all(map(_PLAIN_NAME.fullmatch, names)):
        return None
    return "$" + "".join(f'."{name}"' for name in names)


def value_text(record: Record, names: Sequence[str]) -> str:
    """A JSON array of the field to which these names lead; of null where there is none."""
    value: Any = record.fields
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return json.dumps([value])
