"""What TREC files hold: queries, judgments (qrels) and runs, read and written.

judgments = read_judgments("qrels/test.tsv")
write_run("polylex.run", {"q1": [("d7", 12.5), ("d2", 11.0)]})
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import BadInput, BadRecord
from polylex.lines import Lines, unreadable

# Of every query the grade of each judged document; 0 means judged and not relevant.
Judgments: TypeAlias = "dict[str, dict[str, int]]"
# Of every query its documents with their scores, best first. The order counts, the scores only document it.
Run: TypeAlias = "dict[str, list[tuple[str, float]]]"
PathName: TypeAlias = "str | os.PathLike[str]"

LINE_LIMIT = 1 << 16  # bytes; ids have at most 512


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `language` is "" where the file does not say."""

    id: str
    text: str
    language: str = ""


def read_judgments(
    path: PathName, *, queries: Collection[str] | None = None, documents: Collection[str] | None = None
) -> Judgments:
    """Read qrels: TREC's four columns (query, iteration, document, grade), or BEIR's three behind their heading.

    queries, documents  ids that exist (a set or the like); a judgment of any other is refused. None: not checked.

    Negative grades (TREC's mark for junk) become 0. Packed files are unpacked. Raises BadRecord (file:line).
    """
    known = {
        "query": None if queries is None else set(queries),
        "document": None if documents is None else set(documents),
    }
    judgments: Judgments = {}
    for line, (query, document, grade) in _judgment_rows(path):
        for kind, name in (("query", query), ("document", document)):
            ids = known[kind]
            if ids is not None and name not in ids:
                raise BadRecord(str(path), line, f"no {kind} {name!r} in this collection; add it, or remove this line")
        grades = judgments.setdefault(query, {})
        if document in grades:
            raise BadRecord(str(path), line, f"document {document!r} was judged before for query {query!r}")
        grades[document] = max(_whole_number(path, line, "grade", grade), 0)
    return judgments


def write_judgments(path: PathName, judgments: Mapping[str, Mapping[str, int]]) -> None:
    """Write qrels in TREC's four columns. Raises BadInput for an id with white space, which the format cannot hold."""
    _write(
        path,
        (
            f"{_word(query)} 0 {_word(document)} {grade}\n"
            for query, grades in judgments.items()
            for document, grade in grades.items()
        ),
    )


def read_run(path: PathName) -> Run:
    """Read a run: six columns (query, Q0, document, rank, score, tag), lines in any order.

    A query's documents come out by falling score, equal scores by rank. Packed files are unpacked.
    Raises BadRecord (file:line), also for a document that a query ranks twice.
    """
    rows: dict[str, dict[str, tuple[float, int]]] = {}
    for line, text in _lines(path):
        fields = text.split()
        if len(fields) != 6:
            raise BadRecord(
                str(path), line, f"a run has 6 columns (query Q0 document rank score tag), this line has {len(fields)}"
            )
        query, _, document, rank, score, _ = fields
        ranking = rows.setdefault(query, {})
        if document in ranking:
            raise BadRecord(
                str(path), line, f"query {query!r} ranks document {document!r} twice; does the file hold two runs?"
            )
        ranking[document] = (-_finite_number(path, line, score), _whole_number(path, line, "rank", rank))
    return {
        query: [(document, -key[0]) for document, key in sorted(ranking.items(), key=lambda entry: entry[1])]
        for query, ranking in rows.items()
    }


def write_run(path: PathName, run: Mapping[str, Sequence[tuple[str, float]]], *, tag: str = "polylex") -> None:
    """Write a run, ranks from 1. Raises BadInput for an id or tag with white space, which the format cannot hold."""
    _write(path, run_lines(run, tag=tag))


def run_lines(run: Mapping[str, Sequence[tuple[str, float]]], *, tag: str = "polylex") -> Iterator[str]:
    """The lines of a run file, each with its end. Raises as `write_run` does."""
    for query, ranking in run.items():
        for rank, (document, score) in enumerate(ranking, start=1):
            yield f"{_word(query)} Q0 {_word(document)} {rank} {float(score)!r} {_word(tag)}\n"


# -- reading -----------------------------------------------------------------------------------------


def _lines(path: PathName) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line that is not blank."""
    if not Path(path).is_file():
        raise BadInput(f"{path}: no such file; give the path of a qrels or run file")
    try:
        with open_bytes(path) as stream:
            lines = Lines(stream, str(path), LINE_LIMIT)
            for text in lines:
                if text.strip():
                    yield lines.number, text.rstrip("\r\n")
    except READ_ERRORS as error:
        raise BadRecord(str(path), 0, unreadable(error)) from error


def _judgment_rows(path: PathName) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Query, document and grade of each line, in the layout of the first."""
    separator, columns = None, 0
    for line, text in _lines(path):
        if not columns and text.count("\t") in (2, 3):
            separator = "\t"
        fields = text.split(separator)
        is_heading = not columns and len(fields) == 3 and fields[0] == "query-id"
        columns = columns or len(fields)
        if len(fields) != columns or columns not in (3, 4):
            raise BadRecord(
                str(path),
                line,
                "qrels have 4 columns (query iteration document grade) or 3 (query document grade) from the first line "
                f"to the last, this line has {len(fields)}",
            )
        if not is_heading:
            yield line, (fields[0], fields[-2], fields[-1])


def _whole_number(path: PathName, line: int, name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadRecord(str(path), line, f"the {name} must be a whole number, got {text!r}") from None


def _finite_number(path: PathName, line: int, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRecord(str(path), line, f"the score must be a finite number, got {text!r}")
    return number


# -- writing -----------------------------------------------------------------------------------------


def _word(name: str) -> str:
    if not name or any(char.isspace() for char in name):
        raise BadInput(f"{name!r} cannot stand in a TREC file, whose columns are parted by white space; rename it")
    return name


def _write(path: PathName, lines: Iterable[str]) -> None:
    """Write all lines or nothing."""
    partial = Path(f"{os.fspath(path)}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
