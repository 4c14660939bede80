"""Polylex under test with options that only a benchmark wants: one view alone, or a given number of terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from polylex import Pruning, SparseVectors, load
from polylex.collection import Collection
from polylex.encodings import Encodings, identity_of
from polylex.models import locate
from polylex.systems import Sparse

_SPEC = re.compile(r"(?P<kind>polylex|torch)(?::(?P<model>[^+]+))?(?P<options>(?:\+\w+=[\w.]+)*)")
_OPTIONS = {"terms": float, "mass": float, "top_k": int, "max_ratio": float, "threshold": float, "view": str}
_SAMPLE = 1000


class Model(Sparse):
    """A Polylex model: `polylex[:MODEL]` is the int8 runtime, `torch:FOLDER` the float model.

    Behind it may stand +top_k=30, +mass=0.9, +max_ratio=0.1, +threshold=0.2 (documents pruned so), +terms=30 (documents
    pruned by the mass that leaves 30 terms on average), +view=pivot or +view=source (nothing but that view, on both
    sides). Queries are never pruned.
    """

    def __init__(self, spec: str, cache: Path, threads: int | None = None) -> None:
        found = _SPEC.fullmatch(spec)
        if found is None or (found["kind"] == "torch" and not found["model"]):
            raise SystemExit(f"unknown system {spec!r}; see --help")
        folder = locate(found["model"]) if found["model"] else locate()
        super().__init__(
            _encoder(found["kind"], found["model"], threads),
            encodings=Encodings(identity_of(folder, found["kind"]), cache),
        )
        self.name = spec if not found["model"] else spec.replace(found["model"], Path(found["model"]).name)
        self._options = _options(found["options"])

    def vectors(self, collection: Collection) -> tuple[SparseVectors, SparseVectors]:
        """Of its queries, and of its documents after pruning; of the view asked for."""
        queries, documents = (self._seen(vectors) for vectors in super().vectors(collection))
        limits = {option: limit for option, limit in self._options.items() if option != "view"}
        if (terms := limits.pop("terms", None)) is not None:
            limits["mass"] = _mass_for(documents, terms)
        return queries, Pruning(**limits)(documents)

    def _seen(self, vectors: SparseVectors) -> SparseVectors:
        view = self._options.get("view")
        if view is None:
            return vectors
        is_pivot = vectors.terms < len(self.encoder.vocab.pivot)
        return vectors.select(is_pivot if view == "pivot" else ~is_pivot)


def _encoder(kind: str, model: str | None, threads: int | None) -> Any:
    if kind == "polylex":
        return load(model, threads=threads) if model else load(threads=threads)
    import torch

    from polylex.model import SparseModel

    if threads:
        torch.set_num_threads(threads)
    return SparseModel.from_pretrained(str(model))


def _options(text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in text.split("+")[1:]:
        name, _, value = part.partition("=")
        if name not in _OPTIONS or (name == "view" and value not in ("pivot", "source")):
            raise SystemExit(f"unknown option +{part}; there are {', '.join(_OPTIONS)}")
        options[name] = _OPTIONS[name](value)
    return options


def _mass_for(documents: SparseVectors, terms: float) -> float:
    """The share of mass that leaves `terms` terms a document on average, measured on a sample."""
    rows = np.random.default_rng(0).permutation(len(documents))[:_SAMPLE]
    sample = documents.take(rows)
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        if Pruning(mass=middle)(sample).nnz > terms * len(sample):
            high = middle
        else:
            low = middle
    return high if low == 0.0 else low
