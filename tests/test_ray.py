import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

# 80 MB to download, half a minute to run, and the workers are found in /proc.
pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra polylex[ray]"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for workers in /proc"),
]


def test_nothing_is_lost_or_doubled_when_a_worker_of_a_cluster_is_killed(encoder, tmp_path):
    texts = [f"article {number} says who may marry and who has the right to work" for number in range(192)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    script = Path(__file__).parent / "ray_cluster.py"
    done = subprocess.run(
        [sys.executable, script, "polylex-mini", tmp_path / "texts.json", tmp_path / "out.json"],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "TMPDIR": "/tmp"},  # socket names must be short
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["killed_of"] == 2
    rows = sorted(found["rows"], key=lambda row: row["id"])
    assert [row["id"] for row in rows] == list(range(192))
    expected = encoder.encode(texts)
    for number, row in enumerate(rows):
        terms, weights = expected.row(number)
        assert row["terms"] == terms.tolist()
        assert np.array_equal(np.array(row["weights"], "f4"), weights)
