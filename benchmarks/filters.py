"""What a filter costs, and what it saves: searches in which 0.1 %, 10 % and 90 % of the documents may be hits.

    python benchmarks/filters.py                           100k synthetic documents, a minute
    python benchmarks/filters.py --documents 1000000       ten minutes, 2 GB of disk

Documents have a text of 360 characters, one of 40 languages, a number from 0 to 999, and their own title. Prints a
table; writes benchmarks/results/filters.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import synthetic
from numpy.typing import NDArray

from polylex.builder import IndexBuilder
from polylex.index import Index
from polylex.vectors import SparseVectors

RESULTS = Path(__file__).resolve().parent / "results" / "filters.json"
TEXT = "lorem ipsum dolor " * 20
CHUNK = 50_000
# A filter, another one of the same kind, and which documents pass the first.
FILTERS: dict[str, tuple[str, str, Callable[[NDArray[np.int64]], NDArray[np.bool_]]]] = {
    "0.1 %": ("number = 7", "number = 8", lambda numbers: numbers == 7),
    "10 %": ("number < 100", "number >= 900", lambda numbers: numbers < 100),
    "90 %": ("number < 900", "not number < 100", lambda numbers: numbers < 900),
}


def build(path: Path, documents: int) -> NDArray[np.int64]:
    """An index, and the number of each document."""
    vocab, numbers = synthetic.vocabulary(), np.random.default_rng(3).integers(0, 1000, documents)
    with IndexBuilder(path, vocab) as builder:
        for start in range(0, documents, CHUNK):
            rows = range(start, min(start + CHUNK, documents))
            fields = [
                {"title": f"Title of {row}", "text": TEXT, "lang": f"l{row % 40}", "number": int(numbers[row])}
                for row in rows
            ]
            vectors = synthetic.vectors(len(rows), synthetic.DOCUMENT, vocab, start)
            builder.add([f"document-{row}" for row in rows], fields, vectors)
        builder.finish()
    return numbers


def milliseconds(action: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    action()
    return round((time.perf_counter() - start) * 1e3, 3)


def filtering(path: Path) -> dict[str, dict[str, float]]:
    """Milliseconds to evaluate a filter: in a new process' state, a second one on the same field, one used before."""
    found: dict[str, dict[str, float]] = {}
    every_value = ("title = 'Title of 7'", "title like '%77'", None)
    for name, (first, second, _) in {**FILTERS, "every value another": every_value}.items():
        with Index.open(path) as index:
            found[name] = {
                "first_ms": milliseconds(lambda index=index, where=first: index.matching(where)),
                "another_ms": milliseconds(lambda index=index, where=second: index.matching(where)),
                "again_ms": milliseconds(lambda index=index, where=second: index.matching(where)),
                "facets_ms": milliseconds(lambda index=index: index.facets(["number"])),
            }
    return found


def searching(index: Index, queries: SparseVectors, k: int, rounds: int) -> dict[str, float]:
    """Mean milliseconds a query, the best of some rounds of each, on one thread; "all" has no filter."""
    allowed = {"all": None, **{name: index.matching(where) for name, (where, _, _) in FILTERS.items()}}
    single = [queries.take([row]) for row in range(len(queries))]
    best = {name: np.full(len(single), np.inf) for name in allowed}
    for _ in range(rounds):
        for name, bits in allowed.items():
            for row, query in enumerate(single):
                best[name][row] = min(
                    best[name][row], milliseconds(lambda query=query, bits=bits: index.top(query, k, allowed=bits))
                )
    return {name: round(float(times.mean()), 4) for name, times in best.items()}


def inexact(index: Index, queries: SparseVectors, numbers: NDArray[np.int64], k: int) -> int:
    """Queries whose filtered hits are not the best of all hits that pass."""
    wrong = 0
    rows, scores = index.top(queries, len(index))
    for where, _, passes in FILTERS.values():
        pass_all = passes(numbers)
        found, found_scores = index.top(queries, k, allowed=index.matching(where))
        for query in range(len(queries)):
            there = (rows[query] >= 0) & pass_all[rows[query]]
            expected, expected_scores = rows[query][there][:k], scores[query][there][:k]
            kept = found[query] >= 0
            wrong += not (
                np.array_equal(found[query][kept], expected)
                and np.array_equal(found_scores[query][kept], expected_scores)
            )
    return wrong


def show(result: dict[str, Any]) -> None:
    """Print a table."""
    print(f"{result['documents']:,} documents; milliseconds")
    print(f"{'pass':>20} {'first':>9} {'another':>9} {'again':>9} {'search k=10':>12}")
    print(f"{'all':>20} {'':9} {'':9} {'':9} {result['search_ms']['all']:12.3f}")
    for name, times in result["filter"].items():
        search = f"{result['search_ms'][name]:12.3f}" if name in result["search_ms"] else ""
        print(f"{name:>20} {times['first_ms']:9.1f} {times['another_ms']:9.2f} {times['again_ms']:9.3f} {search}")
    print(f"inexact: {result['inexact']} of {result['checked']}")


def main() -> None:
    """Build, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    queries = synthetic.vectors(options.queries, synthetic.QUERY, synthetic.vocabulary(), 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        numbers = build(path, options.documents)
        result: dict[str, Any] = {**record.provenance(), "documents": options.documents, "filter": filtering(path)}
        with Index.open(path) as index:
            checked = queries.take(range(min(10, len(queries))))
            result["search_ms"] = searching(index, queries, 10, options.rounds)
            result["checked"] = len(checked) * len(FILTERS)
            result["inexact"] = inexact(index, checked, numbers, 100)
    show(result)
    record.write(options.out, result)


if __name__ == "__main__":
    main()
