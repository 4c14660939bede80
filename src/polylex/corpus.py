"""Collections of documents and lists of queries, read one at a time from what people have.

    for document in read_documents("corpus.jsonl.gz"):
        document.id, document.text, document.fields

No faulty record passes silently: it stops the reading with `file:line`, the fault and what was expected, or is
skipped and reported, as the caller decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from polylex.errors import BadInput, BadRecord, RecordTooLong, TextTooLong
from polylex.files import File, Format, PathName, beir_file, find_files
from polylex.ids import ID_FIELDS, Ids, document_id
from polylex.records import JSON, Record, brief, names_of, read_records, storable
from polylex.text import REPLACEMENT, clean
from polylex.trec import Query

OnError = Literal["stop", "skip"]

TITLE_FIELDS = ("title",)
BODY_FIELDS = ("text", "contents", "content", "body", "passage")
QUERY_FIELDS = ("text", "query", "question", "title")
QUERY_ID_FIELDS = (*ID_FIELDS, "qid", "query_id")
MAX_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class Document:
    """A document of a collection.

    id      unique in the collection, 1..512 bytes of UTF-8 without control characters
    text    what is encoded: document_text(fields, text_fields); never blank
    fields  every field of the record as it came, the id and the texts included
    source  the file it came from, as error messages call it: "<stdin>" for standard input, "" for no file
    line    1-based line (or row) in `source`; 0 where the document is the whole file, or came from no file
    """

    id: str
    text: str
    fields: Mapping[str, JSON]
    source: str = ""
    line: int = 0


def document_text(fields: Mapping[str, JSON], text_fields: Sequence[str] | None = None) -> str:
    """The text of a record: its text fields joined by a space, cleaned (polylex.text.clean).

    text_fields  joined in this order; None takes title and the first of text, contents, content, body, passage.
                 Null, blank and absent ones are left out.

    Raises BadInput where none of the fields is there, one is not a string, or nothing is left.
    """
    if text_fields is None:
        bodies = [name for name in BODY_FIELDS if name in fields]
        wanted: Sequence[str] = (*TITLE_FIELDS, *bodies[:1])
    else:
        wanted = text_fields
    names = [name for name in wanted if name in fields]
    if not names:
        usual = text_fields or (*TITLE_FIELDS, *BODY_FIELDS)
        raise BadInput(f"no text: expected a field {' or '.join(usual)}, got {names_of(fields)}; name the text fields")
    parts = [_part(name, fields[name]) for name in names]
    text = " ".join(part for part in parts if part)
    if not text:
        raise BadInput(f"empty text in {', '.join(names)}; a text needs at least one word")
    return text


def _part(name: str, value: JSON) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInput(f"the text field {name!r} must be a string, got {brief(value)}")
    text = clean(value)
    return text if text.replace(REPLACEMENT, "").strip() else ""


def as_document(
    document: Document | Mapping[str, Any],
    *,
    id_field: str | None = None,
    text_fields: Sequence[str] | None = None,
    max_chars: int = MAX_CHARS,
) -> Document:
    """A mapping of JSON values as a Document; one that is a Document stays as it is.

    Raises BadInput where the id, the text or a value cannot be used, TextTooLong over `max_chars` characters.
    """
    if isinstance(document, Document):
        return document
    if not isinstance(document, Mapping):
        raise BadInput(f'a document must be a mapping such as {{"id": "1", "text": "..."}}, got {brief(document)}')
    identifier = document_id(document, ID_FIELDS if id_field is None else (id_field,))
    try:
        fields = storable(dict(document))
        return Document(identifier, _short(document_text(fields, text_fields), max_chars), fields)
    except BadInput as fault:
        raise type(fault)(f"document {identifier!r}: {fault}") from None


def _short(text: str, max_chars: int) -> str:
    if len(text) > max_chars:
        raise TextTooLong(
            f"text of {len(text):,} characters, at most {max_chars:,} are allowed; split it or raise max_chars"
        )
    return text


# -- reading -----------------------------------------------------------------------------------------


def read_documents(
    paths: PathName | Sequence[PathName],
    *,
    format: Format | None = None,
    id_field: str | None = None,
    text_fields: Sequence[str] | None = None,
    on_error: OnError = "stop",
    on_skip: Callable[[BadRecord], None] | None = None,
    max_chars: int = MAX_CHARS,
    only: Callable[[int], bool] | None = None,
) -> Iterator[Document]:
    """Documents of files and folders, in order. Memory does not grow with them, but for 16 bytes an id.

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
    text_fields  as in document_text
    on_error     "stop" raises at the first faulty record; "skip" hands it to `on_skip` and goes on
    max_chars    characters a text may have; a line may have 16 times as many bytes, at least 16 million
    only         which files to read, by their number in `find_files`, from 0; all by default

    Raises BadInput at once for arguments that cannot be used and paths that are not there; while reading, BadRecord
    (RecordTooLong, DuplicateRecord) for a record or file, and MissingExtra where a format needs a package.
    """
    if isinstance(text_fields, str) or (text_fields is not None and not text_fields):
        raise BadInput(f"text_fields must be a list of names such as ['title', 'text'], got {text_fields!r}")
    columns = text_fields or (*TITLE_FIELDS, *BODY_FIELDS)
    shape = _Shape(id_field, ID_FIELDS, columns, lambda fields: document_text(fields, text_fields), max_chars)
    files = [file for number, file in enumerate(find_files(paths, format)) if only is None or only(number)]
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

    A .txt file has one query a line. A field `lang` says its language. All else, and the errors, as in read_documents.
    """
    if str(path) != "-" and Path(path).is_dir():
        found = beir_file(Path(path), "queries")
        if found is None:
            raise BadInput(f"{path}: no queries.jsonl in this folder; give the file with the queries")
        path = found
    files = [replace(each, format="lines") if each.format == "text" else each for each in find_files(path, format)]
    columns = QUERY_FIELDS if text_field is None else (text_field,)
    shape = _Shape(id_field, QUERY_ID_FIELDS, columns, lambda fields: _query_text(fields, columns), max_chars)
    documents = _read(files, shape, _Faults(on_error, on_skip))
    return (Query(each.id, each.text, _language(each.fields)) for each in documents)


def _query_text(fields: Mapping[str, JSON], names: Sequence[str]) -> str:
    return document_text(fields, [next((name for name in names if name in fields), names[0])])


def _language(fields: Mapping[str, JSON]) -> str:
    language = fields.get("lang")
    return language if isinstance(language, str) else ""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where the id and the text of a record are."""

    id_field: str | None
    usual_ids: Sequence[str]
    texts: Sequence[str]
    text_of: Callable[[Mapping[str, JSON]], str]
    max_chars: int

    def __post_init__(self) -> None:
        if self.max_chars < 1:
            raise BadInput(f"max_chars must be at least 1, got {self.max_chars}")

    @property
    def ids(self) -> Sequence[str]:
        return self.usual_ids if self.id_field is None else (self.id_field,)

    @property
    def line_limit(self) -> int:
        """Bytes a line may have: 12 for an escaped character, the rest for other fields."""
        return 16 * max(self.max_chars, MAX_CHARS)


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
    ids = Ids(shape.ids, required=shape.id_field is not None)
    columns = frozenset(name.lower() for name in (*shape.ids, *shape.texts))
    for file in files:
        for record in read_records(file, columns, shape.line_limit):
            try:
                document = _document(record, file, ids, shape)
            except BadRecord as fault:
                faults.meet(fault)
            else:
                yield document


def _document(record: Record | BadRecord, file: File, ids: Ids, shape: _Shape) -> Document:
    if isinstance(record, BadRecord):
        raise record
    try:
        text = _short(shape.text_of(record.fields), shape.max_chars)
    except TextTooLong as fault:
        raise RecordTooLong(file.name, record.line, str(fault)) from None
    except BadInput as fault:
        raise BadRecord(file.name, record.line, str(fault)) from None
    return Document(ids.give(record, file), text, record.fields, file.name, record.line)
