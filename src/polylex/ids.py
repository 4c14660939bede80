"""Ids of documents: read or made, checked, and used once."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, BadRecord, DuplicateRecord
from polylex.files import File
from polylex.records import JSON, Record, brief, names_of

ID_FIELDS = ("_id", "id", "docid", "doc_id")
MAX_ID_BYTES = 512
_LINE_BITS = 40  # of a place: the line; the bits above count the sources
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def document_id(fields: Mapping[str, JSON], names: Sequence[str] = ID_FIELDS) -> str:
    """The id in these fields: that of the first of `names` that is there.

    Numbers become strings. Raises BadInput where there is none, where it is blank, longer than 512 bytes of UTF-8 or
    no string, or where it has a control character.
    """
    name = _first(fields, names)
    if name is None:
        raise BadInput(f"no id: expected the field {' or '.join(names)}, got {names_of(fields)}")
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"the id in {name!r} must be a string or a number, got {brief(value)}")
    return _usable(str(value))


def _first(fields: Mapping[str, JSON], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in fields), None)


def _usable(identifier: str) -> str:
    if not identifier.strip():
        raise BadInput("empty id; every document needs one")
    size = len(identifier.encode("utf-8", "surrogatepass"))
    if size > MAX_ID_BYTES:
        raise BadInput(f"id {brief(identifier)} has {size:,} bytes, at most {MAX_ID_BYTES} are allowed")
    if _UNPRINTABLE.search(identifier):
        raise BadInput(f"id {brief(identifier)} has a control character or half a character; ids stand in tables")
    return identifier


class Ids:
    """Gives every record of a collection its id.

    names     fields that may hold it, best first
    required  False: where the first record has none of them, the ids of all are made from the file's label and the line
    """

    def __init__(self, names: Sequence[str] = ID_FIELDS, *, required: bool = False) -> None:
        self._names = names
        self._made: bool | None = False if required else None  # None: the first record decides
        self._seen = Seen()
        self._sources: list[str] = []

    def give(self, record: Record, file: File) -> str:
        """The id of this record.

        Raises BadRecord where it has none that can be used, DuplicateRecord where it was used before, and a plain
        BadInput, which ends the reading, where the first record had no id and this one has.
        """
        name = _first(record.fields, self._names)
        if self._made is None:
            self._made = name is None
        if self._made and name is not None:
            raise BadInput(
                f"{_where(file.name, record.line)} has the id field {name!r}, but the first record has no id; give "
                "every record one, or name the id field so that those without are refused"
            )
        try:
            made = f"{file.label}:{record.line}"
            identifier = _usable(made) if self._made else document_id(record.fields, self._names)
        except BadInput as fault:
            raise BadRecord(file.name, record.line, str(fault)) from None
        self._check_new(identifier, record, file)
        return identifier

    def _check_new(self, identifier: str, record: Record, file: File) -> None:
        if not self._sources or self._sources[-1] != file.name:
            self._sources.append(file.name)
        here = (len(self._sources) - 1) << _LINE_BITS | record.line
        earlier = self._seen.add(hash(identifier) & 0xFFFF_FFFF_FFFF_FFFF, here)
        if earlier is not None:
            taken = _where(self._sources[earlier >> _LINE_BITS], earlier & ((1 << _LINE_BITS) - 1))
            raise DuplicateRecord(
                file.name, record.line, f"id {identifier!r} is taken by {taken}; every document needs its own"
            )


def _where(source: str, line: int) -> str:
    return f"{source}:{line}" if line else source


class Seen:
    """Which keys were seen, and where: 16 bytes a key, where a dict takes 110.

    New keys are gathered in a dict, then merged into sorted runs of doubling length. Keys are 64-bit hashes of ids:
    two different ids of 10 million have equal ones, and the second is refused, once in 370,000 collections.
    """

    def __init__(self, batch: int = 1 << 16) -> None:
        self._batch = batch
        self._new: dict[int, int] = {}
        self._runs: list[tuple[array[int], array[int]]] = []

    def add(self, key: int, place: int) -> int | None:
        """Remember that `key` is at `place`, both in [0, 2**64); its earlier place if it was seen before."""
        earlier = self._new.get(key)
        if earlier is not None:
            return earlier
        for keys, places in self._runs:
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                return places[at]
        self._new[key] = place
        if len(self._new) == self._batch:
            self._merge()
        return None

    def _merge(self) -> None:
        keys, places = array("Q", self._new.keys()), array("Q", self._new.values())
        self._new = {}
        while self._runs and len(self._runs[-1][0]) <= len(keys):
            older_keys, older_places = self._runs.pop()
            keys, places = older_keys + keys, older_places + places
        order = np.argsort(np.frombuffer(keys, np.uint64))
        self._runs.append((_reordered(keys, order), _reordered(places, order)))


def _reordered(values: array[int], order: NDArray[np.intp]) -> array[int]:
    return array("Q", np.frombuffer(values, np.uint64)[order].tobytes())
