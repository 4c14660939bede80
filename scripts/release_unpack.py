"""Put the parts of scripts/release_cache.py together again and write the model that the run starts from.

    python scripts/release_unpack.py PARTS_FOLDER/align OUT; python scripts/release_unpack.py PARTS_FOLDER/distill OUT

OUT gets the bundle's files, token caches unpacked, and model/: the starting model as a PyTorch folder.
"""

from __future__ import annotations

import io
import lzma
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from convert_mini import mini_config, read_state

from polylex.model import SparseModel
from polylex.model.weights import fill
from polylex.runtime.tokens import Tokens


class _Joined(io.RawIOBase):
    """Files read one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [path.open("rb") for path in paths]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while self._files:
            count = self._files[0].readinto(buffer)
            if count:
                return count
            self._files.pop(0).close()
        return 0


def unpack(path: Path) -> Path:
    """Unpack a .xz beside itself."""
    target = path.with_suffix("")
    target.write_bytes(lzma.decompress(path.read_bytes()))
    path.unlink()
    return target


def write_start(folder: Path, out: Path) -> None:
    """The starting model as a folder of ours."""
    state = read_state(folder / "start.npz")
    model = SparseModel(mini_config(state), Tokens.read(folder))
    fill(model, state, str(folder))
    model.eval().save_pretrained(out)


def main() -> None:
    """Join, untar, unpack, convert."""
    parts, out = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BufferedReader(_Joined(sorted(parts.glob("part-*"))), 1 << 20), mode="r|") as tar:
        tar.extractall(out, filter="data")
    with ProcessPoolExecutor(8) as pool:
        done = pool.map(unpack, sorted(out.rglob("*.xz")))
        if not (out / "model").exists():
            torch.set_num_threads(4)
            write_start(out / "start", out / "model")
        print(*(f"{path.name} {path.stat().st_size / 1e6:.0f} MB" for path in done), sep=", ")
    print(f"unpacked in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
