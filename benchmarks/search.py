"""Exact search: ours beside a naive term-at-a-time scorer and scipy, same vectors, same run.

    python benchmarks/search.py                                    100k synthetic documents, a minute
    python benchmarks/search.py --vectors FILE --queries FILE      of `polylex encode`

Engines take turns, round by round, and a query counts with its best of --rounds: other programs on the machine
then disturb all engines alike, and rarely. Prints a table; writes benchmarks/results/search.json.

"naive" is the textbook: an inverted file, one score a document, a heap of k that every scored document is offered to.
"naive, partition" replaces the heap by numpy's argpartition, the quickest selection that one gets for a line of code.
"""

from __future__ import annotations

import argparse
import heapq
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import scipy.sparse as sp
import synthetic
from numba import njit
from numpy.typing import NDArray

from polylex import kernels
from polylex.index import Index
from polylex.storage import load_vectors
from polylex.vectors import SparseVectors

RESULTS = Path(__file__).resolve().parent / "results" / "search.json"
Top = tuple[NDArray[np.int64], NDArray[np.float32]]
Engine = Callable[[SparseVectors, int], Top]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _add(scores, starts, documents, weights, terms, query_weights):  # type: ignore[no-untyped-def]
    for i in range(len(terms)):
        for p in range(starts[terms[i]], starts[terms[i] + 1]):
            scores[documents[p]] += weights[p] * query_weights[i]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _heap(scores, k):  # type: ignore[no-untyped-def]
    heap = [(np.float32(0), 0)]
    heap.pop()
    for document in range(len(scores)):
        if scores[document] > 0:
            if len(heap) < k:
                heapq.heappush(heap, (scores[document], -document))
            else:
                heapq.heappushpop(heap, (scores[document], -document))
    return sorted(heap)[::-1]


def heaped(scores: NDArray[np.float32], k: int) -> Top:
    """The k highest by a heap, best first."""
    found = _heap(scores, k)
    return np.array([[-row for _, row in found]]), np.array([[score for score, _ in found]], np.float32)


def partitioned(scores: NDArray[np.float32], k: int) -> Top:
    """The k highest, best first."""
    some = np.argpartition(scores, -k)[-k:]
    some = some[np.argsort(-scores[some], kind="stable")]
    return some[None], scores[None, some]


def naive(matrix: sp.csr_array, best: Callable[[NDArray[np.float32], int], Top]) -> Engine:
    """Term at a time over one inverted file, one score a document, then the k `best`."""
    columns = matrix.tocsc()
    starts, documents, weights = columns.indptr.astype(np.int64), columns.indices, columns.data

    def top(query: SparseVectors, k: int) -> Top:
        scores = np.zeros(matrix.shape[0], np.float32)
        _add(scores, starts, documents, weights, query.terms, query.weights)
        return best(scores, k)

    return top


def scipy_csr(matrix: sp.csr_array) -> Engine:
    """Matrix times vector, then the k highest."""

    def top(query: SparseVectors, k: int) -> Top:
        dense = np.zeros(matrix.shape[1], np.float32)
        dense[query.terms] = query.weights
        return partitioned(matrix @ dense, k)

    return top


def cpu_seconds() -> float:
    """Of this process and all of its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(engines: dict[str, Engine], queries: SparseVectors, k: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds a query, engine by engine: of the best of `rounds` of each query."""
    single = [queries.take([row]) for row in range(len(queries))]
    fastest = {name: np.full(len(single), np.inf) for name in engines}
    for name in engines:
        engines[name](single[0], k)
    for _ in range(rounds):
        for name, top in engines.items():
            for row, query in enumerate(single):
                start = time.perf_counter()
                top(query, k)
                fastest[name][row] = min(fastest[name][row], time.perf_counter() - start)
    return {
        name: {
            "mean_ms": round(float(seconds.mean()) * 1e3, 4),
            "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 4),
            "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 4),
        }
        for name, seconds in fastest.items()
    }


def exactness(matrix: sp.csr_array, queries: SparseVectors, top: Engine, k: int) -> dict[str, float]:
    """Against every score by definition in float64: share of the k best found, greatest relative error of a score.

    A document counts as found too where its score equals that of the k-th best within the rounding of float32.
    """
    wide, found, worst = matrix.astype(np.float64), 0, 0.0
    for row in range(len(queries)):
        terms, weights = queries.row(row)
        dense = np.zeros(matrix.shape[1])
        dense[terms] = weights
        truth = wide @ dense
        rows, scores = top(queries.take([row]), k)
        limit = np.sort(truth)[-k] * (1 - 1e-6)
        found += int((truth[rows[0]] >= limit).sum())
        worst = max(worst, float(np.abs(scores[0] / truth[rows[0]] - 1).max()))
    return {"queries": len(queries), "k": k, "recall": found / (k * len(queries)), "greatest_relative_error": worst}


def build(folder: Path, documents: SparseVectors, vocab: Any) -> tuple[Path, dict[str, float]]:
    """Index documents with ids and a short text, as a user would."""
    path = folder / "index"
    ids = [f"document-{row}" for row in range(len(documents))]
    fields = [{"title": f"Title of {id}"} for id in ids]
    cpu, wall = cpu_seconds(), time.perf_counter()
    index = Index.build(path, documents, ids, fields, vocab=vocab)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    info = index.info()
    index.close()
    segments = sum(file.stat().st_size for file in path.glob("segment-*"))
    return path, {
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "segment_bytes": segments,
        "all_bytes": info.bytes,
        "segment_bytes_per_posting": round(segments / info.postings, 3),
    }


def quickest(action: Callable[[], object], rounds: int) -> float:
    """Milliseconds of the best of some runs."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1e3


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000, help="synthetic ones (100000)")
    parser.add_argument("--vectors", type=Path, help="documents, a file of `polylex encode`")
    parser.add_argument("--queries", type=Path, help="queries, a file of `polylex encode`")
    parser.add_argument("--limit", type=int, default=500, help="queries used (500)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def data(options: argparse.Namespace) -> tuple[SparseVectors, SparseVectors, Any]:
    """Documents, queries and the vocabulary that they share."""
    if options.vectors is None:
        vocab = synthetic.vocabulary()
        return (
            synthetic.vectors(options.documents, synthetic.DOCUMENT, vocab, 1),
            synthetic.vectors(options.limit, synthetic.QUERY, vocab, 2),
            vocab,
        )
    (documents, _), (queries, _) = load_vectors(options.vectors), load_vectors(options.queries)
    queries.require(documents.vocab, "the documents")
    vocab = _Nameless(documents.vocab, int(max(documents.terms.max(), queries.terms.max())) + 1)
    return documents, queries.take(range(min(options.limit, len(queries)))), vocab


class _Nameless:
    """A vocabulary of which only the size is known: a file of vectors does not hold the names."""

    pivot = source = ()

    def __init__(self, fingerprint: str, size: int) -> None:
        self.fingerprint, self._size = fingerprint, size

    def __len__(self) -> int:
        return self._size


def main() -> None:
    """Run everything and print it."""
    options = parse()
    documents, queries, vocab = data(options)
    statistics = synthetic.statistics(documents, queries)
    print(statistics, "compiled kernels:", kernels.compiled())
    matrix = sp.csr_array((documents.weights, documents.terms.astype(np.int32), documents.indptr),
                          shape=(len(documents), len(vocab)))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path, built = build(Path(folder), documents, vocab)
        print("build", built)
        with Index.open(path) as index:
            engines: dict[str, Engine] = {
                "polylex": lambda query, k: index.top(query, k),
                "polylex, 2 threads": lambda query, k: index.top(query, k, threads=2),
                "naive": naive(matrix, heaped),
                "naive, partition": naive(matrix, partitioned),
                "scipy": scipy_csr(matrix),
            }
            times = {f"k={k}": timed(engines, queries, k, options.rounds) for k in (10, 100)}
            exact = exactness(matrix, queries.take(range(min(50, len(queries)))), engines["polylex"], 10)
            batch = quickest(lambda: index.top(queries, 10), options.rounds) / len(queries)
        opened = round(quickest(lambda: Index.open(path).close(), 5), 2)
    mean = {name: times["k=10"][name]["mean_ms"] for name in engines}
    ratios = {name: round(mean[name] / mean["polylex"], 1) for name in ("naive", "naive, partition", "scipy")}
    result = {
        "provenance": record.provenance(("scipy", "numba")),
        "vectors": {"source": "synthetic" if options.vectors is None else options.vectors.name, **statistics},
        "compiled_kernels": kernels.compiled(),
        "build": built,
        "open_ms": opened,
        "search": times,
        "batch_ms_per_query": round(batch, 4),
        "times_faster_than": ratios,
        "exactness": exact,
    }
    record.write(options.out, result)
    for k, table in times.items():
        for name, values in table.items():
            print(f"{k:6} {name:20}", values)
    print("batch", result["batch_ms_per_query"], "ms a query; opening", opened, "ms")
    print("times faster than", ratios, "; exactness", exact)


if __name__ == "__main__":
    main()
