"""Pack a trained model into pieces that travel: int8 weights as scripts/convert_mini.py reads them.

python scripts/release_export.py MODEL_FOLDER OUT [--piece-mib 15]
cat OUT/weights.npz.* > weights.npz        # together again, beside MODEL_FOLDER/tokenizer.json
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from convert_mini import NAMES
from release_start import write_packed
from safetensors.numpy import load_file


def main() -> None:
    """Read, pack, cut."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--piece-mib", type=float, default=15)
    options = parser.parse_args()
    ours = {new: old for old, new in NAMES.items()}
    arrays = {}
    for name, array in load_file(options.model / "model.safetensors").items():
        prefix = next(new for new in ours if name.startswith(new))
        arrays[ours[prefix] + name[len(prefix) :]] = array.astype(np.float32)
    options.out.mkdir(parents=True, exist_ok=True)
    whole = options.out / "whole.npz"
    write_packed(whole, arrays)
    stream = io.BytesIO(whole.read_bytes())
    whole.unlink()
    number = 0
    while piece := stream.read(int(options.piece_mib * 2**20)):
        (options.out / f"weights.npz.{number:02d}").write_bytes(piece)
        number += 1
    print(f"{number} pieces, {stream.tell() / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
