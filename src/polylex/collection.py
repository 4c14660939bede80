"""Collection: documents, queries, and which document answers which query.

collection = read_beir("xquad-x-en")
collection.texts[0], collection.queries[0].language, collection.judgments["ar-1"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from polylex.corpus import read_queries
from polylex.errors import BadInput, BadRecord, DuplicateRecord
from polylex.files import beir_file, find_files
from polylex.ids import document_id
from polylex.records import JSON, read_records
from polylex.trec import Judgments, PathName, Query, read_judgments

LINE_LIMIT = 1 << 28  # bytes


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection.

    name       str
    ids        [documents]  id of each document, unique
    texts      [documents]  what is encoded of it: its title, a space, its text; collections hold blank ones, and
                            a place in the ranking is theirs too
    languages  [documents]  "" where the files do not say
    queries    [queries]    ids unique; some may have no judgment, and count nowhere
    judgments  of queries and documents that are here
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


def read_beir(folder: PathName, split: str = "test") -> Collection:
    """Read a BEIR folder: corpus.jsonl, queries.jsonl (packed or not), qrels/<split>.tsv and, if present, meta.json.

    Records are `{"_id", "title", "text", "lang"}`; title may be null or absent. Where lang is absent, a meta.json that
    names one language in `doc_langs` (`query_langs`) speaks for all documents (queries).

    Raises BadInput where a file is missing; BadRecord (file:line) for a record that cannot be used, a repeated id, and
    a judgment of a query or document that the collection does not have.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/{split}.tsv")
    document_language, query_language = _declared(root / "meta.json")
    documents = _documents(root)
    queries = tuple(
        query if query.language else replace(query, language=query_language) for query in read_queries(root)
    )
    judged = read_judgments(
        root / "qrels" / f"{split}.tsv", queries={query.id for query in queries}, documents=documents.keys()
    )
    return Collection(
        name=root.resolve().name,
        ids=tuple(documents),
        texts=tuple(text for text, _ in documents.values()),
        languages=tuple(language or document_language for _, language in documents.values()),
        queries=queries,
        judgments=judged,
    )


def _documents(root: Path) -> dict[str, tuple[str, str]]:
    """Text and language of each document by its id."""
    path = beir_file(root, "corpus")
    if path is None:
        raise BadInput(f"{root} has no corpus.jsonl; a BEIR folder has one beside queries.jsonl and qrels")
    documents: dict[str, tuple[str, str]] = {}
    for record in read_records(find_files(path)[0], (), LINE_LIMIT):
        if isinstance(record, BadRecord):
            raise record
        try:
            name = document_id(record.fields)
            title, text, language = (_string(record.fields, field) for field in ("title", "text", "lang"))
        except BadInput as fault:
            raise BadRecord(str(path), record.line, str(fault)) from None
        if name in documents:
            raise DuplicateRecord(str(path), record.line, f"document {name!r} was there before; ids are used once")
        documents[name] = (f"{title} {text}" if title else text, language)
    return documents


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
    except ValueError as fault:
        raise BadRecord(str(path), 0, f"unreadable JSON: {fault}; correct the file, or remove it") from None
    if not isinstance(table, dict):
        raise BadRecord(str(path), 0, "expected one JSON object; correct the file, or remove it")
    return _only(path, table, "doc_langs"), _only(path, table, "query_langs")


def _only(path: Path, table: Mapping[str, JSON], name: str) -> str:
    languages = table.get(name, [])
    if not isinstance(languages, list):
        raise BadRecord(str(path), 0, f"{name!r} must be a list of languages, got {languages!r:.60}")
    return str(languages[0]) if len(languages) == 1 else ""
