"""SparseVectors <-> sparse tensors of PyTorch, the form in which other libraries pass them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polylex.errors import BadInput
from polylex.vectors import SparseVectors


def to_tensor(vectors: SparseVectors, width: int) -> Tensor:
    """Coalesced COO float32 [rows, width]."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    places = torch.from_numpy(np.stack([rows, vectors.terms.astype(np.int64)]))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(vectors.weights), (len(vectors), width), is_coalesced=True, check_invariants=False
    )


def from_tensor(tensor: Tensor, vocab: str) -> SparseVectors:
    """The weights > 0 of a COO tensor [rows, terms], in the id space `vocab`.

    Raises BadInput for a dense tensor, and for weights < 0, by which an inverted index cannot rank.
    """
    if not isinstance(tensor, Tensor) or not tensor.is_sparse:
        raise BadInput(
            "expected a sparse COO tensor, got dense vectors: almost every weight of a dense model is in use, and its "
            "scores mean something else. Search a dense model with an engine for dense vectors."
        )
    tensor = tensor.detach().cpu().coalesce()
    rows, terms = tensor.indices().numpy()
    weights = tensor.values().float().numpy()
    if (weights < 0).any():
        raise BadInput(f"a weight is {weights.min()}; an inverted index ranks by weights >= 0")
    rows, terms, weights = (each[weights > 0] for each in (rows, terms, weights))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=tensor.shape[0]))])
    return SparseVectors(indptr, terms, weights, vocab)
