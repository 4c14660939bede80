"""How long a user waits: from the start of the process `polylex search` to its first hit.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --command "polylex search {index} {query} --json" --index my.plx

Without --index the bundled Universal Declaration of Human Rights is encoded and indexed first, in the languages of
`polylex demo`. Every run is a process of its own that opens the index and the model, encodes the query and searches;
its time ends with the first byte on standard output. The first run is shown apart: it may read the files from disk and
compile Python's bytecode, which an installed package has ready.

After that, one process tells where the time goes, and another (`-X importtime`) what its imports cost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from record import provenance, write

QUERY = "¿Quién puede casarse?"

# The stages of a search by the library's own calls, timed inside a fresh process.
_STAGES = """
import json, sys, time
marks = [("start", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import polylex.cli; from polylex import Retriever; mark("import polylex")
retriever = Retriever.open(sys.argv[1]); mark("open the index and its model")
vector = retriever.encoder.encode([sys.argv[2]], kind="query"); mark("encode the query")
hits = retriever.index.search(vector, 10); mark("search")
print(json.dumps({name: time_ - before for (_, before), (name, time_) in zip(marks, marks[1:])}))
"""


def main() -> None:
    """Measure, write the results file, print what came out."""
    options = _options()
    with TemporaryDirectory() as scratch:
        environment = _environment(Path(scratch) / "bytecode")
        index = options.index or _demo_index(Path(scratch) / "udhr.plx")
        command = [part.format(index=index, query=options.query) for part in shlex.split(options.command)]
        runs = [_first_byte(command, environment) for _ in range(options.runs + 1)]
        stages = [_stages(index, options.query, environment) for _ in range(options.runs)]
        imports = _imports(command, environment)
        result = provenance() | {
            "search": options.command.replace(sys.executable, "python"),
            "documents": _documents(index),
            "query": options.query,
            "queries": options.runs,
            "first_run_seconds": round(runs[0], 3),
            "seconds": [round(value, 3) for value in runs[1:]],
            "median_seconds": round(median(runs[1:]), 3),
            "interpreter_alone_seconds": round(
                median(_first_byte([sys.executable, "-c", "print(1)"], environment) for _ in range(options.runs)), 3
            ),
            "stages_median_seconds": {name: round(median(each[name] for each in stages), 4) for name in stages[0]},
            "imports_seconds": imports,
        }
    write(options.out, result)
    print(json.dumps({key: value for key, value in result.items() if "seconds" in key}, indent=1))


def _first_byte(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from the start of a process to the first byte of its output. Stops this script where it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        _, errors = process.communicate()
    if process.returncode or not first:
        raise SystemExit(f"{shlex.join(command)} failed ({process.returncode}):\n{errors.decode(errors='replace')}")
    return seconds


def _stages(index: Path, query: str, environment: dict[str, str]) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, "-c", _STAGES, str(index), query], env=environment, check=True, capture_output=True
    ).stdout
    return dict(json.loads(output))


def _imports(command: list[str], environment: dict[str, str], most: int = 12) -> dict[str, float]:
    """Seconds that each top-level package's own modules take to import, the dearest first."""
    errors = subprocess.run(
        command, env=environment | {"PYTHONPROFILEIMPORTTIME": "1"}, check=True, capture_output=True
    ).stderr.decode(errors="replace")
    spent: Counter[str] = Counter()
    for own, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", errors):
        spent[module.partition(".")[0]] += int(own)
    return {name: round(microseconds / 1e6, 4) for name, microseconds in spent.most_common(most)}


def _demo_index(path: Path) -> Path:
    from polylex import Retriever
    from polylex.demo import DEMO_LANGUAGES, load_udhr

    print("indexing the bundled collection", file=sys.stderr)
    Retriever.build(path, load_udhr(DEMO_LANGUAGES)).close()
    return path


def _documents(path: Path) -> int:
    from polylex import Index

    with Index.open(path) as index:
        return len(index)


def _environment(bytecode: Path) -> dict[str, str]:
    """The environment of this process, but with bytecode kept, as an installed package keeps it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONIOENCODING": "utf-8"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = f"{shlex.quote(sys.executable)} -m polylex search {{index}} {{query}}"
    parser.add_argument("--command", default=default, help="{index} and {query} stand for what their names say")
    parser.add_argument("--index", type=Path, help="an index that is there")
    parser.add_argument("--query", default=QUERY)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cold_start.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
