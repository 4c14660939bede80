"""Collection: documents, queries, and which document answers which query.

collection = read_beir("xquad-x-en")
collection.texts[0], collection.queries[0].language, collection.judgments["ar-1"]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from polylex.corpus import read_queries
from polylex.errors import BadInput, BadRecord, DuplicateRecord
from polylex.files import File, beir_file, find_files
from polylex.ids import document_id
from polylex.records import JSON, Record, read_records
from polylex.trec import Judgments, PathName, Query, read_judgments

LINE_LIMIT = 1 << 28  # bytes

# What becomes of a judgment of a query or document that the collection does not have: refused with file:line, or kept,
# so that what cannot be found counts as not found.
Unknown = Literal["refuse", "keep"]

# Text and language of each document by its id, in the order of the files.
Texts: TypeAlias = "dict[str, tuple[str, str]]"


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection.

    name       str
    ids        [documents]  id of each document, unique
    texts      [documents]  what is encoded of it: its title, a space, its text; collections hold blank ones, and
                            a place in the ranking is theirs too
    languages  [documents]  "" where the files do not say
    queries    [queries]    ids unique; some may have no judgment, and count nowhere
    judgments  of queries and documents that are here; of others too where a reader was told to keep them

    Documents may have been left out (`documents=False` of the readers): then ids, texts and languages are empty, which
    is enough to score a run or an index that exists already.
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    queries: tuple[Query, ...]
    judgments: Judgments

    @property
    def query_languages(self) -> dict[str, str]:
        """Language of each query by its id, "" where the files do not say."""
        return {query.id: query.language for query in self.queries}

    @property
    def document_languages(self) -> dict[str, str]:
        """Language of each document by its id, "" where the files do not say."""
        return dict(zip(self.ids, self.languages, strict=True))

    def unknown_judgments(self) -> int:
        """Judgments of queries or documents that are not here. Documents that were left out are not missed."""
        queries, documents = {query.id for query in self.queries}, set(self.ids)
        return sum(
            query not in queries or (bool(documents) and document not in documents)
            for query, grades in self.judgments.items()
            for document in grades
        )


def collect(name: str, documents: Texts, queries: Iterable[Query], judgments: Judgments) -> Collection:
    """Put the parts together. Raises BadInput for two queries with one id."""
    asked = tuple(queries)
    seen: set[str] = set()
    for query in asked:
        if query.id in seen:
            raise BadInput(f"{name}: two queries have the id {query.id!r}; every query needs its own")
        seen.add(query.id)
    return Collection(
        name=name,
        ids=tuple(documents),
        texts=tuple(text for text, _ in documents.values()),
        languages=tuple(language for _, language in documents.values()),
        queries=asked,
        judgments=judgments,
    )


def read_beir(
    folder: PathName, split: str = "test", *, documents: bool = True, unknown: Unknown = "refuse"
) -> Collection:
    """Read a BEIR folder: corpus.jsonl, queries.jsonl (packed or not), qrels/<split>.tsv and, if present, meta.json.

    documents  False leaves them out
    unknown    judgments of queries and documents that are not here

    Records are `{"_id", "title", "text", "lang"}`; title may be null or absent. Where lang is absent, a meta.json that
    names one language in `doc_langs` (`query_langs`) speaks for all documents (queries).

    Raises BadInput where a file is missing; BadRecord (file:line) for a record that cannot be used, a repeated id, and
    a judgment of a query or document that the collection does not have.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/{split}.tsv")
    document_language, query_language = _declared(root / "meta.json")
    texts = _documents(root, document_language) if documents else {}
    queries = [query if query.language else replace(query, language=query_language) for query in read_queries(root)]
    judged = judgments_of(root / "qrels" / f"{split}.tsv", queries, texts if documents else None, unknown)
    return collect(root.resolve().name, texts, queries, judged)


def judgments_of(
    path: PathName, queries: Iterable[Query], documents: Mapping[str, object] | None, unknown: Unknown
) -> Judgments:
    """Read qrels and hold them against what there is. None for documents that were left out: they are not checked."""
    if unknown == "keep":
        return read_judgments(path)
    return read_judgments(
        path, queries={query.id for query in queries}, documents=None if documents is None else documents.keys()
    )


def read_texts(files: Sequence[File], language: str = "") -> Texts:
    """The documents of JSON lines or TSV files: their title, a space, their text; blank ones too.

    language  of the documents that have no field `lang`

    Raises BadRecord (file:line) for a record that cannot be used, DuplicateRecord for a repeated id.
    """
    documents: Texts = {}
    for file in files:
        for record in records_of(file, frozenset({"id", "text"}) if file.format == "tsv" else frozenset()):
            try:
                name = document_id(record.fields)
                title, text, spoken = (_string(record.fields, field) for field in ("title", "text", "lang"))
            except BadInput as fault:
                raise BadRecord(file.name, record.line, str(fault)) from None
            if name in documents:
                raise DuplicateRecord(file.name, record.line, f"document {name!r} was there before; ids are used once")
            documents[name] = (f"{title} {text}" if title else text, spoken or language)
    return documents


def records_of(file: File, columns: frozenset[str] = frozenset()) -> Iterator[Record]:
    """The records of a file. Raises BadRecord at the first that cannot be used."""
    for record in read_records(file, columns, LINE_LIMIT):
        if isinstance(record, BadRecord):
            raise record
        yield record


def _documents(root: Path, language: str) -> Texts:
    path = beir_file(root, "corpus")
    if path is None:
        raise BadInput(f"{root} has no corpus.jsonl; a BEIR folder has one beside queries.jsonl and qrels")
    return read_texts(find_files(path), language)


def _string(fields: Mapping[str, JSON], name: str) -> str:
    """The text in a field, "" where it is null or absent."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"the field {name!r} must be a string or null, got {value!r:.60}")
    return value or ""


def _declared(path: Path) -> tuple[str, str]:
    """The one language of all documents and of all queries that a meta.json declares, "" for none or several."""
    if not path.is_file():
        return "", ""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as fault:
        raise BadRecord(str(path), 0, f"unreadable JSON: {fault}; correct the file, or remove it") from None
    if not isinstance(table, dict):
        raise BadRecord(str(path), 0, "expected one JSON object; correct the file, or remove it")
    return _only(path, table, "doc_langs"), _only(path, table, "query_langs")


def _only(path: Path, table: Mapping[str, JSON], name: str) -> str:
    languages = table.get(name, [])
    if not isinstance(languages, list):
        raise BadRecord(str(path), 0, f"{name!r} must be a list of languages, got {languages!r:.60}")
    return str(languages[0]) if len(languages) == 1 else ""
