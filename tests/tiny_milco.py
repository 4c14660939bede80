"""The tiny random checkpoint in the released MILCO layout, and the vectors that its authors' code gave for it."""

import json
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "tiny-echo"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
TEXTS = [row["text"] for row in EXPECTED]


@cache
def tiny_milco():
    from polylex.model import SparseModel

    return SparseModel.from_pretrained(FOLDER / "release")


def encode(model, texts, **options):
    """As the released code does: one window, the rest is cut off."""
    return model.encode(texts, max_length=64, max_windows=1, **options)


def dense(vectors, width):
    rows = np.zeros((len(vectors), width), np.float32)
    for index in range(len(vectors)):
        terms, weights = vectors.row(index)
        rows[index, terms] = weights
    return rows


def cosine(a, b):
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
