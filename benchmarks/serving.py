"""`polylex serve` under load, next to the same model behind sentence-transformers and a plain FastAPI application.

    python benchmarks/serving.py --float TORCH_FOLDER                   1, 4 and 16 clients, both servers in turns
    python benchmarks/serving.py --soak 10                              ten minutes of mixed load: is memory flat?
    python benchmarks/serving.py --sizes 1000 10000 100000              memory and CPU by documents

Both servers hold the same 100,000 documents, each on loopback and with the settings that it comes with. Documents are
made from encoded passages in 41 languages (two halves of passages put together, weights jittered), as encoding that
many would take an hour. Every query is another one: a few words of a passage, so that no cache helps.

The peer is what people write in an afternoon: SparseEncoder.encode_query, a scipy matrix times the vector, the ten best
by argpartition. It is made of the very weights of TORCH_FOLDER (see encoding.py) and lacks the echo, so that its matrix
has the English terms only.

Clients are threads of this process, each with one connection, and ask again as soon as they are answered.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
from pydantic import BaseModel

import polylex
from polylex.demo import DEMO_LANGUAGES, load_udhr
from polylex.index import Index
from polylex.vectors import SparseVectors

RESULTS = Path(__file__).resolve().parent / "results"
CLIENTS = (1, 4, 16)
_K = 10
Ask = Callable[[http.client.HTTPConnection, str], int]


# -- data --------------------------------------------------------------------------------------------


def passages() -> list[str]:
    """A third of the declaration, in the demo's languages."""
    return [document.text for document in load_udhr(list(DEMO_LANGUAGES))][::3]


def documents_of(encoded: SparseVectors, count: int) -> SparseVectors:
    """As many vectors as asked for, each made of about half of the terms of two encoded passages."""
    random = np.random.default_rng(0)

    def one() -> tuple[Any, Any]:
        halves = []
        for row in random.integers(0, len(encoded), 2).tolist():
            terms, weights = encoded.row(row)
            keep = random.random(len(terms)) < 0.5
            halves.append((terms[keep], weights[keep]))
        terms, first = np.unique(np.concatenate([half[0] for half in halves]), return_index=True)
        weights = np.concatenate([half[1] for half in halves])[first]
        return terms, (weights * np.exp(random.normal(0, 0.2, len(weights)))).astype(np.float32)

    return SparseVectors.from_rows((one() for _ in range(count)), encoded.vocab)


def queries(texts: list[str]) -> Iterator[str]:
    """A few words of a passage, without end; hardly one comes twice."""
    random = np.random.default_rng(1)
    while True:
        words = texts[int(random.integers(len(texts)))].split()
        if len(words) < 12:  # a script without spaces
            line = "".join(words)
            start = int(random.integers(max(1, len(line) - 16)))
            yield line[start : start + int(random.integers(6, 16))]
        else:
            start = int(random.integers(len(words) - 8))
            yield " ".join(words[start : start + int(random.integers(3, 9))])


def prepare(folder: Path, count: int) -> tuple[Path, Path]:
    """Our index, and the same documents as a matrix of the English terms for the peer."""
    import scipy.sparse as sp

    encoder = polylex.load()
    encoded = encoder.encode(passages(), kind="document")
    documents = documents_of(encoded, count)
    path, pivot = folder / "index", len(encoder.vocab.pivot)
    fields = [
        {"title": f"Title of document {row}", "group": f"g{row % 20}", "text": "marriage"} for row in range(count)
    ]
    Index.build(
        path, documents, [f"document-{row}" for row in range(count)], fields,
        vocab=encoder.vocab, encoder=encoder.name, weights_id=encoder.weights_id,
    ).close()  # fmt: skip
    english = documents.select(documents.terms < pivot)
    matrix = sp.csr_array(
        (english.weights, english.terms.astype(np.int32), english.indptr), shape=(count, pivot), dtype=np.float32
    )
    sp.save_npz(folder / "matrix.npz", matrix, compressed=False)
    return path, folder / "matrix.npz"


# -- the peer ----------------------------------------------------------------------------------------


class PeerSearch(BaseModel):
    """What the peer is asked."""

    query: str
    k: int = _K


def serve_peer(model: str, matrix_file: str, port: int) -> None:
    """The afternoon's application."""
    import scipy.sparse as sp
    import torch
    import uvicorn
    from encoding import peer_of
    from fastapi import FastAPI

    from polylex.model import SparseModel

    encoder = peer_of(SparseModel.from_pretrained(model), torch.float32)
    matrix = sp.load_npz(matrix_file)

    app = FastAPI()

    @app.post("/search")
    def search(request: PeerSearch) -> dict[str, Any]:
        vector = encoder.encode_query(request.query, convert_to_sparse_tensor=False).numpy()
        scores = matrix @ vector
        best = np.argpartition(scores, -request.k)[-request.k :]
        best = best[np.argsort(-scores[best])]
        return {
            "hits": [
                {"id": f"document-{row}", "score": float(scores[row]), "title": f"Title of document {row}"}
                for row in best.tolist()
            ]
        }

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(app, port=port, log_level="warning")


class Server:
    """A server in a process of its own."""

    def __init__(self, *command: object) -> None:
        self.port = _free_port()
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command), "--port", str(self.port)], stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Server:
        for _ in range(600):
            try:
                connection = self.connect()
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode}")
            time.sleep(0.2)
        raise SystemExit("the server does not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- load --------------------------------------------------------------------------------------------


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> int:
    """Ask and read the answer whole."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def ours(connection: http.client.HTTPConnection, query: str) -> int:
    """A search of ours."""
    return post(connection, "/search", {"query": query, "k": _K, "fields": ["title"]})


def theirs(connection: http.client.HTTPConnection, query: str) -> int:
    """A search of the peer."""
    return post(connection, "/search", {"query": query, "k": _K})


def load(server: Server, ask: Ask, clients: int, seconds: float, texts: Iterator[str]) -> list[float]:
    """Seconds of every request that some clients made, one after another each, for a while."""
    taken: list[list[float]] = [[] for _ in range(clients)]
    refused: list[str] = []
    lock, end = threading.Lock(), time.perf_counter() + seconds

    def client(times: list[float]) -> None:
        connection = server.connect()
        while (started := time.perf_counter()) < end:
            with lock:
                query = next(texts)
            if ask(connection, query) != 200:
                refused.append(query)
                return
            times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, args=(times,)) for times in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        raise SystemExit(f"a search failed: {refused[0]!r}")
    return list(itertools.chain.from_iterable(taken))


def summary(times: list[float], seconds: float) -> dict[str, float]:
    """Rate and latency."""
    return {
        "queries": len(times),
        "queries_per_second": round(len(times) / seconds, 1),
        "p50_ms": round(float(np.percentile(times, 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 2),
    }


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Both servers in turns."""
    index, matrix = prepare(folder, options.documents)
    texts = queries(passages())
    systems = {
        "polylex": (("-m", "polylex", "serve", index, "-q"), ours),
        "fastapi": ((__file__, "--peer", options.float, matrix), theirs),
    }
    servers = {name: Server(*command) for name, (command, _) in systems.items()}
    result: dict[str, Any] = {}
    try:
        for name, server in servers.items():
            server.__enter__()
            load(server, systems[name][1], 4, 2.0, texts)  # warm
        for clients in CLIENTS:
            times: dict[str, list[float]] = {name: [] for name in systems}
            for _ in range(options.rounds):
                for name, server in servers.items():
                    times[name] += load(server, systems[name][1], clients, options.seconds, texts)
            row = {name: summary(found, options.seconds * options.rounds) for name, found in times.items()}
            row["times_faster"] = round(row["polylex"]["queries_per_second"] / row["fastapi"]["queries_per_second"], 2)  # type: ignore[assignment]
            result[f"{clients} clients"] = row
            print(clients, json.dumps(row), flush=True)
    finally:
        for server in servers.values():
            server.__exit__()
    memory = {"documents": options.documents, "seconds": options.seconds, "rounds": options.rounds}
    head = record.provenance(("torch", "sentence-transformers", "fastapi", "starlette", "uvicorn"))
    record.write(options.out or RESULTS / "serving.json", {"provenance": head, **memory, "load": result})


# -- soak --------------------------------------------------------------------------------------------


def soak(options: argparse.Namespace, folder: Path) -> None:
    """Mixed load for some minutes; what memory does meanwhile."""
    index, _ = prepare(folder, options.documents)
    texts = queries(passages())
    counts: dict[str, int] = {}
    lock, seconds = threading.Lock(), options.soak * 60
    samples: list[dict[str, float]] = []
    latencies: list[tuple[float, float]] = []
    with Server("-m", "polylex", "serve", index, "-q", "--writable") as server:
        started = time.perf_counter()

        def client(number: int) -> None:
            connection, turn = server.connect(), 0
            while time.perf_counter() - started < seconds:
                turn += 1
                with lock:
                    query = next(texts)
                path, body = _mixed(number, turn, query)
                begun = time.perf_counter()
                status = post(connection, path, body)
                with lock:
                    counts[f"{path} {status}"] = counts.get(f"{path} {status}", 0) + 1
                    if path == "/search":
                        latencies.append((begun - started, time.perf_counter() - begun))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            samples.append({"second": round(time.perf_counter() - started, 1), **_memory(server.process.pid)})
            time.sleep(min(5.0, seconds / 20))
        for thread in threads:
            thread.join()
    # The first quarter fills caches, pools and columns.
    quarters = [samples[len(samples) * at // 4 : len(samples) * (at + 1) // 4] for at in range(4)]
    medians = [float(np.median([sample["anonymous_mb"] for sample in quarter])) for quarter in quarters]
    result = {
        "provenance": record.provenance(("starlette", "uvicorn")),
        "minutes": options.soak,
        "documents": options.documents,
        "answers": dict(sorted(counts.items())),
        "anonymous_mb_by_quarter": medians,
        "growth_second_to_last_quarter": round(medians[3] / medians[1] - 1, 4),
        "p99_ms_by_quarter": [
            round(float(np.percentile([s for t, s in latencies if at <= 4 * t / seconds < at + 1], 99)) * 1e3, 1)
            for at in range(4)
        ],
        "samples": samples,
    }
    record.write(options.out or RESULTS / "serving_soak.json", result)
    print(
        json.dumps({name: value for name, value in result.items() if name not in ("samples", "provenance")}, indent=1)
    )


# -- sizes -------------------------------------------------------------------------------------------


def sizes(options: argparse.Namespace, folder: Path) -> None:
    """Memory and CPU time of one worker with one lane, for indexes of some sizes."""
    texts, rows = queries(passages()), []
    for count in options.sizes:
        here = folder / str(count)
        here.mkdir()
        index, _ = prepare(here, count)
        size = sum(file.stat().st_size for file in index.iterdir())
        with Server("-m", "polylex", "serve", index, "-q", "--threads", "1") as server:
            process = server.process.pid
            connection = server.connect()
            for _ in range(100):
                ours(connection, next(texts))
            before, asked = _cpu(process), 400
            for _ in range(asked):
                ours(connection, next(texts))
            row = {"documents": count, "index_mb": round(size / 1e6, 1), **_memory(process)}
            row["cpu_ms_per_query"] = round((_cpu(process) - before) / asked * 1e3, 2)
            for mass in (0.9, 0.7, 0.5):
                post(connection, "/search", {"query": "who", "prune": {"mass": mass}})
            row["anonymous_mb_with_three_previews"] = _memory(process)["anonymous_mb"]
        rows.append(row)
        print(row, flush=True)
    record.write(options.out or RESULTS / "serving_sizes.json", {"provenance": record.provenance(), "sizes": rows})


def _cpu(process: int) -> float:
    """Seconds that a process has used."""
    numbers = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def _mixed(number: int, turn: int, query: str) -> tuple[str, dict[str, Any]]:
    """What a client asks: mostly plain searches, and some of everything else."""
    search = {"query": query, "k": _K, "fields": ["title"]}
    special: dict[int, tuple[str, dict[str, Any]]] = {
        1: ("/search", {**search, "where": f"group = 'g{turn % 20}'", "facets": ["group"]}),
        2: ("/search", {**search, "explain": 5, "k": 3}),
        3: ("/encode", {"texts": [query, query + " a"], "kind": "query"}),
        4: (
            "/documents",
            {"documents": [{"id": f"new-{turn % 200}", "text": query or "a", "group": "g1"}], "mode": "upsert"},
        ),
        5: ("/documents/delete", {"ids": [f"new-{(turn + 100) % 200}"]}),
    }
    if number == 0 and turn % 200 == 10:
        return "/search", {**search, "prune": {"mass": 0.5 + 0.1 * (turn // 200 % 4)}}
    return special.get(turn % 20, ("/search", search))


def _memory(process: int) -> dict[str, float]:
    """Of a process in MB, and its open files; what it maps from files is the system's to give and take."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE))
    return {
        "anonymous_mb": round(int(found["RssAnon"]) / 1e3, 1),
        "mapped_mb": round(int(found["RssFile"]) / 1e3, 1),
        "files": float(len(os.listdir(f"/proc/{process}/fd"))),
    }


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--float", help="folder of the float model, for the peer")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="soak instead of comparing")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="DOCUMENTS", help="memory and CPU instead")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (10)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peer", nargs=2, metavar=("MODEL", "MATRIX"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        serve_peer(*options.peer, options.port)
        return
    if not (options.soak or options.float or options.sizes):
        parser.error("give --float, --soak or --sizes")
    with tempfile.TemporaryDirectory() as folder:
        (sizes if options.sizes else soak if options.soak else compare)(options, Path(folder))


if __name__ == "__main__":
    main()
