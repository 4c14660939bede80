"""Ids of documents: read or made, checked, and used once."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, BadRecord, DuplicateRecord
from polylex.files import File
from polylex.records import JSON, Record, brief, names_of

ID_FIELDS = ("_id", "id", "docid", "doc_id")
MAX_ID_BYTES = 512
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def document_id(fields: Mapping[str, JSON], id_field: str | None = None) -> str:
    """The id in these fields: that of `id_field`, else of the first of _id, id, docid, doc_id.

    Numbers become strings. Raises BadInput where there is none, where it is blank, longer than 512 bytes of UTF-8 or
    no string, or where it has a control character.
    """
    name = id_name(fields, id_field)
    if name is None:
        wanted = " or ".join(ID_FIELDS) if id_field is None else repr(id_field)
        raise BadInput(f"no id: expected the field {wanted}, got {names_of(fields)}")
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"the id in {name!r} must be a string or a number, got {brief(value)}")
    return _usable(str(value))


def id_name(fields: Mapping[str, JSON], id_field: str | None) -> str | None:
    """The field that holds the id, None where there is none."""
    return next((name for name in (ID_FIELDS if id_field is None else (id_field,)) if name in fields), None)


def _usable(identifier: str) -> str:
    if not identifier.strip():
        raise BadInput("empty id; every document needs one")
    size = len(identifier.encode("utf-8", "surrogatepass"))
    if size > MAX_ID_BYTES:
        raise BadInput(f"id {brief(identifier)} has {size:,} bytes, at most {MAX_ID_BYTES} are allowed")
    if _CONTROL.search(identifier):
        raise BadInput(f"id {brief(identifier)} has a control character; ids stand in lines and tables")
    return identifier


class Ids:
    """Gives every record of a collection its id.

    id_field  None takes the usual ones; where the first record has none of them, the ids of all are made from the
              file's label and the line
    """

    def __init__(self, id_field: str | None = None) -> None:
        self._id_field = id_field
        self._made: bool | None = None if id_field is None else False  # None: the first record decides
        self._seen = Seen()
        self._sources: list[str] = []

    def give(self, record: Record, file: File) -> str:
        """The id of this record.

        Raises BadInput where it has none that can be used, DuplicateRecord where it was used before, and, whatever
        is done about faulty records, BadCollection where the first record had no id and this one has.
        """
        name = id_name(record.fields, self._id_field)
        if self._made is None:
            self._made = name is None
        if not self._made:
            identifier = document_id(record.fields, self._id_field)
        elif name is None:
            identifier = _usable(f"{file.label}:{record.line}")
        else:
            raise MixedIds(
                f"{file.name}:{record.line} has the id field {name!r}, but the first record of this collection has no "
                "id; give every record one, or name the id field so that those without are refused"
            )
        self._check_new(identifier, record, file)
        return identifier

    def _check_new(self, identifier: str, record: Record, file: File) -> None:
        if not self._sources or self._sources[-1] != file.name:
            self._sources.append(file.name)
        place = (len(self._sources) - 1 << 40) | record.line
        earlier = self._seen.add(hash(identifier) & 0xFFFF_FFFF_FFFF_FFFF, place)
        if earlier is not None:
            taken = BadRecord(self._sources[earlier >> 40], earlier & ((1 << 40) - 1), "").args[0].rstrip(": ")
            raise DuplicateRecord(
                file.name, record.line, f"id {identifier!r} is taken by {taken}; every document needs its own"
            )
