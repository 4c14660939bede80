"""Records of one file: JSON lines, tables (TSV, CSV, Parquet) and plain text, read one at a time.

Every reader yields a Record, or the BadRecord that stands in its place: reading goes on after a fault, and the
caller decides whether to. Nothing longer than the given limit is ever held in memory.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, Union

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import BadRecord, MissingExtra
from polylex.lines import Lines, decode, unreadable
from polylex.text import REPLACEMENT

if TYPE_CHECKING:
    import pyarrow

JSON: TypeAlias = Union[str, int, float, bool, None, list["JSON"], dict[str, "JSON"]]
Format = Literal["jsonl", "tsv", "csv", "parquet", "text", "lines"]

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it came.

    fields  its values by name; lone surrogates and NULs, which no store can hold, are U+FFFD
    line    1-based line on which it starts, or row of a Parquet file; 0 where it is the whole file
    """

    fields: Mapping[str, JSON]
    line: int


Parsed: TypeAlias = Union[Record, BadRecord]


@dataclass(frozen=True, slots=True)
class File:
    """A file to read records from.

    path    where it is; "-" is standard input
    name    what error messages call it
    label   what generated ids call it: the path below the folder that was given, so that moving it changes no id
    format  what it holds
    """

    path: str | PathLike[str]
    name: str
    label: str
    format: Format


def read_records(file: File, columns: Sequence[str], limit: int) -> Iterator[Parsed]:
    """Records of one file, with a BadRecord where one cannot be used.

    columns  names that make the first line of a TSV file a header, where one of them is in it
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


def _whole(stream: IO[bytes], file: File, limit: int) -> Parsed:
    """A text file as one record; its id is its label."""
    raw = stream.read(limit + 1)
    if len(raw) > limit:
        return BadRecord(file.name, 0, f"file of more than {limit:,} bytes; split it, or read it as format 'lines'")
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
        return BadRecord(
            source, line, f'got a JSON {_kind(value)}, expected one object a line, e.g. {{"id": "1", "text": "…"}}'
        )
    return Record(_storable(value) if _SURROGATE_ESCAPE.search(text) else value, line)


def _excerpt(text: str, at: int) -> str:
    start, end = max(0, at - 20), at + 20
    return ("…" if start else "") + repr(text[start:end]) + ("…" if end < len(text) else "")


def _kind(value: JSON) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _storable(value: Any) -> Any:  # noqa: ANN401 (JSON in, JSON of the same shape out)
    """`value` with lone surrogates replaced, one for one: they are not Unicode text and no file can hold them."""
    if isinstance(value, str):
        return _SURROGATE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


# -- tables ------------------------------------------------------------------------------------------

Row: TypeAlias = tuple[int, list[str]]


def _tsv_rows(lines: Lines) -> Iterator[Row | BadRecord]:
    """Cells between tabs; a quote is a character like any other, as in MS MARCO and TREC files."""
    for text in lines.surviving():
        if isinstance(text, BadRecord):
            yield text
        elif text.strip():
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


def _table(source: str, rows: Iterator[Row | BadRecord], columns: Sequence[str] | None) -> Iterator[Parsed]:
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
            is_header = columns is None or not {cell.strip() for cell in cells}.isdisjoint(columns)
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
                    if fields is None:
                        yield BadRecord(file.name, row, "a string of this row is not valid UTF-8; write the file again")
                    else:
                        yield Record(fields, row)
    except (pyarrow.ArrowException, *READ_ERRORS) as error:
        yield BadRecord(file.name, row, unreadable(error))


def _has_bytes(kind: pyarrow.DataType) -> bool:
    nested = (kind.field(index).type for index in range(kind.num_fields))
    return "binary" in str(kind).split("<")[0].split("[")[0] or any(_has_bytes(inner) for inner in nested)


def _batch_rows(batch: pyarrow.RecordBatch) -> Iterable[dict[str, JSON] | None]:
    """Rows of a batch as JSON; None for one that holds a string of invalid UTF-8."""
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
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
