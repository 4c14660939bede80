"""Rows: documents as other programs have them, one by one, and the layouts that turn them into lines of JSON.

write_lines(Path("articles.ndjson"), stream, Bulk(), TermNames(vocab, Bulk.profile.forbids))
vectors, ids, fields = gather(read_lines(Path("articles.ndjson"), Bulk()), names)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import BadInput, BadRecord, BadVectors
from polylex.lines import Lines, unreadable
from polylex.names import TermNames
from polylex.profiles import Profile
from polylex.storage import Written, write_file
from polylex.stream import Batch, Stream
from polylex.vectors import SparseVectors

_LINE_LIMIT = 1 << 28  # bytes
_JOINED = 1 << 20  # characters written at once


@dataclass(frozen=True, slots=True)
class Row:
    """One document.

    id      str
    terms   names or ids, as the profile says
    values  its weights, as many; what the format holds, so maybe hundredths
    fields  what is stored beside
    line    where it was read: line or row from 1, 0 if it was not
    """

    id: str
    terms: Sequence[str] | Sequence[int]
    values: Sequence[float]
    fields: Mapping[str, Any]
    line: int = 0


class Layout(Protocol):
    """How documents stand in lines of JSON."""

    @property
    def profile(self) -> Profile:
        """What becomes of vectors there."""

    @property
    def frame(self) -> tuple[str, str, str]:
        """What stands before the first line, between two and behind the last."""

    def document(self, row: Row) -> Iterable[Any]:
        """The values of its lines."""

    def query(self, row: Row) -> Iterable[Any]:
        """The same for a query."""

    def rows(self, values: Iterator[tuple[int, Any]]) -> Iterator[Row]:
        """Documents again, from numbers and values of lines.

        Raises KeyError, TypeError or ValueError for values that are none.
        """


LINES = ("", "\n", "\n")  # the frame of JSON lines


# -- writing -----------------------------------------------------------------------------------------


def rows_of(batch: Batch, profile: Profile, names: TermNames | None) -> Iterator[Row]:
    """The documents of a batch, with names where there are some; weights that rounding loses are left out.

    For the precision "hundredths" values are whole numbers.
    """
    vectors = batch.vectors
    whole, kept = profile.precision == "hundredths", vectors.weights
    if whole:  # others round what they are given
        kept = profile.rounded(kept)
        vectors, kept = vectors.select(kept > 0), kept[kept > 0]
    values: Sequence[float] = np.rint(kept * 100.0).astype(np.int64).tolist() if whole else decimals(kept)
    terms: Sequence[str] | Sequence[int] = vectors.terms.tolist() if names is None else names.of(vectors.terms)
    ends = vectors.indptr.tolist()
    for row, (id, fields) in enumerate(zip(batch.ids, batch.fields, strict=True)):
        span = slice(ends[row], ends[row + 1])
        yield Row(id, terms[span], values[span], fields)


def decimals(weights: NDArray[np.float32]) -> list[float]:
    """Doubles that are written with few digits and are the very weights again when they are read as float32."""
    wide = weights.astype(np.float64)
    with np.errstate(all="ignore"):
        for digits in (9, 8, 7):
            scale = 10.0 ** (digits - 1 - np.floor(np.log10(weights.astype(np.float64))))
            short = np.rint(weights.astype(np.float64) * scale) / scale
            wide = np.where(short.astype(np.float32) == weights, short, wide)
    found: list[float] = wide.tolist()
    return found


def write_lines(
    path: Path, stream: Stream, layout: Layout, names: TermNames | None = None, *, queries: bool = False
) -> Written:
    """Write documents, or queries, as lines of JSON: whole, or not at all. Raises StorageFull."""
    form = layout.query if queries else layout.document
    lines = (_dump(value) for batch in stream for row in rows_of(batch, layout.profile, names) for value in form(row))
    return write_file(path.parent, lambda _: path.name, _framed(lines, LINES if queries else layout.frame))


def _dump(value: Any) -> str:  # noqa: ANN401 - a JSON value
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _framed(lines: Iterable[str], frame: tuple[str, str, str]) -> Iterator[bytes]:
    """Lines as large pieces of UTF-8."""
    head, between, tail = frame
    held, size, first = [head], 0, True
    for line in lines:
        held.append(line if first else between + line)
        size, first = size + len(line), False
        if size > _JOINED:
            yield "".join(held).encode("utf-8", "surrogatepass")
            held, size = [], 0
    yield "".join([*held, "" if first and not head else tail]).encode("utf-8", "surrogatepass")


# -- reading -----------------------------------------------------------------------------------------


def read_lines(path: Path, layout: Layout) -> Iterator[Row]:
    """The documents of a file of `write_lines`, or of another program. Raises BadRecord (file:line)."""
    last = 0

    def numbered() -> Iterator[tuple[int, Any]]:
        nonlocal last
        for number, value in _values(path, layout.frame):
            last = number
            yield number, value

    try:
        yield from layout.rows(numbered())
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        reason = f"no document of {layout.profile.name} ({type(fault).__name__}: {fault}); was it written by its tools?"
        raise BadRecord(str(path), last, reason) from None


def _values(path: Path, frame: tuple[str, str, str]) -> Iterator[tuple[int, Any]]:
    """Number and JSON value of each line."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    head, between, tail = (part.strip() for part in frame)
    try:
        with open_bytes(path) as stream:
            lines = Lines(stream, str(path), _LINE_LIMIT)
            for text in lines:
                line = text.strip()
                if line and line not in (head, tail):
                    yield lines.number, json.loads(line.removesuffix(between) if between else line)
    except json.JSONDecodeError as fault:
        raise BadRecord(str(path), lines.number, f"unreadable JSON: {fault}") from None
    except RecursionError:
        raise BadRecord(str(path), lines.number, "unreadable JSON: nested too deeply") from None
    except READ_ERRORS as fault:
        raise BadRecord(str(path), 0, unreadable(fault)) from fault


def gather(
    rows: Iterable[Row], id_of: Callable[[Any], int], vocab: str, *, divisor: int = 1, source: str = ""
) -> tuple[SparseVectors, list[str], list[Mapping[str, Any]]]:
    """Vectors, ids and fields of rows, all in memory.

    id_of    the term id of what a row calls a term
    divisor  what values are divided by: 100 for hundredths
    source   what errors call the file

    Raises BadRecord for a term that is unknown or there twice, for a value that is no finite number > 0, and for an id
    that is used twice.
    """
    ids: dict[str, None] = {}
    fields: list[Mapping[str, Any]] = []
    parts: list[tuple[NDArray[np.uint32], NDArray[np.float32]]] = []
    for row in rows:
        try:
            parts.append(_pair(row, id_of, divisor))
        except (BadVectors, TypeError, ValueError, OverflowError) as fault:
            raise BadRecord(source, row.line, f"document {row.id!r:.80}: {fault}") from None
        if row.id in ids or not isinstance(row.id, str):
            raise BadRecord(
                source, row.line, f"id {row.id!r:.80} is used twice or no text; every document needs its own"
            )
        ids[row.id] = None
        fields.append(row.fields)
    return SparseVectors.from_rows(parts, vocab), list(ids), fields


def _pair(row: Row, id_of: Callable[[Any], int], divisor: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Terms and weights of a row, sorted. Raises BadVectors, TypeError, ValueError or OverflowError."""
    if len(row.terms) != len(row.values):
        raise BadVectors(f"{len(row.values)} weights for {len(row.terms)} terms")
    terms = np.array([id_of(term) for term in row.terms], np.int64)
    values = np.array(row.values, np.float64)
    if values.ndim != 1:
        raise BadVectors(f"weights must be numbers, got {row.values!r:.80}")
    weights = (values / divisor).astype(np.float32)
    order = np.argsort(terms, kind="stable")
    if len(terms) and not 0 <= terms[order[0]] <= terms[order[-1]] < 1 << 32:
        raise BadVectors(f"term ids must lie in [0, 2**32), got {terms.min()}..{terms.max()}")
    one = SparseVectors(np.array([0, len(terms)]), terms[order].astype(np.uint32), weights[order], "")
    return one.terms, one.weights
