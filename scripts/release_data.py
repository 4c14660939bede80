"""The training data of the released polylex-mini: from archives to screened pairs, groups, development sets, a report.

    python scripts/release_data.py PARALLEL_FOLDER RETRIEVAL_FOLDER EVAL_FOLDER OUT [--rows 2000]

PARALLEL_FOLDER   <language>.jsonl.xz of {"english", "non_english", "source"}
RETRIEVAL_FOLDER  <source>.passages.jsonl, <source>.triples.jsonl, stats.json
EVAL_FOLDER       BEIR folders: nothing that repeats a text of theirs is kept
OUT               gets pairs.jsonl.gz, groups.jsonl.gz, english.jsonl.gz, dev/, report.md, report.json

Settings (sources left out, held out, shares) are in recipes/release-data.toml.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

from polylex.collection import read_beir
from polylex.train.data import Group, Pair, read_pairs
from polylex.train.exclusion import Exclusion
from polylex.train.prepare import Screened, screen, texts_of, write_rows
from polylex.train.report import report

# The archive's ISO 639-3 codes of African languages, and its names of Chinese scripts.
LANGUAGES = {"hau": "ha", "ibo": "ig", "kin": "rw", "swa": "sw", "twi": "tw", "yor": "yo", "zul": "zu",
             "zh-Hans": "zh", "zh-Hant": "zh-hant", "pt-BR": "pt", "no": "nb"}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What recipes/release-data.toml holds."""

    unlicensed: tuple[str, ...]
    held_out: tuple[str, ...]
    held_out_rows: int
    max_chars: int
    negatives: int
    min_sentence: int
    max_pair_groups: int
    max_long_per_stratum: int
    domains: dict[str, str]
    licences: dict[str, str]
    seed: int


def read_retrieval(folder: Path, max_chars: int) -> Iterator[Group]:
    """Groups of the retrieval archive; the language is "query>document" for now, the source the archive's file."""
    for triples in sorted(folder.glob("*.triples.jsonl")):
        source = triples.name.removesuffix(".triples.jsonl")
        lines = (folder / f"{source}.passages.jsonl").read_text(encoding="utf-8").splitlines()
        passages = {name: text[:max_chars] for name, text in map(json.loads, lines)}
        for line in triples.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Group(
                row["q"],
                tuple(passages[name] for name in dict.fromkeys(row["p"])),
                tuple(passages[name] for name in dict.fromkeys(row["n"])),
                language=f"{_language(row['l'])}>{_language(row['dl'])}",
                source=source,
            )


def read_parallel(folder: Path, rows: int, max_chars: int) -> Iterator[Pair]:
    """All pairs, at most `rows` of a file (0 = all)."""
    for path in sorted(folder.glob("*.jsonl.xz")):
        for number, pair in enumerate(read_pairs(path)):
            if rows and number >= rows:
                break
            cut = replace(pair, english=pair.english[:max_chars], non_english=pair.non_english[:max_chars])
            yield replace(cut, language=_language(pair.language))


def _language(name: str) -> str:
    return LANGUAGES.get(name, name)


# -- development sets ----------------------------------------------------------------------------------


def hold_out(rows: Iterable[Any], settings: Settings) -> tuple[list[Any], dict[str, list[Any]]]:
    """(rows to train on, per development set its rows). A set is a source, or `source#`: its first rows only.

    Of a `source#` every row that shares a text with a held-out one goes, too, without becoming part of the set.
    """
    whole = {name for name in settings.held_out if not name.endswith("#")}
    parts = {name[:-1] for name in settings.held_out if name.endswith("#")}
    train: list[Any] = []
    held: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if row.source in whole or (row.source in parts and len(held[row.source]) < settings.held_out_rows):
            held[row.source].append(row)
        else:
            train.append(row)
    return train, dict(held)


def write_beir(folder: Path, rows: list[Any]) -> None:
    """A development set as a BEIR folder: all documents of its rows, negatives included."""
    groups = [Group(r.non_english, (r.english,), language=r.language) if isinstance(r, Pair) else r for r in rows]
    documents: dict[str, str] = {}
    queries: dict[str, tuple[str, str]] = {}
    judged: set[tuple[str, str]] = set()
    for group in groups:
        query, _ = queries.setdefault(group.query, (f"q{len(queries)}", group.language))
        for text in (*group.positives, *group.negatives):
            documents.setdefault(text, f"d{len(documents)}")
        judged.update((query, documents[text]) for text in group.positives)
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _jsonl(folder / "corpus.jsonl", ({"_id": name, "text": text} for text, name in documents.items()))
    _jsonl(folder / "queries.jsonl", ({"_id": q, "text": text, "lang": lang} for text, (q, lang) in queries.items()))
    rated = "".join(f"{query}\t{name}\t1\n" for query, name in sorted(judged))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rated, encoding="utf-8")


def _jsonl(path: Path, records: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


# -- translation as retrieval --------------------------------------------------------------------------


def sentence_groups(pairs: list[Pair], settings: Settings, english: dict[str, str]) -> Iterator[Group]:
    """A sentence as the query, a translation of it into English or a third language as the document."""
    rng = random.Random(settings.seed)
    prose = [pair for pair in pairs if len(pair.english) >= settings.min_sentence]
    translations: dict[str, list[Pair]] = defaultdict(list)
    for pair in prose:
        translations[pair.english].append(pair)
    rng.shuffle(prose)
    for pair in prose[: settings.max_pair_groups]:
        others = [other for other in translations[pair.english] if other.language != pair.language]
        third = rng.choice(others) if others and rng.random() < 0.5 else None
        query, document = pair.non_english, third.non_english if third else pair.english
        if third is None and rng.random() < 0.3:
            query, document = document, query
        yield _translated(query, document, pair, "sentence", settings)
        english[query] = english[document] = pair.english


def long_groups(pairs: list[Pair], settings: Settings, english: dict[str, str]) -> Iterator[Group]:
    """A sentence as the query; the document is the passage it stands in, of neighbouring pairs, in another language.

    The passage leaves out the sentence itself one time in four.
    """
    rng = random.Random(settings.seed + 1)
    strata: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if len(pair.english) >= settings.min_sentence:
            strata[pair.language, pair.source].append(pair)
    for rows in strata.values():
        made = 0
        start = 0
        while start < len(rows) and made < settings.max_long_per_stratum:
            passage, size, goal = [], 0, rng.uniform(300, 1100)
            while start < len(rows) and size < goal:
                passage.append(rows[start])
                size += len(rows[start].english)
                start += 1
            if len(passage) > 1:
                made += 1
                yield from _of_passage(passage, rng, settings, english)


def _of_passage(
    passage: list[Pair], rng: random.Random, settings: Settings, english: dict[str, str]
) -> Iterator[Group]:
    for target in rng.sample(passage, min(2, len(passage))):
        rest = [pair for pair in passage if pair is not target] if rng.random() < 0.25 else passage
        sides = " ".join(pair.english for pair in rest), " ".join(pair.non_english for pair in rest)
        direction = rng.choices(("x-en", "en-x", "x-x"), (0.6, 0.2, 0.2))[0]
        query = target.english if direction == "en-x" else target.non_english
        document = sides[0] if direction == "x-en" else sides[1]
        yield _translated(query, document, target, "passage", settings)
        english[query], english[document] = target.english, sides[0]


def _translated(query: str, document: str, pair: Pair, kind: str, settings: Settings) -> Group:
    domain = next((name for pattern, name in settings.domains.items() if fnmatch(pair.source, pattern)), "software")
    return Group(query, (document,), language=pair.language, source=f"{kind}-{domain}")


# -- all of it -----------------------------------------------------------------------------------------


def build(options: argparse.Namespace, settings: Settings) -> None:
    """Read, hold out, screen, write."""
    out: Path = options.out
    pairs, held_pairs = hold_out(read_parallel(options.parallel, options.rows, settings.max_chars), settings)
    groups, held_groups = hold_out(_some(read_retrieval(options.retrieval, settings.max_chars), options.rows), settings)
    for name, rows in {**held_pairs, **held_groups}.items():
        write_beir(out / "dev" / f"dev-{name}", rows)
    names = [*sorted(options.evaluation.iterdir()), *sorted((out / "dev").iterdir())]
    exclusion = Exclusion.of(text for folder in names for text in _all_texts(folder))
    print(f"exclusion: {len(exclusion):,} texts of {len(names)} collections", flush=True)

    kept_pairs: Screened[Pair] = screen(pairs, exclusion, without=settings.unlicensed)
    kept_groups: Screened[Group] = screen(groups, exclusion, without=settings.unlicensed)
    english: dict[str, str] = {}
    groups = [replace(row, negatives=row.negatives[: settings.negatives]) for row in kept_groups.rows]
    for row in groups:
        source, target = row.language.split(">")
        english.update({row.query: row.query} if source == "en" else {})
        english.update({text: text for text in (*row.positives, *row.negatives)} if target == "en" else {})
    groups = [replace(row, language=row.language.split(">")[0]) for row in groups]
    groups += sentence_groups(kept_pairs.rows, settings, english)
    groups += long_groups(kept_pairs.rows, settings, english)

    write_rows(out / "pairs.jsonl.gz", kept_pairs.rows)
    write_rows(out / "groups.jsonl.gz", groups)
    import gzip

    with gzip.open(out / "english.jsonl.gz", "wt", encoding="utf-8") as file:
        for text, translation in english.items():
            file.write(json.dumps([text, "" if translation == text else translation], ensure_ascii=False) + "\n")
    told = report(
        {"pairs": kept_pairs.rows, "groups": groups},
        dropped={"pairs": kept_pairs.dropped, "groups": kept_groups.dropped},
        licences=settings.licences,
    )
    (out / "report.json").write_text(json.dumps(told.as_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    (out / "report.md").write_text(told.as_markdown(), encoding="utf-8")
    print(told.summary())


def _all_texts(folder: Path) -> Iterator[str]:
    """What the model reads of a collection, and its bodies without their titles."""
    yield from texts_of(read_beir(folder))
    for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]


def _some(rows: Iterator[Group], most: int) -> Iterator[Group]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row.source] += 1
        if not most or counts[row.source] <= most:
            yield row


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("parallel", "retrieval", "evaluation", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--settings", type=Path, default=Path("recipes/release-data.toml"))
    parser.add_argument("--rows", type=int, default=0, help="rows of a file at most, for a rehearsal; 0 = all")
    options = parser.parse_args()
    table = tomllib.loads(options.settings.read_text(encoding="utf-8"))
    settings = Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
    options.out.mkdir(parents=True, exist_ok=True)
    build(options, settings)


if __name__ == "__main__":
    main()
