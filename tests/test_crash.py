"""A writer dies, or the disk refuses it, at every change of a file that it makes: what was acknowledged is there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crashing import STEPS, make, require, states

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The library that makes changes of files fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


@pytest.mark.parametrize("reader", [False, True], ids=["alone", "beside a reader"])
@pytest.mark.parametrize("kind", ["die-before", "die-after", "full", "broken"])
def test_no_point_of_failure_loses_or_tears_anything(faults, kind, reader):
    command = [sys.executable, "-W", "ignore", HERE / "crashing.py", kind, *(["--reader"] if reader else [])]
    done = subprocess.run(command, env={**os.environ, "LD_PRELOAD": str(faults)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["points"] > 100


WORKING = """
import sys; sys.path.insert(0, sys.argv[2])
import crashing
from pathlib import Path
print("ready", flush=True)
crashing.work(Path(sys.argv[1]), lambda: print("done", flush=True))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_a_writer_that_is_killed_at_any_time_leaves_the_last_acknowledged_state(tmp_path):
    make(tmp_path / "first", states()[0])
    draw = random.Random(7)
    for number in range(6):
        path = tmp_path / f"i{number}"
        shutil.copytree(tmp_path / "first", path)
        with subprocess.Popen(
            [sys.executable, "-c", WORKING, str(path), str(HERE)], stdout=subprocess.PIPE, text=True
        ) as process:
            acknowledged = [process.stdout.readline() for _ in range(1 + draw.randint(0, len(STEPS) - 1))]
            time.sleep(draw.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            acknowledged += process.stdout.readlines()
        done = acknowledged.count("done\n")
        require(path, states()[done : done + 2])
