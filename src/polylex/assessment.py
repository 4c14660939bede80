"""Assessment: systems on collections, measured, compared, and written down so that others can check it.

    assessment = assess([Sparse(load()), RunFile("bm25.run")], [read_beir("scifact")], ["nDCG@10", "R@100"])
    assessment.results[0].evaluation.mean(), assessment.comparisons[0].holm
    assessment.write("results")        # results.json, per-query.tsv, runs/

The first system is the one in question; the others are what it is compared with.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from polylex.collection import Collection
from polylex.errors import BadInput
from polylex.evaluation import DEFAULT_MEASURES, Evaluation, LanguageMatrix, depth, evaluate, language_matrix
from polylex.significance import DRAWS, Comparison, compare, holm
from polylex.systems import Outcome, System
from polylex.trec import write_run

FORMAT, VERSION = "polylex-evaluation", 1
_PACKAGES = ("polylex", "numpy", "ir-measures", "onnxruntime", "tokenizers")


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One system on one collection.

    system, collection  names
    limits              what pruning the system used, by name; empty for none
    matrix              per measure, by language of query and document; empty where documents were left out, and for
                        pruned variants of the first system
    languages           those that the macro mean is over; `absent` are those of them in which no query is judged
    seconds             for all of it
    """

    system: str
    collection: str
    limits: Mapping[str, float]
    outcome: Outcome
    evaluation: Evaluation
    matrix: Mapping[str, LanguageMatrix]
    languages: tuple[str, ...]
    absent: tuple[str, ...]
    seconds: float

    def macro(self) -> dict[str, float]:
        """Of every measure the mean over `languages`; an absent one counts 0."""
        return self.evaluation.macro(self.languages, absent_as_zero=True)

    @property
    def search_ms(self) -> float | None:
        """Milliseconds a query on one core, encoding not counted; None where unknown."""
        seconds = self.outcome.search_seconds
        return 1e3 * seconds / max(1, len(self.outcome.run)) if seconds is not None else None

    def to_dict(self) -> dict[str, Any]:
        """What results.json keeps of it."""
        outcome = self.outcome
        return {
            "mean": self.evaluation.mean(),
            "macro": self.macro(),
            "macro_languages": list(self.languages),
            "absent_languages": list(self.absent),
            "by_language": self.evaluation.by_language(),
            "matrix": {measure: matrix.to_dict() for measure, matrix in self.matrix.items()},
            "missing_queries": list(self.evaluation.missing),
            "unjudged_queries": len(self.evaluation.unjudged),
            "pruning": dict(self.limits),
            "document_terms": outcome.document_terms,
            "query_terms": outcome.query_terms,
            "index_bytes": outcome.index_bytes,
            "texts_encoded_now": outcome.encoded,
            "encoding_seconds": outcome.encoding_seconds,
            "search_seconds": outcome.search_seconds,
            "search_ms_per_query": self.search_ms,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison of the first system with another on one collection.

    holm     p_t, p_randomisation, p_bootstrap, each corrected by Holm's method for all systems and measures here
    is_same  both ranked every query alike: the same run twice
    """

    collection: str
    first: str
    second: str
    comparison: Comparison
    holm: Mapping[str, float]
    is_same: bool

    def to_dict(self) -> dict[str, Any]:
        """What results.json keeps of it."""
        found = self.comparison
        return {
            "first": self.first,
            "second": self.second,
            "measure": found.measure,
            "queries": found.queries,
            "difference": found.difference,
            "interval_95": list(found.interval),
            "wins": found.wins,
            "losses": found.losses,
            "p": {name: getattr(found, name) for name in _TESTS},
            "holm": dict(self.holm),
            "same_rankings": self.is_same,
        }


_TESTS = ("p_t", "p_randomisation", "p_bootstrap")


@dataclass(frozen=True, slots=True, eq=False)
class Assessment:
    """All results, one for each system on each collection, and the comparisons of the first system with the others."""

    measures: tuple[str, ...]
    systems: tuple[str, ...]
    collections: tuple[Collection, ...]
    results: tuple[Result, ...]
    comparisons: tuple[Judged, ...]
    settings: Mapping[str, Any]

    def result(self, system: str, collection: str) -> Result:
        """One of the results. Raises BadInput for names that are not there."""
        for result in self.results:
            if (result.system, result.collection) == (system, collection):
                return result
        raise BadInput(f"{system!r} was not tried on {collection!r}")

    def mean(self, system: str) -> dict[str, float]:
        """Of every measure the mean over all collections, each counting the same."""
        means = [self.result(system, collection.name).evaluation.mean() for collection in self.collections]
        return {measure: math.fsum(each[measure] for each in means) / len(means) for measure in self.measures}

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **self.settings,
            "measures": list(self.measures),
            "systems": list(self.systems),
            "mean_over_collections": {system: self.mean(system) for system in self.systems},
            "collections": {collection.name: self._of(collection) for collection in self.collections},
        }

    def _of(self, collection: Collection) -> dict[str, Any]:
        judged = [query for query in collection.queries if query.id in collection.judgments]
        spoken = sorted({query.language for query in collection.queries})
        return {
            "documents": len(collection.ids) or None,
            "queries": len(collection.queries),
            "judged_queries": len(collection.judgments),
            "unknown_judgments": collection.unknown_judgments(),
            "judged_by_language": {name: sum(query.language == name for query in judged) for name in spoken},
            "systems": {system: self.result(system, collection.name).to_dict() for system in self.systems},
            "comparisons": [each.to_dict() for each in self.comparisons if each.collection == collection.name],
        }

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write results.json, per-query.tsv and the runs into a folder, creating it; the paths.

        Each file is written whole or not at all; runs of earlier results there are removed. Raises BadInput for an id
        with white space, which a run cannot hold.
        """
        root = Path(folder)
        (root / "runs").mkdir(parents=True, exist_ok=True)
        for stale in (root / "runs").glob("*/*.run"):
            stale.unlink()
        written = []
        for result in self.results:
            path = root / "runs" / file_name(result.system) / f"{file_name(result.collection)}.run"
            path.parent.mkdir(exist_ok=True)
            write_run(path, result.outcome.run, tag=file_name(result.system))
            written.append(path)
        write_text(root / "per-query.tsv", "".join(self._rows()))
        write_text(root / "results.json", json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        return [*written, root / "per-query.tsv", root / "results.json"]

    def _rows(self) -> Iterator[str]:
        """A line for every system and judged query."""
        yield "\t".join(("collection", "system", "query", "language", *self.measures)) + "\n"
        for result in self.results:
            found = result.evaluation
            for query, language, values in zip(found.queries, found.languages, found.values.tolist(), strict=True):
                cells = (result.collection, result.system, query, language, *map(repr, values))
                yield "\t".join(" ".join(cell.split()) for cell in cells) + "\n"


def assess(
    systems: Sequence[System],
    collections: Sequence[Collection],
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    k: int | None = None,
    languages: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    on_start: Callable[[str, str], None] | None = None,
) -> Assessment:
    """Try every system on every collection.

    k          documents a run holds for each query; by default as many as the measures look at, at least 100
    languages  those that macro means are over; by default all that the collection has queries in, judged or not. One
               without a judged query counts 0 and is named
    draws      of the randomisation test and the bootstrap; seed: of both
    on_start   called with the names of system and collection before each try

    Raises BadInput for two systems or collections with one name, and for what `evaluate` refuses; what a system raises
    stops the whole, since a table with a hole would be read as one without.
    """
    _check_names("system", [system.name for system in systems])
    _check_names("collection", [collection.name for collection in collections])
    if languages is not None:
        _check_names("language", languages)
    needed = depth(measures)  # refuses a wrong measure now, not after hours of encoding
    for collection in collections:
        if not collection.judgments:
            raise BadInput(f"no query of {collection.name} is judged, so there is no mean; check its qrels")
    wanted = k or needed
    results: list[Result] = []
    comparisons: list[Judged] = []
    for collection in collections:
        here: list[Result] = []
        for system in systems:
            if on_start is not None:
                on_start(system.name, collection.name)
            here.append(
                _try(system, collection, measures, wanted, languages, with_matrix=not here or not _limits(system))
            )
        results += here
        comparisons += _compared(here, measures, draws, seed)
    settings = {"depth": wanted, "draws": draws, "seed": seed, **circumstances()}
    return Assessment(
        tuple(measures),
        tuple(system.name for system in systems),
        tuple(collections),
        tuple(results),
        tuple(comparisons),
        settings,
    )


def _check_names(kind: str, names: Sequence[str]) -> None:
    if not names:
        raise BadInput(f"no {kind} given; name one at least")
    files = [file_name(name) for name in names]
    for name, file in zip(names, files, strict=True):
        if files.count(file) > 1:
            raise BadInput(f"two {kind}s are called {name!r}; results are told apart by name, so give one another")


def _limits(system: System) -> dict[str, float]:
    """What pruning a system uses; most have none."""
    prune = getattr(system, "prune", None)
    return prune.limits() if prune else {}


def _try(
    system: System,
    collection: Collection,
    measures: Sequence[str],
    k: int,
    languages: Sequence[str] | None,
    *,
    with_matrix: bool,
) -> Result:
    start = time.perf_counter()
    outcome = system.search(collection, k)
    evaluation = evaluate(outcome.run, collection.judgments, measures, languages=collection.query_languages)
    over = tuple(languages or sorted({*collection.query_languages.values(), *evaluation.languages}))
    return Result(
        system=system.name,
        collection=collection.name,
        limits=_limits(system),
        outcome=outcome,
        evaluation=evaluation,
        matrix=language_matrix(outcome.run, collection, measures) if with_matrix and collection.ids else {},
        languages=over,
        absent=evaluation.absent(over),
        seconds=time.perf_counter() - start,
    )


def _compared(results: Sequence[Result], measures: Sequence[str], draws: int, seed: int) -> list[Judged]:
    """The first result beside each of the others, corrected together."""
    first = results[0]
    pairs = [
        (other, compare(first.evaluation, other.evaluation, measure, draws=draws, seed=seed))
        for other in results[1:]
        for measure in measures
    ]
    corrected = {name: holm([getattr(comparison, name) for _, comparison in pairs]) for name in _TESTS}
    return [
        Judged(
            collection=first.collection,
            first=first.system,
            second=other.system,
            comparison=comparison,
            holm={name: corrected[name][at] for name in _TESTS},
            is_same=_is_same(first.outcome, other.outcome),
        )
        for at, (other, comparison) in enumerate(pairs)
    ]


def _is_same(first: Outcome, second: Outcome) -> bool:
    def rankings(outcome: Outcome) -> dict[str, list[str]]:
        return {query: [name for name, _ in ranking] for query, ranking in outcome.run.items() if ranking}

    return rankings(first) == rankings(second)


# -- files and circumstances -------------------------------------------------------------------------


def circumstances() -> dict[str, Any]:
    """When and with what something was measured: date, versions, machine."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def file_name(name: str) -> str:
    """The name of a system or collection as a file can have it."""
    return "".join(char if char.isalnum() or char in "._+=-" else "-" for char in name) or "-"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
