"""What the release run starts from: the first model with more tokens, and its teachers, as small files that travel.

    python scripts/release_start.py MINI0_FOLDER HF_FOLDER TOKENIZER_JSON OUT

MINI0_FOLDER  weights.npz and tokenizer.json of the run before
HF_FOLDER     multilingual-e5-small-q4deq, splade-tiny, all-mpnet-base-v2
TOKENIZER_JSON  of scripts/release_vocabulary.py
OUT           gets start.npz, e5.npz, mpnet.npz, splade/, tokenizer.json

Tokens that the model before did not have get the backbone's own embeddings: training had moved the others by 3 % only.
Matrices are int8 with one float16 scale a row (`name::s`), as scripts/convert_mini.py reads them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

WORDS = "embeddings.word_embeddings.weight"
Arrays = dict[str, NDArray[np.float32]]


def read_packed(path: Path) -> Arrays:
    """Float32 arrays of a packed file."""
    with np.load(path) as arrays:
        return {
            name: arrays[name].astype(np.float32)
            * (arrays[f"{name}::s"].astype(np.float32)[:, None] if f"{name}::s" in arrays.files else 1)
            for name in arrays.files
            if not name.endswith("::s")
        }


def write_packed(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Matrices of more than a row as int8 by row, the rest as float16."""
    packed: dict[str, NDArray[np.generic]] = {}
    for name, array in arrays.items():
        if array.ndim == 2 and len(array) > 2:
            scale = np.maximum(np.abs(array).max(axis=1), 1e-12) / 127
            scale = scale.astype(np.float16).astype(np.float32).clip(min=6e-8)
            packed[name] = np.clip(np.rint(array / scale[:, None]), -127, 127).astype(np.int8)
            packed[f"{name}::s"] = scale.astype(np.float16)
        else:
            packed[name] = array.astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **packed)


def pieces(tokenizer: Path) -> list[str]:
    """The pieces of a Unigram tokenizer.json, in id order."""
    return [piece for piece, _ in json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]]


def widened(before: Arrays, backbone: Arrays, old: list[str], full: list[str], new: list[str]) -> Arrays:
    """`before` with an embedding for each of the pieces `new`."""
    trained, original = before[f"enc.{WORDS}"], backbone[WORDS]
    place, source = ({piece: index for index, piece in enumerate(names)} for names in (old, full))
    rows = [trained[place[piece]] if piece in place else original[source[piece]] for piece in new]
    print(f"{sum(piece not in place for piece in new):,} new pieces, {len(set(old) - set(new)):,} dropped")
    return {**before, f"enc.{WORDS}": np.stack(rows)}


def main() -> None:
    """Read the command line, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("mini", "hf", "tokenizer", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    e5_folder, mpnet_folder, splade = (
        options.hf / name for name in ("multilingual-e5-small-q4deq", "all-mpnet-base-v2", "splade-tiny")
    )
    e5 = load_file(e5_folder / "model.safetensors")
    names = pieces(options.mini / "tokenizer.json"), pieces(e5_folder / "tokenizer.json"), pieces(options.tokenizer)
    write_packed(options.out / "start.npz", widened(read_packed(options.mini / "weights.npz"), e5, *names))
    # The teacher shares the embeddings of start.npz.
    write_packed(options.out / "e5.npz", {k: v for k, v in e5.items() if k != WORDS and not k.startswith("pooler")})
    mpnet = load_file(mpnet_folder / "model.safetensors")
    write_packed(
        options.out / "mpnet.npz", {k: v for k, v in mpnet.items() if v.dtype == np.float32 and "pooler" not in k}
    )
    shutil.copyfile(mpnet_folder / "config.json", options.out / "mpnet.json")
    shutil.copyfile(options.tokenizer, options.out / "tokenizer.json")
    (options.out / "splade").mkdir(exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        shutil.copyfile(splade / file, options.out / "splade" / file)
    half = {name: array.astype(np.float16) for name, array in load_file(splade / "model.safetensors").items()}
    save_file(half, options.out / "splade" / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
