"""From ten thousand documents to ten million: time, memory and disk of ours and of others, on the same vectors.

    python benchmarks/scale.py                              everything: 40 minutes alone, 12 GB in --folder
    python benchmarks/scale.py --cases 10k 100k --without seismic "seismic, careful"                  two minutes
    python benchmarks/scale.py --render                     only write docs/scale.md and docs/scale.svg from the results

A case is so many synthetic documents, of 113 terms each or as many as follow the x: 10k, 100k, 1M, 5Mx30, 10Mx30. For
each, the vectors are written to --folder once. Every engine is built from them in a process of its own; then all are
opened in one process and take turns, round by round, and a query counts with its best round: what disturbs, disturbs
all alike. Times are CPU time of the whole process, so that threads of an engine count. A slow engine gets fewer of the
queries.

What is measured is in benchmarks/results/scale.json at once. The same command later goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
import numpy as np
import record
import synthetic
from report import source, table

from polylex import kernels
from polylex.index import Index
from polylex.plots import curves
from polylex.storage import load_vectors, save_vectors
from polylex.vectors import SparseVectors

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
CASES = ("10k", "100k", "1M", "1Mx30", "5Mx30", "10Mx30")
SEISMIC_LIMIT = 100_000  # documents: beyond, its build takes a quarter of an hour and more
FILE = 65_536  # documents of a file of vectors
QUERIES = 200
SHARES = {"0.1 %": 1, "10 %": 100, "90 %": 900}  # of the numbers 0 to 999
ABOUT = """# Scale

From ten thousand documents to ten million: what a search costs, and what an index costs to build and to keep.
This page is written by the command below; the raw figures are in `benchmarks/results/scale.json`.

{source}

Vectors are synthetic, drawn so that the numbers that decide the time of an exact search are those of real texts
(`benchmarks/synthetic.py`): 113 terms a document, 37.5 a query, 4.4 postings of a query's terms a document; cases
with x30 have 30 terms a document. Times are CPU milliseconds for a query on one thread, each query with its best round.
"""
BUDGET = 6.0  # seconds an engine may take for one k and round


@dataclass(frozen=True, slots=True)
class Case:
    """A collection: its name, how many documents, how many terms are drawn for each."""

    name: str
    documents: int
    drawn: float

    @classmethod
    def parse(cls, name: str) -> Case:
        """From a name such as 100k or 5Mx30."""
        match = re.fullmatch(r"(\d+)([kM])(?:x(\d+))?", name)
        if match is None:
            raise argparse.ArgumentTypeError(f"{name} is no case; write a number, k or M, and perhaps x and terms")
        count, unit, terms = match.groups()
        drawn = float(terms) * synthetic.DOCUMENT / 112.7 if terms else synthetic.DOCUMENT
        return cls(name, int(count) * {"k": 1_000, "M": 1_000_000}[unit], drawn)

    def engines(self, without: Sequence[str]) -> list[type[engines.Engine]]:
        """Those that take part: ours alone where documents have few terms, which is about how far ours goes."""
        if self.drawn < synthetic.DOCUMENT:
            return [engines.Polylex, engines.PolylexBytes]
        found = [e for e in (*engines.OURS, *engines.OTHERS) if engines.installed(e) and e.name not in without]
        return [e for e in found if not (issubclass(e, engines.Seismic) and self.documents > SEISMIC_LIMIT)]


# -- steps, each in a process of its own ----------------------------------------------------------


def generate(folder: Path, case: Case) -> dict[str, Any]:
    """Write vectors and numbers of a case; returns their statistics."""
    vocab, random, waiting, postings = synthetic.vocabulary(), np.random.default_rng(3), [], 0
    (folder / "vectors").mkdir(parents=True)

    def write() -> None:
        vectors = SparseVectors.concat(waiting)
        number = len(list((folder / "vectors").glob("*.npy")))
        save_vectors(folder / "vectors" / f"{number:05}.safetensors", vectors)
        np.save(folder / "vectors" / f"{number:05}.npy", random.integers(0, engines.NUMBERS, len(vectors)))
        waiting.clear()

    for part in synthetic.parts(case.documents, case.drawn, vocab, 1):
        waiting.append(part)
        postings += part.nnz
        if sum(map(len, waiting)) >= FILE:
            write()
    if waiting:
        write()
    queries = synthetic.vectors(QUERIES, synthetic.QUERY, vocab, 2)
    save_vectors(folder / "queries.safetensors", queries)
    return {
        "documents": case.documents,
        "postings": postings,
        "terms_per_document": round(postings / case.documents, 2),
        "queries": len(queries),
        "terms_per_query": round(queries.nnz / len(queries), 2),
    }


def parts(folder: Path) -> Iterator[engines.Part]:
    """What `generate` wrote."""
    for file in sorted((folder / "vectors").glob("*.safetensors")):
        yield load_vectors(file)[0], np.load(file.with_suffix(".npy"))


def build(folder: Path, name: str) -> dict[str, Any]:
    """Build one engine; CPU seconds without those of reading vectors, peak memory, bytes on disk."""
    engine = engines.BY_NAME[name](folder / name)
    engine.folder.mkdir()
    vocab, reading = synthetic.vocabulary(), [0.0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def read() -> Iterator[engines.Part]:
        source_of_parts = parts(folder)
        while True:
            start = time.thread_time()
            part = next(source_of_parts, None)
            reading[0] += time.thread_time() - start
            if part is None:
                return
            yield part

    cpu, wall = time.process_time(), time.perf_counter()
    engine.build(read(), vocab)
    cpu, wall = time.process_time() - cpu - reading[0], time.perf_counter() - wall
    return {
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "memory_before_bytes": 1024 * before,
        "bytes": _size(engine.folder),
        "vector_bytes": _size(engine.folder, "segment-*") if isinstance(engine, engines.Polylex) else None,
    }


def open_cold(folder: Path, name: str) -> dict[str, Any]:
    """Milliseconds to open our index in a fresh process, and to answer once, when the system has dropped its files."""
    index, (queries, _) = folder / name / "index", load_vectors(folder / "queries.safetensors")
    kernels.compiled()
    for file in index.iterdir():
        _drop(file)
    start = time.perf_counter()
    with Index.open(index) as opened:
        ready = time.perf_counter()
        opened.top(queries.take([0]))
        answered = time.perf_counter()
    return {"open_ms": round((ready - start) * 1e3, 2), "first_answer_ms": round((answered - ready) * 1e3, 1)}


def compare(folder: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Search with all engines in turn."""
    queries, _ = load_vectors(folder / "queries.safetensors")
    single = [queries.take([row]) for row in range(len(queries))]
    opened = [engines.BY_NAME[name](folder / _files_of(name)) for name in names]
    for engine in opened:
        engine.open()
    truth = [opened[0].top(query, 100) for query in single]
    result: dict[str, Any] = {"search": {}, "recall": {}, "filtered": {}}
    for k in (10, 100):
        tops = {engine.name: engine.top for engine in opened}
        result["search"][f"k={k}"] = timed(tops, single, k, rounds)
        result["recall"][f"k={k}"] = {engine.name: recall(engine.top, single, truth, k) for engine in opened}
    for share, below in SHARES.items():
        filtered = {engine.name: top for engine in opened if (top := engine.filtered(below)) is not None}
        result["filtered"][share] = timed(filtered, single, 10, rounds)
    ours = [engine for engine in opened if isinstance(engine, engines.Polylex)]
    result["batch_ms_per_query"] = {e.name: batch(e.index, queries, rounds) for e in ours}
    result["wall_ms_by_threads"] = {
        threads: timed({"polylex f32": _with_threads(ours[0].index, threads)}, single, 10, rounds, time.perf_counter)[
            "polylex f32"
        ]
        for threads in (1, 2)
    }
    return result


Top = Callable[[SparseVectors, int], engines.Rows]


def timed(
    tops: dict[str, Top],
    queries: Sequence[SparseVectors],
    k: int,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, dict[str, float]]:
    """Milliseconds a query: of the best of `rounds` of each query, as many queries as BUDGET allows, ten at least."""
    counts = {}
    for name, top in tops.items():
        top(queries[0], k)
        start = time.perf_counter()
        top(queries[1], k)
        counts[name] = max(10, min(len(queries), int(BUDGET / (time.perf_counter() - start))))
    fastest = {name: np.full(count, np.inf) for name, count in counts.items()}
    for _ in range(rounds):
        for name, top in tops.items():
            for row in range(counts[name]):
                start = clock()
                top(queries[row], k)
                fastest[name][row] = min(fastest[name][row], clock() - start)
    return {
        name: {
            "mean_ms": round(float(seconds.mean()) * 1e3, 4),
            "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 4),
            "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 4),
            "queries": len(seconds),
        }
        for name, seconds in fastest.items()
    }


def recall(top: Top, queries: Sequence[SparseVectors], truth: Sequence[engines.Rows], k: int) -> float:
    """Share of our exact k best that are found."""
    some = range(0, len(queries), max(1, len(queries) // 50))
    found = [len(np.intersect1d(top(queries[row], k), truth[row][:k])) for row in some]
    return round(sum(found) / sum(min(k, len(truth[row])) for row in some), 4)


def batch(index: Index, queries: SparseVectors, rounds: int) -> float:
    """CPU milliseconds a query when all come at one time."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        index.top(queries, 10)
        seconds.append(time.process_time() - start)
    return round(min(seconds) * 1e3 / len(queries), 4)


def _with_threads(index: Index, threads: int) -> Top:
    return lambda query, k: index.top(query, k, threads=threads)[0][0]


def _files_of(name: str) -> str:
    engine = engines.BY_NAME[name]
    return engines.SHARED.get(engine, engine).name


def _size(folder: Path, pattern: str = "*") -> int:
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def _drop(file: Path) -> None:
    """Ask the system to forget a file's pages."""
    if hasattr(os, "posix_fadvise"):
        with open(file, "rb") as opened, suppress(OSError):
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# -- running them ---------------------------------------------------------------------------------


def child(*arguments: object) -> Any:
    """One step in a fresh process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def run(
    case: Case, folder: Path, result: dict[str, Any], keep: Callable[[], None], options: argparse.Namespace
) -> None:
    """All steps of a case, unless `result` has them."""
    names = [engine.name for engine in case.engines(options.without)]
    built = [name for name in names if _files_of(name) == name]
    missing = [name for name in built if name not in result.get("build", {})]
    if "search" in result and not missing:
        return
    shutil.rmtree(folder, ignore_errors=True)  # files of a run that was stopped
    result["vectors"] = child("--step", "generate", folder, case.name)
    for name in built:
        result.setdefault("build", {})[name] = child("--step", "build", folder, name)
        print(case.name, "build", name, result["build"][name], flush=True)
        keep()
    result["open"] = {
        name: child("--step", "open", folder, name)
        for name in built
        if issubclass(engines.BY_NAME[name], engines.Polylex)
    }
    result |= child("--step", "compare", folder, options.rounds, *names)
    keep()
    shutil.rmtree(folder)


def step(name: str, folder: Path, *rest: str) -> Any:
    """One step, by its name."""
    if name == "generate":
        return generate(folder, Case.parse(rest[0]))
    if name == "compare":
        return compare(folder, rest[1:], int(rest[0]))
    return {"build": build, "open": open_cold}[name](folder, rest[0])


# -- the page -------------------------------------------------------------------------------------


def render(results: dict[str, Any]) -> tuple[str, str]:
    """docs/scale.md and docs/scale.svg."""
    cases = {name: case for name, case in results["cases"].items() if "search" in case}
    page = [
        ABOUT.format(source=source(results)),
        "![CPU time of a query by the number of documents](scale.svg)",
        "",
    ]
    for k in ("k=10", "k=100"):
        page += [f"## Searching, {k}", "", *_search_table(cases, k), ""]
    page += ["## Searching with a filter, k=10", "", *_filter_table(cases), ""]
    page += ["## Building, opening", "", *_build_table(cases), "", *_open_table(cases), ""]
    lines = {
        name: [
            (case["vectors"]["documents"], each["mean_ms"] * 1e5 / case["vectors"]["documents"])
            for label, case in cases.items()
            if "x" not in label and (each := case["search"]["k=10"].get(name))
        ]
        for name in ("polylex f32", "polylex u8", "qdrant-edge", "naive, partition")
    }
    lines["polylex f32, 30 terms"] = [
        (
            case["vectors"]["documents"],
            case["search"]["k=10"]["polylex f32"]["mean_ms"] * 1e5 / case["vectors"]["documents"],
        )
        for label, case in cases.items()
        if "x30" in label
    ]
    figure = curves(
        "CPU time of an exact search, k=10",
        {name: points for name, points in lines.items() if points},
        axes=("documents", "milliseconds a query for every 100,000 documents"),
    )
    return "\n".join(page), figure


def _search_table(cases: dict[str, Any], k: str) -> list[str]:
    lines = []
    for label, case in cases.items():
        ours = case["search"][k]["polylex f32"]["mean_ms"]
        for name, each in case["search"][k].items():
            times = [f"{each[part]:.3f}" for part in ("mean_ms", "p50_ms", "p99_ms")]
            lines.append([label, name, *times, f"{each['mean_ms'] / ours:.2f}×", case["recall"][k][name]])
    return table(["documents", "engine", "ms", "p50", "p99", "time of polylex f32", "recall"], lines)


def _filter_table(cases: dict[str, Any]) -> list[str]:
    lines = []
    for label, case in cases.items():
        for name in case["filtered"]["10 %"]:
            found = [f"{case['filtered'][share][name]['mean_ms']:.3f}" for share in SHARES]
            lines.append([label, name, *found, f"{case['search']['k=10'][name]['mean_ms']:.3f}"])
    return table(["documents", "engine", *(f"{share} pass, ms" for share in SHARES), "no filter, ms"], lines)


def _build_table(cases: dict[str, Any]) -> list[str]:
    lines = []
    for label, case in cases.items():
        postings, documents = case["vectors"]["postings"], case["vectors"]["documents"]
        for name, each in case["build"].items():
            vectors = each["vector_bytes"] or each["bytes"]
            lines.append(
                [
                    label,
                    name,
                    each["cpu_seconds"],
                    f"{documents / max(each['cpu_seconds'], 1e-9) * 60:,.0f}",
                    f"{each['peak_memory_bytes'] / 2**20:,.0f}",
                    f"{each['bytes'] / 2**20:,.0f}",
                    f"{vectors / postings:.2f}",
                ]
            )
    head = [
        "documents",
        "engine",
        "CPU s",
        "documents per CPU minute",
        "peak memory, MiB",
        "disk, MiB",
        "bytes per posting",
    ]
    return table(head, lines)


def _open_table(cases: dict[str, Any]) -> list[str]:
    lines = []
    for label, case in cases.items():
        for name, each in case["open"].items():
            lines.append([label, name, each["open_ms"], each["first_answer_ms"], case["batch_ms_per_query"][name]])
    return table(
        ["documents", "engine", "open, files not cached, ms", "first answer, ms", "ms a query of a batch"], lines
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=Case.parse, default=[Case.parse(name) for name in CASES])
    parser.add_argument("--folder", type=Path, help="where vectors and indexes are written (a temporary folder)")
    parser.add_argument("--without", nargs="+", default=[], metavar="ENGINE", help="leave these out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true", help="only write the page")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, *rest = options.step
        print(json.dumps(step(name, Path(folder), *rest)))
        return
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cases": {}}

    def keep() -> None:
        results["provenance"] = record.provenance(("scipy", "numba", "qdrant-edge-py", "pyseismic-lsr"))
        record.write(options.out, results)

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for case in [] if options.render else options.cases:
            start = time.perf_counter()
            run(case, Path(folder) / case.name, results["cases"].setdefault(case.name, {}), keep, options)
            print(case.name, f"{time.perf_counter() - start:.0f} s", flush=True)
    if options.out == RESULTS:
        page, figure = render(results)
        (ROOT / "docs" / "scale.md").write_text(page, encoding="utf-8")
        (ROOT / "docs" / "scale.svg").write_text(figure, encoding="utf-8")


if __name__ == "__main__":
    main()
