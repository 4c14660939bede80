"""Evaluation during training: nDCG@10 of a model on BEIR folders, on the device where the model is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polylex.collection import Collection, read_beir
from polylex.errors import BadInput
from polylex.model.model import SparseModel
from polylex.trec import Query
from polylex.vectors import SparseVectors

# Numbers of the dense query block [queries, terms] that exist at one time: 256 MiB.
_BLOCK = 1 << 26


class BeirHook:
    """Called with a model, gives {folder: mean nDCG@10 over its judged queries}, all terms, exact scores."""

    def __init__(self, folders: Sequence[str], *, max_length: int = 256, batch_size: int = 64) -> None:
        """Read the folders: a fault shows now and not after an hour. Texts are cut to `max_length` tokens."""
        self._collections = {str(folder): read_beir(Path(folder)) for folder in folders}
        self._length, self._batch = max_length, batch_size
        for folder, collection in self._collections.items():
            if not _judged(collection):
                raise BadInput(f"{folder} judges no query; leave it out of eval_folders")

    def __call__(self, model: SparseModel) -> dict[str, float]:
        """Measure a model as it stands."""
        return {Path(folder).name: self._measure(model, found) for folder, found in self._collections.items()}

    def _measure(self, model: SparseModel, collection: Collection) -> float:
        device, judged = next(model.parameters()).device, _judged(collection)
        options = {
            "batch_size": self._batch,
            "max_length": min(self._length, model.config.max_length),
            "max_windows": 1,
        }
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            documents = model.encode_document(collection.texts, **options)
            queries = model.encode_query([query.text for query in judged], **options)
        ranked = best_rows(queries, documents, len(model.vocab), 10, device)
        values = [
            ndcg([collection.ids[row] for row in rows], collection.judgments[query.id], 10)
            for query, rows in zip(judged, ranked, strict=True)
        ]
        return sum(values) / len(values)


def _judged(collection: Collection) -> list[Query]:
    return [query for query in collection.queries if query.id in collection.judgments]


def best_rows(
    queries: SparseVectors, documents: SparseVectors, terms: int, k: int, device: torch.device
) -> list[list[int]]:
    """Of each query the k documents of highest score, best first; documents with score 0 are left out."""
    if not len(documents):
        return [[] for _ in range(len(queries))]
    matrix = _sparse(documents, terms, device)
    found: list[list[int]] = []
    step = max(1, _BLOCK // terms)
    for start in range(0, len(queries), step):
        block = queries.take(range(start, min(start + step, len(queries))))
        scores = torch.sparse.mm(matrix, _sparse(block, terms, device).to_dense().T).T
        values, rows = scores.topk(min(k, len(documents)), dim=1)
        found += [r[v > 0].tolist() for v, r in zip(values.cpu(), rows.cpu(), strict=True)]
    return found


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """nDCG@k with linear gain: sum of grade / log2(rank + 1) over that of the best order; 0 without a relevant one."""
    best = sorted(grades.values(), reverse=True)[:k]
    ideal = sum(grade / math.log2(rank + 2) for rank, grade in enumerate(best))
    gained = sum(grades.get(name, 0) / math.log2(rank + 2) for rank, name in enumerate(ranking[:k]))
    return gained / ideal if ideal else 0.0


def _sparse(vectors: SparseVectors, terms: int, device: torch.device) -> Tensor:
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    index = torch.from_numpy(np.stack([rows, vectors.terms.astype(np.int64)]))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(vectors.weights), (len(vectors), terms), check_invariants=False
    ).to(device)
