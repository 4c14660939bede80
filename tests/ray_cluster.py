"""Encode on a local Ray cluster of several workers while one of them is killed; writes what came out as JSON.

python ray_cluster.py MODEL TEXTS.json OUT.json
"""

import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray  # noqa: E402

from polylex.interop.ray import encode  # noqa: E402


def workers() -> list[int]:
    """Processes that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"ArrowEncoder" in title:
            found.append(int(folder.name))
    return found


def main() -> None:
    model, path, out = sys.argv[1:]
    texts = json.loads(Path(path).read_text("utf-8"))
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=100_000_000, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    dataset = ray.data.from_items(rows, override_num_blocks=24)
    found, killed_of = [], 0
    for batch in encode(dataset, model, workers=2, batch_size=8).iter_batches(batch_size=8, batch_format="pyarrow"):
        found += batch.to_pylist()
        if not killed_of and len(found) < len(texts) and (running := workers()):
            os.kill(running[0], signal.SIGKILL)
            killed_of = len(running)
    Path(out).write_text(json.dumps({"killed_of": killed_of, "rows": found}), "utf-8")
    ray.shutdown()


if __name__ == "__main__":
    main()
