"""Preparing training data: pairs and groups out of what people have, without the texts of test collections.

groups = groups_of_collection(read_beir("my-collection", split="train"), source="my-collection")
screened = screen(groups, Exclusion.of(texts_of(read_beir("xquad-x-en"))))
write_rows("groups.jsonl.gz", screened.rows)
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from polylex.collection import Collection
from polylex.compression import open_bytes
from polylex.errors import BadInput, BadRecord
from polylex.lines import Lines
from polylex.train.data import Group, Pair
from polylex.train.exclusion import Exclusion

PathLike = str | os.PathLike[str]
Row = TypeVar("Row", Pair, Group)

_LINE_LIMIT = 1 << 20  # bytes of a line of parallel text
_PACKERS: Mapping[str, Callable[..., Any]] = {
    ".gz": partial(gzip.open, compresslevel=5),  # 9 takes four times as long for 3 % less
    ".xz": lzma.open,
    ".bz2": bz2.open,
}


def pairs_of_parallel_text(
    english: PathLike, other: PathLike, *, language: str, source: str = "", max_ratio: float = 4.0
) -> Iterator[Pair]:
    """Pairs of two text files of which line n of one is the translation of line n of the other, packed or not.

    max_ratio  pairs of which one side has more than so many times the bytes of the other are taken for misaligned

    Lines blank on either side are left out. Raises BadInput unless both files have the same number of lines.
    """
    if max_ratio < 1:
        raise BadInput(f"max_ratio must be at least 1, got {max_ratio}")
    with closing(_text_lines(Path(english))) as left, closing(_text_lines(Path(other))) as right:
        for number, (one, two) in enumerate(zip_longest(left, right), start=1):
            if one is None or two is None:
                longer, shorter = (other, english) if one is None else (english, other)
                raise BadInput(f"{longer} has more lines than {shorter}, which ends before line {number}; align them")
            sizes = len(one.encode()), len(two.encode())
            if min(sizes) and max(sizes) <= max_ratio * min(sizes):
                yield Pair(one, two, language, source)


def groups_of_collection(collection: Collection, *, source: str = "", min_grade: int = 1) -> Iterator[Group]:
    """A group for every query that has a document of at least `min_grade`; documents judged 0 are its negatives."""
    texts = dict(zip(collection.ids, collection.texts, strict=True))
    for query in collection.queries:
        grades = collection.judgments.get(query.id, {})
        positives = tuple(texts[name] for name, grade in grades.items() if grade >= min_grade)
        negatives = tuple(texts[name] for name, grade in grades.items() if grade == 0)
        if positives:
            yield Group(query.text, positives, negatives, language=query.language, source=source or collection.name)


def groups_of_pairs(pairs: Iterable[Pair]) -> Iterator[Group]:
    """Translation as retrieval: the sentence is the query, its English side the document."""
    for pair in pairs:
        yield Group(pair.non_english, (pair.english,), language=pair.language, source=pair.source)


def texts_of(collection: Collection) -> Iterator[str]:
    """Every text of a test collection, as training must not repeat it: documents and queries."""
    yield from collection.texts
    for query in collection.queries:
        yield query.text


# -- screening ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Screened(Generic[Row]):
    """What is left of some rows.

    rows     in their order
    dropped  per source, how many rows went for which reason: "exact" or "window" (a text of a test collection),
             "source" (one not wanted), "twice" (a row that was there before), "empty"; "negative" counts negatives that
             were taken out of rows that stay
    """

    rows: list[Row]
    dropped: dict[str, dict[str, int]]


def screen(rows: Iterable[Row], exclusion: Exclusion | None, *, without: Iterable[str] = ()) -> Screened[Row]:
    """Drop the rows that training must not see.

    exclusion  texts of test collections; a row goes when its query, a positive or a side of it repeats one of them,
               and a negative that does is taken out
    without    sources to leave out, for example those whose licence is not stated
    """
    unwanted = frozenset(without)
    held = list(rows)
    leaks = _leaks([row for row in held if row.source not in unwanted], exclusion)
    kept: list[Row] = []
    dropped: dict[str, Counter[str]] = {}
    seen: set[Pair | Group] = set()
    for row in held:
        counts = dropped.setdefault(row.source, Counter())
        reason = "source" if row.source in unwanted else _fault(row, leaks)
        if not reason:
            whole = row
            if isinstance(row, Group):
                row, taken = _without_leaking_negatives(row, leaks)
                counts["negative"] += taken
            reason = "twice" if whole in seen else ""
            seen.add(whole)
        if reason:
            counts[reason] += 1
        else:
            kept.append(row)
    return Screened(kept, {source: dict(+counts) for source, counts in sorted(dropped.items()) if +counts})


def _leaks(rows: Sequence[Pair | Group], exclusion: Exclusion | None) -> dict[str, str]:
    """Of every distinct text how it repeats an excluded one."""
    if exclusion is None:
        return {}
    texts = list(dict.fromkeys(text for row in rows for text in (*_essential(row), *_negatives(row))))
    return {text: leak for text, leak in zip(texts, exclusion.leaks(texts), strict=True) if leak}


def _fault(row: Pair | Group, leaks: Mapping[str, str]) -> str:
    essential = _essential(row)
    if not all(text.strip() for text in essential):
        return "empty"
    return next((leaks[text] for text in essential if text in leaks), "")


def _essential(row: Pair | Group) -> tuple[str, ...]:
    """The texts without which there is no row."""
    return (row.english, row.non_english) if isinstance(row, Pair) else (row.query, *row.positives)


def _negatives(row: Pair | Group) -> tuple[str, ...]:
    return row.negatives if isinstance(row, Group) else ()


def _without_leaking_negatives(row: Group, leaks: Mapping[str, str]) -> tuple[Group, int]:
    keep = [index for index, text in enumerate(row.negatives) if text not in leaks and text.strip()]
    taken = len(row.negatives) - len(keep)
    if not taken:
        return row, 0
    scores = tuple(row.negative_scores[index] for index in keep) if row.negative_scores else ()
    return replace(row, negatives=tuple(row.negatives[index] for index in keep), negative_scores=scores), taken


# -- files -------------------------------------------------------------------------------------------


def write_rows(path: PathLike, rows: Iterable[Pair | Group]) -> int:
    """Write pairs or groups as JSONL, packed if the name ends in .gz, .xz or .bz2; returns how many.

    The file appears whole or not at all.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    opener = _PACKERS.get(path.suffix, open)
    count = 0
    try:
        with opener(temporary, "wt", encoding="utf-8") as out:
            for row in rows:
                _write(out, row)
                count += 1
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _write(out: IO[str], row: Pair | Group) -> None:
    out.write(json.dumps(as_record(row), ensure_ascii=False) + "\n")


def as_record(row: Pair | Group) -> dict[str, Any]:
    """The JSON object of a row, as `read_pairs` and `read_groups` take it; what is empty is left out."""
    if isinstance(row, Pair):
        record: dict[str, Any] = {"english": row.english, "non_english": row.non_english}
    else:
        record = {"query": row.query, "pos": list(row.positives), "neg": list(row.negatives)}
        scores = {"pos_scores": row.positive_scores, "neg_scores": row.negative_scores}
        record |= {name: list(values) for name, values in scores.items() if values}
    return record | {name: text for name, text in (("lang", row.language), ("source", row.source)) if text}


def _text_lines(path: Path) -> Generator[str, None, None]:
    try:
        with open_bytes(path) as stream:
            for line in Lines(stream, str(path), _LINE_LIMIT):
                yield line.strip()
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; name a text file with one sentence a line") from None
    except (OSError, EOFError) as fault:
        raise BadRecord(str(path), 0, f"cannot be read: {fault}") from None
