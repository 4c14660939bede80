"""Records of one file: JSON lines, tables (TSV, CSV, Parquet) and plain text, read one at a time.

Every reader yields a Record, or the BadRecord that stands in its place: reading goes on after a fault, and the
caller decides whether to. Nothing longer than the given limit is ever held in memory.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, TypeAlias

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import BadInput, BadRecord, MissingExtra, RecordTooLong
from polylex.files import File
from polylex.lines import Lines, decode, unreadable
from polylex.text import REPLACEMENT

if TYPE_CHECKING:
    import pyarrow

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it came.

    fields  its values by name; lone surrogates, which no store can hold, are U+FFFD
    line    1-based line on which it starts, or row of a Parquet file; 0 where it is the whole file
    """

    fields: Mapping[str, JSON]
    line: int


Parsed: TypeAlias = Record | BadRecord


def read_records(file: File, columns: Collection[str], limit: int) -> Iterator[Parsed]:
    """Records of one file, with a BadRecord where one cannot be used.

    columns  lower-case names that make the first line of a TSV file a header, where one of them is in it
    limit    bytes that a line, or a file of format "text", may have
    """
    try:
        if file.format == "parquet":
            yield from _parquet(file)
            return
        with open_bytes(file.path) as stream:
            if file.format == "text":
                yield _whole(stream, file, limit)
                return
            lines = Lines(stream, file.name, limit)
            if file.format == "jsonl":
                yield from _jsonl(lines)
            elif file.format == "lines":
                yield from _plain_lines(lines)
            elif file.format == "csv":
                yield from _table(file.name, _csv_rows(lines, limit), None)
            else:
                yield from _table(file.name, _tsv_rows(lines), columns)
    except READ_ERRORS as error:
        yield BadRecord(file.name, 0, unreadable(error))


# -- text ---------------------------------------------------------------------------------------------


def _plain_lines(lines: Lines) -> Iterator[Parsed]:
    for text in lines.surviving():
        if isinstance(text, BadRecord):
            yield text
        elif text.strip():
            yield Record({"text": text.rstrip("\r\n")}, lines.number)


def _whole(stream: BufferedIOBase, file: File, limit: int) -> Parsed:
    """A text file as one record; its id is its label."""
    raw = stream.read(limit + 1)
    if len(raw) > limit:
        return RecordTooLong(file.name, 0, f"file of more than {limit:,} bytes; split it, or read it as format 'lines'")
    try:
        text = decode(raw, file.name, 0)
    except BadRecord as fault:
        return fault
    return Record({"id": file.label, "text": text.replace("\r\n", "\n")}, 0)


# -- JSON lines --------------------------------------------------------------------------------------


class _NotFinite(ValueError):
    """A JSON number that is no number: NaN, Infinity or 1e999."""


def _refuse_constant(name: str) -> float:
    raise _NotFinite(f"{name} is not JSON; write null or leave the field out")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotFinite(f"the number {digits:.40} is too large for a double")
    return value


# Not strict: a raw tab or form feed inside a string is a sloppy writer's habit, not a reason to lose a document.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, strict=False)


def _jsonl(lines: Lines) -> Iterator[Parsed]:
    for text in lines.surviving():
        if isinstance(text, BadRecord):
            yield text
        elif text.strip():
            yield _json_record(text, lines.source, lines.number)


def _json_record(text: str, source: str, line: int) -> Parsed:
    try:
        value = _DECODER.decode(text)
        if _SURROGATE_ESCAPE.search(text):
            value = storable(value)
    except json.JSONDecodeError as error:
        return BadRecord(
            source,
            line,
            f"unreadable JSON at column {error.pos + 1}: {error.msg}, near {_excerpt(text, error.pos)}; "
            "expected one object a line",
        )
    except RecursionError:
        return BadRecord(source, line, "unreadable JSON: nested too deeply; expected one flat object a line")
    except ValueError as error:  # _NotFinite, or an integer of thousands of digits
        return BadRecord(source, line, f"unreadable JSON: {error}")
    if not isinstance(value, dict):
        reason = f'got {brief(value)}, expected one object a line, such as {{"id": "1", "text": "..."}}'
        return BadRecord(source, line, reason)
    return Record(value, line)


def _excerpt(text: str, at: int) -> str:
    text = text.rstrip()
    start, end = max(0, at - 20), at + 20
    return ("…" if start else "") + repr(text[start:end]) + ("…" if end < len(text) else "")


def storable(value: Any) -> Any:  # noqa: ANN401 (JSON in, JSON of the same shape out)
    """`value` as JSON that any file can hold: lone surrogates are replaced, one for one.

    Raises BadInput for what is not JSON: NaN and infinities, keys that are no strings, bytes, dates, ...
    """
    if isinstance(value, str):
        return _SURROGATE.sub(REPLACEMENT, value)
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {storable(key): storable(item) for key, item in value.items()}
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise BadInput(f"{brief(value)} is not JSON, so no index can hold it; turn it into a string, or leave it out")


def brief(value: object) -> str:
    """A value and its type for an error message, cut short."""
    name = {dict: "object", list: "array", type(None): "null"}.get(type(value), type(value).__name__)
    shown = "" if value is None else f" {ascii(value) if _is_broken(value) else repr(value)}"
    return name + (shown if len(shown) <= 60 else shown[:60] + "…")


def _is_broken(value: object) -> bool:
    return isinstance(value, str) and _SURROGATE.search(value) is not None


def names_of(fields: Mapping[str, JSON]) -> str:
    """The names of a record's fields for an error message, cut short."""
    shown = ", ".join(f"{name:.40}" for name in list(fields)[:10])
    return (shown or "no field") + (", …" if len(fields) > 10 else "")


# -- tables ------------------------------------------------------------------------------------------

Row: TypeAlias = tuple[int, list[str]]


def _tsv_rows(lines: Lines) -> Iterator[Row | BadRecord]:
    """Cells between tabs; a quote is a character like any other, as in MS MARCO and TREC files."""
    for text in lines.surviving():
        if isinstance(text, BadRecord):
            yield text
        elif text.strip(" \r\n"):
            yield lines.number, text.rstrip("\r\n").split("\t")


def _csv_rows(lines: Lines, limit: int) -> Iterator[Row | BadRecord]:
    """Cells of RFC 4180: quoted ones may hold commas, doubled quotes and line ends."""
    csv.field_size_limit(max(limit, csv.field_size_limit()))  # of the process; its default is 131,072 characters
    reader = csv.reader(lines, strict=True)
    while True:
        start = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRecord(lines.source, start, f"unreadable CSV: {error}; is a quote missing, or not doubled?")
        except BadRecord as fault:
            yield fault
        else:
            if row:
                yield start, row


def _table(source: str, rows: Iterator[Row | BadRecord], columns: Collection[str] | None) -> Iterator[Parsed]:
    """Records named by the header. Without `columns`, there is one; else only if its first row holds one of them.

    A table without a header has the columns id and text.
    """
    header: list[str] | None = None
    for row in rows:
        if isinstance(row, BadRecord):
            yield row
            continue
        line, cells = row
        if header is None:
            is_header = columns is None or not {cell.strip().lower() for cell in cells}.isdisjoint(columns)
            header = [cell.strip() for cell in cells] if is_header else ["id", "text"]
            if is_header and len(set(header)) < len(header):
                yield BadRecord(source, line, f"a column name stands twice in the header {header}; rename one")
                return
            if is_header:
                continue
        if len(cells) == len(header):
            yield Record(dict(zip(header, cells, strict=True)), line)
        else:
            yield BadRecord(source, line, f"{len(cells)} columns, expected {len(header)}: {', '.join(header)}")


# -- Parquet -----------------------------------------------------------------------------------------


_NO_VALUE = (ValueError, OverflowError)  # what Arrow raises for a value that Python cannot have


def _parquet(file: File) -> Iterator[Parsed]:
    """Rows of a Parquet file, without its binary columns: bytes are neither text nor JSON."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", "Reading Parquet files") from None
    row = 0
    try:
        with parquet.ParquetFile(file.path) as table:
            names = [field.name for field in table.schema_arrow if not _has_bytes(field.type)]
            for batch in table.iter_batches(batch_size=256, columns=names):
                for fields in _batch_rows(batch):
                    row += 1
                    if isinstance(fields, Exception):
                        yield BadRecord(file.name, row, f"a value of this row cannot be read: {fields}")
                    else:
                        yield Record(fields, row)
    except (pyarrow.ArrowException, *_NO_VALUE, *READ_ERRORS) as error:
        yield BadRecord(file.name, row, unreadable(error))


def _has_bytes(kind: pyarrow.DataType) -> bool:
    nested = (kind.field(index).type for index in range(kind.num_fields))
    return "binary" in str(kind).split("<")[0].split("[")[0] or any(_has_bytes(inner) for inner in nested)


def _batch_rows(batch: pyarrow.RecordBatch) -> Iterable[dict[str, JSON] | Exception]:
    """Rows of a batch as JSON; the error for one with a string that is not UTF-8 or a date that no calendar has."""
    try:
        rows = batch.to_pylist()
    except _NO_VALUE as error:
        if batch.num_rows == 1:
            return [error]
        singles = (batch.slice(index, 1) for index in range(batch.num_rows))
        return (row for single in singles for row in _batch_rows(single))
    return (_json_of(row) for row in rows)


def _json_of(value: Any) -> Any:  # noqa: ANN401 (whatever Arrow has)
    """An Arrow value as JSON: not-a-number as null; dates, times and decimals as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_json_of(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_of(item) for key, item in value.items()}
    return str(value)
