"""Why the search kernel is C: the same scorer in C, numba and numpy, from a fresh process and warm.

    python benchmarks/kernel_choice.py

For each: seconds from the start of a process to its first result (the best of five), and milliseconds a query once
it runs (each query's best of three). For numba with its cache on disk cold and warm.
Writes benchmarks/results/kernel_choice.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record
import synthetic

from polylex.index import Index
from polylex.storage import load_vectors, save_vectors

RESULTS = Path(__file__).resolve().parent / "results" / "kernel_choice.json"
KERNELS = ("c", "numba", "numpy")
STARTS = 5

# What the fresh process runs. The clock starts before it does: `since` is time.time() in the parent.
CHILD = """
import sys, time, json
kernel, folder, since, benchmarks, count = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], int(sys.argv[5])
from polylex import kernels
from polylex.index import Index
from polylex.storage import load_vectors
index = Index.open(folder + "/index")
queries, _ = load_vectors(folder + "/queries.safetensors")
if kernel == "numba":
    sys.path.insert(0, benchmarks)
    from numba_kernel import arrays, top
    segments = arrays(index._table.segments)
    search = lambda query: top(segments, query.terms, query.weights, 10)
else:
    if kernel == "numpy":
        kernels._library = None
    assert kernels.compiled() == (kernel == "c")
    search = lambda query: [(r, s) for r, s in zip(*(column[0].tolist() for column in index.top(query, 10)))]
single = [queries.take([row]) for row in range(max(1, count))]
first = search(single[0])
ready = time.time() - since
best = [float("inf")] * count
for _ in range(3):
    for row in range(count):
        start = time.perf_counter()
        search(single[row])
        best[row] = min(best[row], time.perf_counter() - start)
print(json.dumps({"first_result_s": ready, "ms_per_query": sum(best) * 1e3 / count if count else None, "hits": first}))
"""


def child(kernel: str, folder: Path, cache: Path, count: int) -> dict[str, Any]:
    """Run one fresh process; `count` queries are timed after the first."""
    arguments = [kernel, str(folder), str(time.time()), str(Path(__file__).resolve().parent), str(count)]
    output = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def measure(folder: Path, queries: int) -> dict[str, dict[str, Any]]:
    """All kernels on the index in `folder`; they must agree."""
    results: dict[str, dict[str, Any]] = {}
    hits = []
    for kernel in KERNELS:
        cache = folder / f"cache-{kernel}"
        cold = child(kernel, folder, cache, 0)
        warm = [child(kernel, folder, cache, 0)["first_result_s"] for _ in range(STARTS)]
        running = child(kernel, folder, cache, queries if kernel != "numpy" else min(queries, 50))
        hits.append(running["hits"])
        results[kernel] = {
            "first_result_s": round(min(warm), 3),
            "ms_per_query": round(running["ms_per_query"], 4),
        }
        if kernel == "numba":
            results[kernel]["first_result_s_without_cache"] = round(cold["first_result_s"], 3)
    assert hits[0] == hits[1] == hits[2], "the kernels disagree"
    return results


def main() -> None:
    """Build a synthetic index, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    vocab = synthetic.vocabulary()
    documents = synthetic.vectors(options.documents, synthetic.DOCUMENT, vocab, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Index.build(folder / "index", documents, [f"d{row}" for row in range(len(documents))], vocab=vocab).close()
        save_vectors(folder / "queries.safetensors", synthetic.vectors(options.queries, synthetic.QUERY, vocab, 2))
        assert len(load_vectors(folder / "queries.safetensors")[0]) == options.queries
        results = measure(folder, options.queries)
    record.write(
        options.out,
        {"provenance": record.provenance(("numba",)), "documents": options.documents, "kernels": results},
    )
    for kernel, values in results.items():
        print(f"{kernel:6}", values)


if __name__ == "__main__":
    main()
