"""Columns: the fields of an index's documents, as filters and facets look at them. Read when first asked for, and kept.

    columns = Columns(catalog, [Rows(0, 65_536), Rows(65_536, 20_000)])
    allowed = columns.matching("lang = 'de' and year >= 2020")       # a bitmap a segment, for SegmentTable.top
    columns.counts(parse_field("lang"), allowed)                     # [("de", 812)]

A column of one segment is a 16-bit code a document and the distinct values. A test is made once for each of them, so
that a filter over fields that were read before takes milliseconds for a million documents.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from polylex.catalog import Catalog
from polylex.documents import Record
from polylex.errors import CorruptIndex
from polylex.filters import Field, Test, combine, parse
from polylex.kernels import Allowed
from polylex.rows import Rows

# A value and how many documents have it.
Counts: TypeAlias = "list[tuple[str | int | float | bool, int]]"

_COLUMN_BYTES = 256 << 20  # kept of columns; those that were used longest ago are forgotten
_BITMAP_BYTES = 32 << 20  # kept of filters: 256 filters over a million documents
_OVERHEAD = 500  # bytes of an entry besides its content

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One field of the documents of one segment.

    codes    uint16 [rows]  places in `values`, of each document of the segment
    values   list           distinct JSON values, None where the field is missing
    present  bool [rows]    which rows have a document; None: all
    bytes    int            of memory, about
    """

    codes: NDArray[np.uint16]
    values: list[Any]
    present: NDArray[np.bool_] | None
    bytes: int

    def truth(self, test: Test) -> NDArray[np.bool_]:
        """Which rows pass; what it says of rows without a document means nothing."""
        passes = np.fromiter(map(test.accepts, self.values), bool, len(self.values))
        return passes[self.codes]


class Columns:
    """The columns of one state of an index, from any number of threads."""

    def __init__(self, catalog: Catalog, segments: Sequence[Rows]) -> None:
        """Take the catalog, and the rows of each segment."""
        self._catalog = catalog
        self._segments = tuple(segments)
        self._columns: _Cache[Column] = _Cache(_COLUMN_BYTES)
        self._bitmaps: _Cache[list[NDArray[np.uint8]]] = _Cache(_BITMAP_BYTES)

    def matching(self, where: str) -> list[NDArray[np.uint8]]:
        """The documents of which a filter is true: per segment uint8 [ceil(rows / 8)], one bit each, lowest first.

        Raises BadFilter, CorruptIndex.
        """
        found = self._bitmaps.get(where)
        if found is None:
            found = self._match(where)
            self._bitmaps.put(where, found, 4 * len(where) + sum(bits.nbytes for bits in found))
        return found

    def _match(self, where: str) -> list[NDArray[np.uint8]]:
        expression = parse(where)
        bitmaps = []
        for segment in range(len(self._segments)):
            used: dict[Field, Column] = {}

            def truth(test: Test, segment: int = segment, used: dict[Field, Column] = used) -> NDArray[np.bool_]:
                column = used.get(test.field) or self._column(test.field, segment)
                used[test.field] = column
                return column.truth(test)

            matches = combine(expression, truth)
            present = next(iter(used.values())).present
            if present is not None:
                matches = matches & present
            bitmaps.append(np.packbits(matches, bitorder="little"))
        return bitmaps

    def counts(self, field: Field, allowed: Allowed | None = None) -> Counts:
        """How many documents have each value of a field, most frequent first, then in the order of the values.

        Elements of a list count one by one, each once a document. Null, missing fields and objects do not count.
        """
        counter: Counter[tuple[int, Any]] = Counter()
        for segment, rows in enumerate(self._segments):
            column = self._column(field, segment)
            bits = None if allowed is None else allowed[segment]
            mask = np.ones(rows.count, bool) if column.present is None else column.present
            if bits is not None:
                mask = mask & np.unpackbits(bits, count=rows.count, bitorder="little").view(bool)
            numbers = np.bincount(column.codes[mask], minlength=len(column.values)).tolist()
            for value, number in zip(column.values, numbers, strict=True):
                if number:
                    for key in _keys(value):
                        counter[key] += number
        return _ranked(counter)

    def _column(self, field: Field, segment: int) -> Column:
        column = self._columns.get((field, segment))
        if column is None:
            column = self._read(field, self._segments[segment])
            if column.bytes <= _COLUMN_BYTES // 16:  # or one column of long texts would push out all others
                self._columns.put((field, segment), column, column.bytes)
        return column

    def _read(self, field: Field, rows: Rows) -> Column:
        if field.is_id:
            lines, decode = self._catalog.ids_between(rows.first, rows.last + 1), _as_it_is
        else:
            lines, decode = self._catalog.field_texts(field.names, rows.first, rows.last + 1), _first
        places: dict[str, int] = {}
        found = np.fromiter((places.setdefault(text, len(places)) for _, text in lines), np.int64, len(lines))
        try:
            values = [decode(text) for text in places]
        except (ValueError, LookupError, TypeError) as fault:
            raise CorruptIndex(f"{self._catalog.path} is damaged ({fault}); restore the index from a copy") from None
        size = sum(map(len, places)) + 64 * len(values) + 3 * rows.count
        if len(lines) == rows.count:
            return Column(found.astype(np.uint16), values, None, size)
        documents, known = rows.find(np.array([row for row, _ in lines], np.int64))
        codes, present = np.zeros(rows.count, np.uint16), np.zeros(rows.count, bool)
        codes[documents[known]], present[documents[known]] = found[known], True
        return Column(codes, values or [None], present, size)


def counts_of(field: Field, records: Iterable[Record]) -> Counts:
    """What `Columns.counts` counts, of documents at hand."""
    counter: Counter[tuple[int, Any]] = Counter()
    for record in records:
        counter.update(_keys(record.id if field.is_id else field.of(record.fields)))
    return _ranked(counter)


def merged(parts: Iterable[Counts]) -> Counts:
    """The counts of several indexes together."""
    counter: Counter[tuple[int, Any]] = Counter()
    for value, count in chain.from_iterable(parts):
        counter[_kind(value), value] += count
    return _ranked(counter)


def _keys(value: Any) -> set[tuple[int, Any]]:  # noqa: ANN401 - a JSON value
    """What is counted of a value: kind and value, which sort in the order of the values. Equal values have one key."""
    elements = value if isinstance(value, list) else [value]
    return {(_kind(each), each) for each in elements if isinstance(each, str | int | float)}


def _kind(value: str | int | float | bool) -> int:
    """Truth values, numbers, texts."""
    return 0 if isinstance(value, bool) else 2 if isinstance(value, str) else 1


def _ranked(counter: Counter[tuple[int, Any]]) -> Counts:
    order = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return [(value, count) for (_, value), count in order]


def _first(text: str) -> Any:  # noqa: ANN401 - a JSON value
    return json.loads(text)[0]


def _as_it_is(text: str) -> Any:  # noqa: ANN401 - a JSON value
    return text


class _Cache(Generic[Kept]):
    """Keeps what was used last, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Kept | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Kept, size: int) -> None:
        with self._lock:
            _, old = self._kept.pop(key, (None, 0))
            self._kept[key] = value, size + _OVERHEAD
            self._bytes += size + _OVERHEAD - old
            while self._bytes > self._limit and len(self._kept) > 1:
                _, (_, forgotten) = self._kept.popitem(last=False)
                self._bytes -= forgotten
