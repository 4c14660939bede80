"""Polylex: search documents in any language with queries in any other.

    import polylex

    with polylex.Retriever.build("my-index", documents) as retriever:      # documents: {"id": ..., "text": ...}
        for hit in retriever.search("¿Quién puede casarse?", k=3):
            print(hit.score, hit.id, hit.fields["text"])

Public names are imported when first used; none of them imports PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from polylex.corpus import Document, read_documents
    from polylex.errors import PolylexError
    from polylex.explanation import Explanation, explain
    from polylex.index import Hit, Index
    from polylex.models import load
    from polylex.prune import Pruning
    from polylex.retriever import Retriever
    from polylex.runtime.encoder import Encoder
    from polylex.vectors import SparseVectors
    from polylex.vocab import Vocab

_HOME = {
    "Document": "corpus",
    "Encoder": "runtime.encoder",
    "Explanation": "explanation",
    "Hit": "index",
    "Index": "index",
    "PolylexError": "errors",
    "Pruning": "prune",
    "Retriever": "retriever",
    "SparseVectors": "vectors",
    "Vocab": "vocab",
    "explain": "explanation",
    "load": "models",
    "read_documents": "corpus",
}

__all__ = [
    "Document",
    "Encoder",
    "Explanation",
    "Hit",
    "Index",
    "PolylexError",
    "Pruning",
    "Retriever",
    "SparseVectors",
    "Vocab",
    "__version__",
    "explain",
    "load",
    "read_documents",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f"polylex.{_HOME[name]}"), name)
    raise AttributeError(f"module 'polylex' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
