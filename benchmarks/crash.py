"""Kill a writer again and again, at random moments, and see whether the index is what was acknowledged last.

    python benchmarks/crash.py --kills 500

A child process takes steps of a history (benchmarks/history.py): adding, replacing, deleting, compacting, one
transaction each, and says so after each. It gets SIGKILL after up to --milliseconds. Then the index must open, pass
`check` (every byte), hold the documents of the last acknowledged step or of the one after it, and answer like brute
force; every other time a reader that was open since before the kill must still see its own state. The next child goes
on with this index.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from history import History, apply, build, faults_of
from record import provenance, write

from polylex.index import Index, IndexWriter


def main() -> None:
    """Kill, compare, write the results file, print what came out."""
    options = _options()
    draw, history, counts = random.Random(options.seed), History(options.seed), Counter[str]()
    faults: list[str] = []
    start = time.perf_counter()
    with TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "index"
        build(path)
        for kill in range(options.kills):
            reader = (Index.open(path), dict(history.state)) if kill % 2 else None
            acknowledged, during = _work_and_die(path, history, draw.uniform(0, options.milliseconds) / 1000)
            found = _compare(path, history, acknowledged, draw)
            if reader is not None:
                found += [f"the open reader: {fault}" for fault in faults_of(*reader, draw, 1)]
                reader[0].close()
            faults += [f"kill {kill}, step {history.steps}: {fault}" for fault in found]
            counts[f"killed in {during}"] += 1
            counts["steps"] = history.steps
            counts["the step in progress was durable"] += history.steps > acknowledged
            if found:
                break
        size = sum(file.stat().st_size for file in path.iterdir())
    result = provenance() | {
        "kills": kill + 1,
        "seed": options.seed,
        "faults": faults,
        "counts": dict(sorted(counts.items())),
        "documents": len(history.state),
        "bytes": size,
        "seconds": round(time.perf_counter() - start, 1),
    }
    write(options.out, result)
    print(json.dumps({name: result[name] for name in ("kills", "faults", "counts", "seconds")}, indent=1))
    sys.exit(bool(faults))


def _work_and_die(path: Path, history: History, seconds: float) -> tuple[int, str]:
    """Steps acknowledged by a child before it was killed, and what it was doing then."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _work(path, history, sending)
        finally:
            os._exit(1)
    os.close(sending)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(receiving, "rb") as pipe:
        said = pipe.read().decode().split()
    acknowledged = max((int(word) for word in said if word.isdigit()), default=history.steps)
    return acknowledged, "tidying up or between" if not said or said[-1].isdigit() else said[-1]


def _work(path: Path, history: History, sending: int) -> None:
    os.write(sending, b"opening ")
    with IndexWriter(path) as writer:
        while True:
            step = history.next()
            os.write(sending, f"{step.verb} ".encode())
            apply(writer, step)
            history.take(step)
            os.write(sending, f"{history.steps} ".encode())


def _compare(path: Path, history: History, acknowledged: int, draw: random.Random) -> list[str]:
    """What is wrong with the index; the history goes on to the step that it shows."""
    with Index.open(path) as index:
        faults = index.check()
        history.replay(acknowledged)
        following = history.next()
        if following.verb != "compact" and index.document("clock").fields["version"] == acknowledged + 1:
            history.take(following)
        return faults + faults_of(index, history.state, draw)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--milliseconds", type=float, default=120, help="the longest life of a child")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the index lies; default: the folder for temporary files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crash.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
