"""Library: an index with its model, asked in the words of a Client, whether it is here or on a server."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, Protocol

from polylex.client.answers import Term
from polylex.documents import Record
from polylex.explanation import Explanation
from polylex.index import Hit
from polylex.prune import Pruning
from polylex.retriever import Retriever
from polylex.shards import Shards
from polylex.vocab import PREFIX

_SAMPLE = 100  # documents whose fields are looked at


class Library(Protocol):
    """What a Client and a Local can be asked alike."""

    def search(self, query: str, k: int = 10, *, where: str | None = None) -> Sequence[Hit]:
        """The `k` best documents, best first."""

    def explain(self, query: str, document_id: str, *, limit: int | None = None) -> Explanation:
        """Why a document matches."""

    def encode(
        self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document", top_k: int | None = None
    ) -> list[tuple[Term, ...]]:
        """The terms of each text, heaviest first."""

    def document(self, id: str) -> Record:
        """The document of that id."""


class Local:
    """A Retriever as a Library. Sees what others write to the index meanwhile."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    def search(self, query: str, k: int = 10, *, where: str | None = None) -> Sequence[Hit]:
        """As `Retriever.search`."""
        self._retriever.index.refresh()
        return self._retriever.search(query, k, where=where)

    def explain(self, query: str, document_id: str, *, limit: int | None = None) -> Explanation:
        """As `Retriever.explain`."""
        self._retriever.index.refresh()
        return self._retriever.explain(query, document_id, limit=limit)

    def encode(
        self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document", top_k: int | None = None
    ) -> list[tuple[Term, ...]]:
        """The terms of each text, heaviest first; at most `top_k` of each."""
        encoder = self._retriever.encoder
        vectors = Pruning(top_k=top_k)(encoder.encode(list(texts), kind=kind))
        return [
            tuple(Term(name, "pivot" if name.startswith(PREFIX["pivot"]) else "source", weight) for name, weight in row)
            for row in vectors.decode(encoder.vocab)
        ]

    def document(self, id: str) -> Record:
        """The document of that id. Raises DocumentNotFound."""
        self._retriever.index.refresh()
        return self._retriever.index.document(id)

    def fields(self) -> dict[str, str]:
        """Names of fields, and what the first documents have in them: "text", "number", "truth", "list", "object"."""
        kinds: dict[str, str] = {}
        index = self._retriever.index
        first = index.indexes[0] if isinstance(index, Shards) else index
        for record in islice(first.documents(), _SAMPLE):
            for name, value in record.fields.items():
                if value is not None:
                    kinds.setdefault(name, _kind(value))
        return kinds


def _kind(value: Any) -> str:  # noqa: ANN401 - a JSON value
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else "object"
