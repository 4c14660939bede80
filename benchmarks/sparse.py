"""Polylex as a system under test: encode, prune, build a real index, search it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from cache import Encodings, identity
from ranking import Outcome

from polylex import Index, Pruning, SparseVectors, load
from polylex.collection import Collection
from polylex.models import locate
from polylex.vocab import Vocab

Prune = Callable[[SparseVectors], SparseVectors]

_SPEC = re.compile(r"(?P<kind>polylex|torch)(?::(?P<model>[^+]+))?(?P<options>(?:\+\w+=[\w.]+)*)")
_OPTIONS = {"terms": float, "mass": float, "top_k": int, "max_ratio": float, "threshold": float, "view": str}
_SAMPLE = 1000


class Sparse:
    """A Polylex model: `polylex[:MODEL]` is the int8 runtime, `torch:FOLDER` the float model.

    Behind it may stand +top_k=30, +mass=0.9, +max_ratio=0.1, +threshold=0.2 (documents pruned so), +terms=30 (documents
    pruned by the mass that leaves 30 terms on average), +view=pivot or +view=source (nothing but that view, on both
    sides). Queries are never pruned.
    """

    def __init__(self, spec: str, cache: Path, threads: int | None = None) -> None:
        found = _SPEC.fullmatch(spec)
        if found is None or (found["kind"] == "torch" and not found["model"]):
            raise SystemExit(f"unknown system {spec!r}; see --help")
        self.name = spec if not found["model"] else spec.replace(found["model"], Path(found["model"]).name)
        self._encoder = _encoder(found["kind"], found["model"], threads)
        folder = locate(found["model"]) if found["model"] else locate()
        self._encodings = Encodings(identity(folder, found["kind"]), cache)
        self._options = _options(found["options"])
        self._vocab: Vocab = self._encoder.vocab

    def search(self, collection: Collection, k: int) -> Outcome:
        """The k best documents of every query."""
        before = self._encodings.encoded, self._encodings.seconds
        documents = self._pruned(self._fetch("document", collection.texts))
        queries = self._fetch("query", [query.text for query in collection.queries])
        with (
            TemporaryDirectory() as folder,
            Index.build(Path(folder) / "index", documents, collection.ids, vocab=self._vocab) as index,
        ):
            hits = index.search(queries, k, with_fields=False)
        return Outcome(
            {
                query.id: [(hit.id, hit.score) for hit in found]
                for query, found in zip(collection.queries, hits, strict=True)
            },
            document_terms=documents.nnz / len(documents),
            query_terms=queries.nnz / len(queries),
            encoded=self._encodings.encoded - before[0],
            seconds=self._encodings.seconds - before[1],
        )

    def _fetch(self, kind: str, texts: Sequence[str]) -> SparseVectors:
        rows = self._encodings.fetch(kind, texts, lambda chunk: _packed(self._encoder.encode(chunk, kind=kind)))
        vectors = SparseVectors.from_rows(map(_unpacked, rows), self._vocab.fingerprint)
        view = self._options.get("view")
        if view is None:
            return vectors
        is_pivot = vectors.terms < len(self._vocab.pivot)
        return vectors.select(is_pivot if view == "pivot" else ~is_pivot)

    def _pruned(self, documents: SparseVectors) -> SparseVectors:
        options = {option: limit for option, limit in self._options.items() if option != "view"}
        if (terms := options.pop("terms", None)) is not None:
            options["mass"] = _mass_for(documents, terms)
        prune = Pruning(**options)
        return prune(documents) if prune else documents


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


def _packed(vectors: SparseVectors) -> list[bytes]:
    rows = (vectors.row(index) for index in range(len(vectors)))
    return [terms.tobytes() + weights.tobytes() for terms, weights in rows]


def _unpacked(row: bytes) -> tuple[np.ndarray, np.ndarray]:
    half = len(row) // 2
    return np.frombuffer(row[:half], np.uint32), np.frombuffer(row[half:], np.float32)
