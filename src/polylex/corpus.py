"""Collections of documents and lists of queries, read one at a time from what people have.

    for document in read_documents("corpus.jsonl.gz"):
        document.id, document.text, document.fields

One faulty record never passes silently: it stops the reading with `file:line`, the fault and what was expected, or
is skipped and reported, as the caller decides.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePath
from typing import Literal, TypeAlias, get_args

import numpy as np

from polylex.compression import SUFFIXES
from polylex.errors import BadInput, BadRecord, DuplicateRecord, RecordTooLong
from polylex.records import JSON, File, Format, Record, read_records
from polylex.text import REPLACEMENT, clean

PathName: TypeAlias = "str | PathLike[str]"
OnError = Literal["stop", "skip"]

FORMATS: tuple[Format, ...] = get_args(Format)
ID_FIELDS = ("_id", "id", "docid", "doc_id")
TITLE_FIELDS = ("title",)
BODY_FIELDS = ("text", "contents", "content", "body", "passage")
QUERY_FIELDS = ("text", "query", "question", "title")
MAX_ID_BYTES = 512

_SUFFIX_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".md": "text",
}
_CONTROL = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a collection.

    id      unique in the collection, 1..512 bytes of UTF-8 without control characters
    text    what is encoded: the text fields joined by a line end, cleaned (polylex.text.clean); never blank
    fields  every field of the record as it came, the id and the texts included
    source  the file it came from, as error messages call it; "<stdin>" for standard input
    line    1-based line (or row) in `source`; 0 where the document is the whole file
    """

    id: str
    text: str
    fields: Mapping[str, JSON]
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a list of queries; id, text, source and line as in Document."""

    id: str
    text: str
    source: str
    line: int


def read_documents(
    paths: PathName | Sequence[PathName],
    *,
    format: Format | None = None,
    id_field: str | None = None,
    text_fields: Sequence[str] | None = None,
    on_error: OnError = "stop",
    on_skip: Callable[[BadRecord], None] | None = None,
    max_chars: int = 1_000_000,
) -> Iterator[Document]:
    """Documents of one or more files or folders, in order; memory does not grow with them but for 16 bytes an id.

    paths        files, folders, or "-" for standard input; gzip, xz, bzip2 and Zstandard are unpacked on the way.
                 A folder is a BEIR data set (corpus.jsonl beside queries.jsonl or qrels/), or all tables and JSON
                 lines in it, or, where it has none, all its .txt and .md files: recursive, sorted, no hidden ones.
    format       what the files hold; None takes it from the names, and JSON lines for standard input.
                   jsonl    one JSON object a line (.jsonl .ndjson .json)
                   tsv      tab-separated, quotes mean nothing; a first line with a known column is a header, else the
                            columns are id and text (.tsv .tab)
                   csv      comma-separated with a header (.csv)
                   parquet  needs the extra polylex[parquet]; binary columns are left out (.parquet .pq)
                   text     one document a file, its id is its path in the folder (.txt .md)
                   lines    one document a line of plain text
    id_field     None takes the first of _id, id, docid, doc_id. Where the first record has none of them, the ids of
                 all are made: `<file>:<line>`, with the file's path in the folder. Numbers become strings.
    text_fields  joined in this order, null and absent ones left out. None takes title and the first of text,
                 contents, content, body, passage.
    on_error     "stop" raises at the first faulty record; "skip" hands it to `on_skip` and goes on
    max_chars    characters a text may have; a line may have 16 times as many bytes

    Raises BadInput at once for arguments that cannot be used and paths that are not there; while reading, BadRecord
    (RecordTooLong, DuplicateRecord) for a record or file, and MissingExtra where a format needs a package.
    """
    shape = _Shape(id_field, _chosen(text_fields), TITLE_FIELDS, BODY_FIELDS, max_chars)
    files = [file for path in _listed(paths) for file in _files(path, format)]
    return _read(files, shape, _Faults(on_error, on_skip))


def read_queries(
    path: PathName,
    *,
    format: Format | None = None,
    id_field: str | None = None,
    text_field: str | None = None,
    on_error: OnError = "stop",
    on_skip: Callable[[BadRecord], None] | None = None,
    max_chars: int = 100_000,
) -> Iterator[Query]:
    """Queries of a file, of a BEIR folder (its queries.jsonl) or of standard input ("-"), in order.

    text_field  None takes the first of text, query, question, title

    A .txt file has one query a line. All else, and the errors raised, as in read_documents.
    """
    shape = _Shape(id_field, None if text_field is None else (text_field,), (), QUERY_FIELDS, max_chars)
    if str(path) != "-" and Path(path).is_dir():
        path = _beir_file(Path(path), "queries")
    files = [File(f.path, f.name, f.label, "lines" if f.format == "text" else f.format) for f in _files(path, format)]
    documents = _read(files, shape, _Faults(on_error, on_skip))
    return (Query(each.id, each.text, each.source, each.line) for each in documents)


# -- records to documents ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the id and the text of a record are: `text_fields`, else the titles and the first body there is."""

    id_field: str | None
    text_fields: tuple[str, ...] | None
    titles: tuple[str, ...]
    bodies: tuple[str, ...]
    max_chars: int

    def __post_init__(self) -> None:
        if self.max_chars < 1:
            raise BadInput(f"max_chars must be at least 1, got {self.max_chars}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that tell the header of a table from its first row."""
        id_fields = ID_FIELDS if self.id_field is None else (self.id_field,)
        return id_fields + (self.text_fields or ())

    @property
    def line_limit(self) -> int:
        """Bytes a line may have: 12 for an escaped character in JSON, and room for the other fields."""
        return 16 * max(self.max_chars, 1_000_000)

    def texts(self, fields: Mapping[str, JSON]) -> list[str]:
        """Names of the fields of this record that make its text."""
        if self.text_fields is not None:
            return [name for name in self.text_fields if name in fields]
        body = next((name for name in self.bodies if name in fields), None)
        return [name for name in self.titles if name in fields] + ([] if body is None else [body])


@dataclass(frozen=True, slots=True)
class _Faults:
    """What happens to a faulty record."""

    on_error: OnError
    on_skip: Callable[[BadRecord], None] | None

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise BadInput(f"on_error must be 'stop' or 'skip', got {self.on_error!r}")

    def meet(self, fault: BadRecord) -> None:
        if self.on_error == "stop":
            raise fault
        if self.on_skip is not None:
            self.on_skip(fault)


def _read(files: Sequence[File], shape: _Shape, faults: _Faults) -> Iterator[Document]:
    names = _Names(shape.id_field)
    for file in files:
        for record in read_records(file, shape.columns, shape.line_limit):
            if isinstance(record, BadRecord):
                faults.meet(record)
                continue
            try:
                text = _text(record, file.name, shape)
                document = Document(names.give(record, file), text, record.fields, file.name, record.line)
            except BadRecord as fault:
                faults.meet(fault)
            else:
                yield document


def _text(record: Record, source: str, shape: _Shape) -> str:
    names = shape.texts(record.fields)
    if not names:
        wanted = shape.text_fields or (*shape.titles, *shape.bodies)
        raise BadRecord(
            source,
            record.line,
            f"no text: none of the fields {', '.join(dict.fromkeys(wanted))} is there, only "
            f"{_some(record.fields)}; name the text fields",
        )
    parts = []
    for name in names:
        value = record.fields[name]
        if value is not None and not isinstance(value, str):
            raise BadRecord(source, record.line, f"field {name!r} must be a string, got {_brief(value)}")
        if value is not None and value.replace(REPLACEMENT, "").strip():
            parts.append(clean(value))
    text = "\n".join(parts)
    if not text:
        raise BadRecord(source, record.line, f"empty text in {', '.join(names)}; a document needs at least one word")
    if len(text) > shape.max_chars:
        raise RecordTooLong(
            source,
            record.line,
            f"text of {len(text):,} characters, at most {shape.max_chars:,} are allowed; split it or raise max_chars",
        )
    return text


def _some(fields: Mapping[str, JSON], limit: int = 10) -> str:
    shown = ", ".join(f"{name:.40}" for name in list(fields)[:limit])
    return (shown or "no field") + (", …" if len(fields) > limit else "")


def _brief(value: JSON) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown[:40]}{'…' if len(shown) > 40 else ''}"


# -- ids ---------------------------------------------------------------------------------------------


class _Names:
    """The ids of a collection: read or, where the first record has none, made; each used once."""

    def __init__(self, id_field: str | None) -> None:
        self._fields = ID_FIELDS if id_field is None else (id_field,)
        self._chosen = id_field is not None
        self._first: tuple[str, int] | None = None  # where the first record is, if ids are made because it has none
        self._seen = _Seen()
        self._sources: list[str] = []

    def give(self, record: Record, file: File) -> str:
        """The id of this record. Raises BadRecord if it has none that can be used, or one that was used before."""
        identifier = self._read(record, file)
        if not self._sources or self._sources[-1] != file.name:
            self._sources.append(file.name)
        place = len(self._sources) - 1 << 40 | record.line
        earlier = self._seen.add(hash(identifier) & 0xFFFFFFFFFFFFFFFF, place)
        if earlier is not None:
            where = f"{self._sources[earlier >> 40]}:{earlier & (1 << 40) - 1}"
            raise DuplicateRecord(
                file.name, record.line, f"id {identifier!r} is taken by {where}; every document needs its own"
            )
        return identifier

    def _read(self, record: Record, file: File) -> str:
        name = next((name for name in self._fields if name in record.fields), None)
        if not self._chosen:
            self._chosen = True
            self._first = (file.name, record.line) if name is None else None
        if self._first is not None and name is not None:
            raise BadInput(
                f"{file.name}:{record.line} has the id field {name!r}, but {':'.join(map(str, self._first))}, the "
                f"first record, has no id; give every record one, or name the id field to refuse those without"
            )
        if self._first is not None:
            return _usable(f"{file.label}:{record.line}", "file name and line", file.name, record.line)
        if name is None:
            raise BadRecord(
                file.name,
                record.line,
                f"no id: expected the field {' or '.join(self._fields)}, got {_some(record.fields)}",
            )
        return _usable(record.fields[name], name, file.name, record.line)


def _usable(value: JSON, name: str, source: str, line: int) -> str:
    """`value` as an id. Raises BadRecord where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRecord(source, line, f"id in {name!r} must be a string or a number, got {_brief(value)}")
    identifier = str(value)
    if not identifier.strip():
        raise BadRecord(source, line, f"empty id in {name!r}; every document needs one")
    size = len(identifier.encode("utf-8"))
    if size > MAX_ID_BYTES:
        raise BadRecord(source, line, f"id in {name!r} has {size:,} bytes, at most {MAX_ID_BYTES} are allowed")
    if _CONTROL.search(identifier):
        raise BadRecord(source, line, f"id {_brief(identifier)} has a control character; ids are printed in tables")
    return identifier


class _Seen:
    """Which keys were seen, and where: 16 bytes a key, where a dict takes 110.

    New keys are gathered in a dict, then merged into sorted runs of doubling length. Keys are 64-bit hashes of ids:
    two different ids of 10 million have equal ones, and the second is refused, once in 370,000 collections.
    """

    def __init__(self, batch: int = 1 << 16) -> None:
        self._batch, self._new = batch, dict[int, int]()
        self._runs: list[tuple[array[int], array[int]]] = []

    def add(self, key: int, place: int) -> int | None:
        """Remember that `key` is at `place`; the earlier place if it was seen before."""
        from bisect import bisect_left

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
            older = self._runs.pop()
            keys, places = older[0] + keys, older[1] + places
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable")
        self._runs.append((_reordered(keys, order), _reordered(places, order)))


def _reordered(values: array[int], order: np.typing.NDArray[np.intp]) -> array[int]:
    return array("Q", np.frombuffer(values, np.uint64)[order].tobytes())


# -- paths to files ----------------------------------------------------------------------------------


def _listed(paths: PathName | Sequence[PathName]) -> list[PathName]:
    found: list[PathName] = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not found:
        raise BadInput("no path given; name a file, a folder, or - for standard input")
    return found


def _chosen(text_fields: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(text_fields, str) or (text_fields is not None and not text_fields):
        raise BadInput(f"text_fields must be a list of names such as ['title', 'text'], got {text_fields!r}")
    return None if text_fields is None else tuple(text_fields)


def _files(path: PathName, format: Format | None) -> list[File]:
    """The files to read for one path that a user gave."""
    if format is not None and format not in FORMATS:
        raise BadInput(f"unknown format {format!r}; known are {', '.join(FORMATS)}")
    if str(path) == "-":
        if format == "parquet":
            raise BadInput("Parquet cannot be read from standard input; give the file's path")
        return [File("-", "<stdin>", "stdin", format or "jsonl")]
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{clean(str(path))}: no such file or folder")
    if path.is_dir():
        return _folder_files(path, format)
    known = format or _format_of(path)
    if known is None:
        raise BadInput(
            f"{clean(str(path))}: cannot tell the format from the name; name it ({', '.join(FORMATS)}), or use an "
            f"ending of {' '.join(_SUFFIX_FORMATS)}"
        )
    return [_file(path, path.parent, known)]


def _file(path: Path, folder: Path, format: Format) -> File:
    return File(path, clean(str(path)), clean(path.relative_to(folder).as_posix()), format)


def _format_of(path: PurePath) -> Format | None:
    return _SUFFIX_FORMATS.get(Path(_unpacked_name(path)).suffix.lower())


def _unpacked_name(path: PurePath) -> str:
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _folder_files(folder: Path, format: Format | None) -> list[File]:
    corpus = _beir_files(folder, "corpus")
    if corpus and format in (None, "jsonl") and (_beir_files(folder, "queries") or (folder / "qrels").is_dir()):
        return [_file(corpus[0], folder, "jsonl")]
    found = [(path, kind) for path in _walk(folder) if (kind := _format_of(path)) is not None]
    if format is None:
        tables = [(path, kind) for path, kind in found if kind != "text"]
        found = tables or found  # a README.md beside data is no document
    else:
        held: Format = "text" if format == "lines" else format
        found = [(path, format) for path, kind in found if kind == held]
    if not found:
        endings = " ".join(suffix for suffix, kind in _SUFFIX_FORMATS.items() if format in (None, kind))
        raise BadInput(f"{clean(str(folder))}: no documents in this folder; looked for {endings or '.txt .md'}")
    return [_file(path, folder, kind) for path, kind in found]


def _walk(folder: Path) -> Iterable[Path]:
    """All files below `folder` that are not hidden, in the order of their paths in it."""
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _beir_files(folder: Path, stem: str) -> list[Path]:
    names = [f"{stem}.jsonl{packed}" for packed in ("", *SUFFIXES)]
    return [folder / name for name in names if (folder / name).is_file()]


def _beir_file(folder: Path, stem: str) -> Path:
    found = _beir_files(folder, stem)
    if not found:
        raise BadInput(f"{clean(str(folder))}: no {stem}.jsonl in this folder; give the file with the {stem}")
    return found[0]
