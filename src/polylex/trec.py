"""Test collections, and the files of TREC and BEIR that hold them: queries, judgments, runs.

collection = read_beir("xquad-x-en")
collection.texts[0], collection.queries[0].language, collection.judgments["ar-1"]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylex.errors import BadInput, BadRecord

# Of every query the grade of each judged document; 0 means judged and not relevant.
Judgments = dict[str, dict[str, int]]
# Of every query its documents with their scores, best first. The order counts, the scores only document it.
Run = dict[str, list[tuple[str, float]]]

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `language` is "" where the file does not say."""

    id: str
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A test collection: documents, queries, and which document answers which query.

    name       str
    ids        [documents]  id of each document, unique
    texts      [documents]  what is encoded of it: its title, a space, its text
    languages  [documents]  "" where the file does not say
    queries    [queries]    unique ids, judged or not
    judgments  grades >= 0, only of queries and documents that are here
    """

    name: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    queries: tuple[Query, ...]
    judgments: Judgments

    @property
    def judged(self) -> tuple[Query, ...]:
        """The queries that have a judgment: those that an evaluation counts."""
        return tuple(query for query in self.queries if query.id in self.judgments)


def read_beir(folder: StrPath, split: str = "test") -> Collection:
    """Read a BEIR folder: corpus.jsonl, queries.jsonl, qrels/<split>.tsv and, where there is one, meta.json.

    Records are `{"_id", "title", "text", "lang"}`; title may be null or absent, and so may lang: then a meta.json that
    names one language in `doc_langs` (`query_langs`) speaks for all documents (queries).

    Raises BadInput where a file is missing, BadRecord (file:line) for a record that cannot be used, a repeated id, and a
    judgment that names a query or document that the collection does not have.
    """
    root = Path(folder)
    languages = _declared_languages(root / "meta.json")
    documents: dict[str, tuple[str, str]] = {}
    path = root / "corpus.jsonl"
    for line, record in _json_lines(path):
        name = _string(path, line, record, "_id")
        if name in documents:
            raise BadRecord(str(path), line, f"document {name!r} was there before; every document needs its own id")
        documents[name] = (_body(path, line, record), _optional(path, line, record, "lang") or languages["doc_langs"])
    queries = read_queries(root / "queries.jsonl", language=languages["query_langs"])
    judgments = read_judgments(
        root / "qrels" / f"{split}.tsv", queries={query.id for query in queries}, documents=documents.keys()
    )
    return Collection(
        name=root.resolve().name,
        ids=tuple(documents),
        texts=tuple(text for text, _ in documents.values()),
        languages=tuple(language for _, language in documents.values()),
        queries=tuple(queries),
        judgments=judgments,
    )


def read_queries(path: StrPath, *, language: str = "") -> list[Query]:
    """Read queries: JSONL of `{"_id", "text", "lang"}` (name ends in .jsonl), or lines of id, tab, text.

    language  of queries whose record does not say
    """
    path = Path(path)
    found: dict[str, Query] = {}
    for line, query in _json_queries(path, language) if path.suffix == ".jsonl" else _tab_queries(path, language):
        if query.id in found:
            raise BadRecord(str(path), line, f"query {query.id!r} was there before; every query needs its own id")
        found[query.id] = query
    return list(found.values())


def read_judgments(
    path: StrPath, *, queries: Iterable[str] | None = None, documents: Iterable[str] | None = None
) -> Judgments:
    """Read qrels: TREC's four columns (query, iteration, document, grade) or BEIR's three with their heading.

    queries, documents  ids that exist; a judgment of any other is refused. None: not checked.

    Negative grades (TREC's way to mark junk) count as 0. Raises BadRecord.
    """
    path = Path(path)
    known_queries = None if queries is None else frozenset(queries)
    known_documents = None if documents is None else frozenset(documents)
    judgments: Judgments = {}
    for line, (query, document, text) in _judgment_rows(path):
        try:
            grade = int(text)
        except ValueError:
            raise BadRecord(str(path), line, f"the grade must be a whole number, got {text!r}") from None
        for kind, name, known in (("query", query, known_queries), ("document", document, known_documents)):
            if known is not None and name not in known:
                raise BadRecord(str(path), line, f"no {kind} {name!r} in this collection; remove the line, or add it")
        grades = judgments.setdefault(query, {})
        if document in grades:
            raise BadRecord(str(path), line, f"document {document!r} was judged for query {query!r} before")
        grades[document] = max(grade, 0)
    return judgments


def write_judgments(path: StrPath, judgments: Mapping[str, Mapping[str, int]]) -> None:
    """Write qrels in TREC's four columns. Raises BadInput for an id with white space, which the format cannot hold."""
    _write(
        Path(path),
        (
            f"{_word(query)} 0 {_word(document)} {grade}\n"
            for query, grades in judgments.items()
            for document, grade in grades.items()
        ),
    )


def read_run(path: StrPath) -> Run:
    """Read a TREC run: six columns (query, Q0, document, rank, score, tag), in any order of lines.

    Each query's documents come out by falling score; equal scores by rank, then as the file has them.
    Raises BadRecord for a line that does not fit and for a document that one query ranks twice.
    """
    path = Path(path)
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for line, fields in _columns(path, None):
        if len(fields) != 6:
            raise BadRecord(str(path), line, f"a run has 6 columns (query Q0 document rank score tag), got {len(fields)}")
        query, _, document, rank, score, _ = fields
        try:
            key = (-float(score), int(rank))
        except ValueError:
            raise BadRecord(
                str(path), line, f"rank must be a whole number and score a number, got {rank!r} and {score!r}"
            ) from None
        if not math.isfinite(key[0]):
            raise BadRecord(str(path), line, f"the score must be finite, got {score!r}")
        ranking = rows.setdefault(query, {})
        if document in ranking:
            raise BadRecord(
                str(path), line, f"query {query!r} ranks document {document!r} twice; does the file hold two runs?"
            )
        ranking[document] = key
    return {
        query: [(document, -key[0]) for document, key in sorted(ranking.items(), key=lambda item: item[1])]
        for query, ranking in rows.items()
    }


def write_run(path: StrPath, run: Mapping[str, Sequence[tuple[str, float]]], *, tag: str = "polylex") -> None:
    """Write a TREC run, ranks from 1. Raises BadInput for an id with white space, which the format cannot hold."""
    _write(
        Path(path),
        (
            f"{_word(query)} Q0 {_word(document)} {rank} {float(score)!r} {_word(tag)}\n"
            for query, ranking in run.items()
            for rank, (document, score) in enumerate(ranking, start=1)
        ),
    )


# -- lines -------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line that is not blank."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as fault:
                    raise BadRecord(str(path), number, f"not UTF-8 ({fault}); convert the file") from None
                if text.strip():
                    yield number, text
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BadInput(f"{path} is not a file; a BEIR folder has corpus.jsonl, queries.jsonl, qrels/test.tsv") from None


def _columns(path: Path, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    for number, text in _lines(path):
        yield number, text.split(separator)


def _judgment_rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Query, document and grade of each line, from either layout; a file keeps to one."""
    layout = 0
    for number, text in _lines(path):
        fields = text.split("\t") if "\t" in text else text.split()
        if not layout:
            layout = len(fields)
            if fields[:1] == ["query-id"]:
                continue
        if len(fields) != layout or layout not in (3, 4):
            raise BadRecord(
                str(path),
                number,
                f"qrels have 4 columns (query iteration document grade) or 3 (query document grade) throughout, "
                f"got {len(fields)}",
            )
        yield number, (fields[0], fields[-2], fields[-1])


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in _lines(path):
        try:
            record = json.loads(text)
        except ValueError as fault:
            raise BadRecord(str(path), number, f"not JSON: {fault}") from None
        if not isinstance(record, dict):
            raise BadRecord(str(path), number, f"expected a JSON object, got {type(record).__name__}")
        yield number, record


def _json_queries(path: Path, language: str) -> Iterator[tuple[int, Query]]:
    for line, record in _json_lines(path):
        yield (
            line,
            Query(
                _string(path, line, record, "_id"),
                _string(path, line, record, "text"),
                _optional(path, line, record, "lang") or language,
            ),
        )


def _tab_queries(path: Path, language: str) -> Iterator[tuple[int, Query]]:
    for line, fields in _columns(path, "\t"):
        if len(fields) != 2:
            raise BadRecord(str(path), line, f"a query is an id, a tab and its text; got {len(fields)} columns")
        yield line, Query(fields[0], fields[1], language)


# -- fields ------------------------------------------------------------------------------------------


def _string(path: Path, line: int, record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise BadRecord(str(path), line, f"{field!r} must be a string, got {json.dumps(value, ensure_ascii=False)}")
    return value


def _optional(path: Path, line: int, record: Mapping[str, Any], field: str) -> str:
    """A string that may be null or absent."""
    return "" if record.get(field) is None else _string(path, line, record, field)


def _body(path: Path, line: int, record: Mapping[str, Any]) -> str:
    title = _optional(path, line, record, "title")
    text = _string(path, line, record, "text")
    return f"{title} {text}" if title else text


def _declared_languages(path: Path) -> dict[str, str]:
    """The one language of the documents and of the queries that a meta.json declares, "" for none or several."""
    declared = {"doc_langs": "", "query_langs": ""}
    if path.is_file():
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as fault:
            raise BadRecord(str(path), 0, f"not JSON: {fault}") from None
        for key in declared:
            names = table.get(key) if isinstance(table, dict) else None
            if isinstance(names, list) and len(names) == 1:
                declared[key] = str(names[0])
    return declared


def _word(name: str) -> str:
    if not name or any(char.isspace() for char in name):
        raise BadInput(f"{name!r} cannot stand in a TREC file: its columns are parted by white space; rename the id")
    return name


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write all lines or nothing."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
