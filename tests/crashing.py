"""Die, or fail, at every change of a file that a writer makes, one after another, and look at what is left.

LD_PRELOAD=faults.so python crashing.py KIND [--reader]      prints how many points there were; test_crash.py runs it
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from test_writer import check_against, make, put

from polylex import compaction, writer
from polylex.errors import PolylexError
from polylex.index import Index
from polylex.writer import IndexWriter

KINDS = {"die-before": 1, "die-after": 2, "full": 3, "broken": 4}
START = {f"d{n}": {n % 3: 1.0, 5: 0.25 * (n + 1)} for n in range(6)}
STEPS = [
    ("upsert", {"d1": {0: 3.0}, "n1": {1: 1.0}, "n2": {}}),
    ("delete", ["d0", "d2", "n2"]),
    ("upsert", {"big": {term: 1.0 for term in range(12)}}),
    ("compact", None),
    ("delete", ["d3", "d4", "d5"]),
]


def states():
    """What must be there after none, one, two ... of the steps."""
    found = [dict(START)]
    for verb, what in STEPS:
        state = dict(found[-1])
        if verb == "upsert":
            for id in what:
                state.pop(id, None)
            state |= what
        elif verb == "delete":
            for id in what:
                del state[id]
        found.append(state)
    return found


def work(path, done):
    """Take the steps; `done` is told of each that came back."""
    with IndexWriter(path) as index:
        for verb, what in STEPS:
            if verb == "compact":
                index.compact()
            else:
                put(index, what, verb) if verb == "upsert" else index.delete(what)
                index.commit()
            done()


def require(path, allowed):
    """The index is one of these states, sound, and can be written to and grow again."""
    with Index.open(path) as index:
        assert index.check() == [], index.check()
        ids = {record.id for record in index._catalog.records_between(0, index.span)}
        state = next((state for state in allowed if set(state) == ids), None)
        assert state is not None, f"{sorted(ids)} is none of {[sorted(state) for state in allowed]}"
        check_against(index, state)
    with IndexWriter(path) as again:
        put(again, {"later": {0: 1.0}})
    with Index.open(path) as index:
        check_against(index, {**state, "later": {0: 1.0}})
        assert index.check() == []
        catalog = index._catalog
        named = {entry.file for entry in catalog.segments} | {place.name for place in catalog.places.values()}
        named |= catalog.obsolete()
    left = {file.name for file in path.iterdir() if file.name.startswith(("segment-", "rows-", ".writing"))}
    assert left == named, left ^ named


def die(library, path, point, kind):
    """Let a child work until it dies at a point; how many steps came back, and whether it died."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        library.faults_arm(str(path).encode() + b"/", point, kind)
        try:
            work(path, lambda: os.write(sending, b"."))
        finally:
            os._exit(0)
    os.close(sending)
    done = 0
    while piece := os.read(receiving, 100):
        done += len(piece)
    os.close(receiving)
    _, status = os.waitpid(child, 0)
    return done, os.waitstatus_to_exitcode(status) == 99


def fail(library, path, point, kind):
    """Work until an error comes; how many steps came back, and whether there was a point to fail at."""
    done = []
    library.faults_arm(str(path).encode() + b"/", point, kind)
    try:
        work(path, lambda: done.append(None))
    except (PolylexError, OSError):
        failed = True
    else:
        failed = False
    seen = library.faults_disarm()
    return len(done), failed or seen >= point


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--reader", action="store_true", help="an open reader, which keeps the log and old files")
    options = parser.parse_args()
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    library.faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    library.faults_disarm.restype = ctypes.c_long
    compaction.BLOCK = writer.BLOCK = 4
    compaction.TIERS = (2, 4)
    expected, attempt = states(), die if options.kind.startswith("die") else fail
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        first = Path(folder) / "first"
        make(first, START)
        point, going = 0, True
        while going:
            point += 1
            path = Path(folder) / f"i{point}"
            shutil.copytree(first, path)
            reader = Index.open(path) if options.reader else None
            done, going = attempt(library, path, point, KINDS[options.kind])
            # An error, or death, may come after a commit: in the compaction that follows it, or in tidying up.
            require(path, expected[done : done + 2])
            if reader is not None:
                check_against(reader, START)
                assert reader.check() == []
                reader.close()
            shutil.rmtree(path)
    sys.stdout.write(json.dumps({"points": point - 1}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
