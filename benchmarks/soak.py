"""Write and read at the same time, for long, in several processes, and compare every answer with brute force.

    python benchmarks/soak.py --minutes 30

One process takes steps of a history (benchmarks/history.py). Each of the others opens the index, asks it from two
threads, refreshes or opens it anew at random moments, sometimes keeps an old state for long, and knows from the
document `clock` which step it sees; so it knows every answer. At the end every byte is checked, and space must have
been given back.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from history import CLOCK, History, Oracle, answer_faults, apply, build, faults_of
from record import provenance, write

from polylex.index import Index, IndexWriter

_FAULTS = 20  # kept of each process


def main() -> None:
    """Write and read, write the results file, print what came out."""
    options = _options()
    context = multiprocessing.get_context("spawn")
    end = time.time() + 60 * options.minutes
    with TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "index"
        build(path)
        with context.Pool(options.readers + 1) as pool:
            writing = pool.apply_async(_write, (path, options.seed, end))
            reading = [pool.apply_async(_read, (path, options.seed, number, end)) for number in range(options.readers)]
            written, read = writing.get(), [each.get() for each in reading]
        last = _end(path, options.seed, written["steps"])
    faults = [fault for each in (written, *read, last) for fault in each.pop("faults")]
    result = provenance() | {
        "minutes": options.minutes,
        "readers": options.readers,
        "seed": options.seed,
        "faults": faults,
        "writer": written,
        "reads": dict(sum((Counter(each) for each in read), Counter())),
        "end": last,
    }
    write(options.out, result)
    print(json.dumps({name: result[name] for name in ("faults", "writer", "reads", "end")}, indent=1))
    sys.exit(bool(faults))


def _write(path: Path, seed: int, end: float) -> dict[str, Any]:
    """Take steps until the end; now and then let go of the index, and go back on a half-taken step."""
    history, draw, times, faults = History(seed), random.Random(f"{seed}/writer"), [], []
    while time.time() < end:
        with IndexWriter(path, merge=draw.random() < 0.9) as writer:
            for _ in range(draw.randint(1, 200)):
                step = history.next()
                if step.verb != "compact" and draw.random() < 0.05:
                    writer.delete([draw.choice(sorted(history.state))])
                    writer.rollback()
                start = time.perf_counter()
                apply(writer, step)
                times.append(time.perf_counter() - start)
                history.take(step)
                if len(writer) != len(history.state):
                    faults.append(f"the writer counts {len(writer)} documents after step {history.steps}")
                if time.time() > end:
                    break
                time.sleep(draw.choice((0, 0, 0.001, 0.02)))
    ordered = sorted(times)
    return {
        "steps": history.steps,
        "step_median_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "step_p99_ms": round(1000 * ordered[99 * len(ordered) // 100], 2),
        "faults": faults[:_FAULTS],
    }


def _read(path: Path, seed: int, number: int, end: float) -> dict[str, Any]:
    """Ask until the end."""
    draw, history, counts = random.Random(f"{seed}/{number}"), History(seed), Counter[str]()
    faults: list[str] = []
    index = Index.open(path)
    with ThreadPoolExecutor(2) as pool:
        while time.time() < end and len(faults) < _FAULTS:
            step = index.document(CLOCK).fields["version"]
            history = (history if history.steps <= step else History(seed)).replay(step)
            oracle = Oracle(history.state)
            wrong: list[str] = []
            for _ in range(draw.choice((1, 1, 2, 5, 60))):  # so long it keeps this state
                draws = [random.Random(draw.random()) for _ in range(2)]
                for found in pool.map(answer_faults, [index] * 2, [oracle] * 2, draws):
                    wrong += found
                    counts["answers"] += 4
            if draw.random() < 0.2:
                wrong += faults_of(index, history.state, draw, 1)
                counts["full comparisons"] += 1
            if draw.random() < 0.05:
                wrong += index.check()
                counts["checks"] += 1
            faults += [f"reader {number}, step {step}: {fault}" for fault in wrong]
            if draw.random() < 0.1:
                index.close()
                index = Index.open(path)
                counts["opened"] += 1
            else:
                counts["refreshed"] += index.refresh()
            counts["states"] += 1
    index.close()
    return {**counts, "faults": faults[:_FAULTS]}


def _end(path: Path, seed: int, steps: int) -> dict[str, Any]:
    """The last state, once everybody has gone and one more change was made."""
    history = History(seed).replay(steps)
    with IndexWriter(path) as writer:
        step = history.next()
        apply(writer, step)
        history.take(step)
        writer.compact()
    with Index.open(path) as index:
        info, named = index.info(), {entry.file for entry in index._catalog.segments}
        faults = index.check() + faults_of(index, history.state, random.Random(0))
        left = {file.name for file in path.glob("segment-*")} - named
        if left or info.deleted:
            faults.append(f"{len(left)} files and {info.deleted} deleted documents take space")
        return {"documents": len(index), "segments": info.segments, "bytes": info.bytes, "faults": faults}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--readers", type=int, default=3, help="processes, of two threads each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the index lies; default: the folder for temporary files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "soak.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
