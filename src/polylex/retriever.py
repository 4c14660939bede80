"""Retriever: a model and an index, so that text goes in and documents come out.

with polylex.Retriever.build("my-index", documents) as retriever:
    hits = retriever.search("¿Quién puede casarse?", k=3)
    retriever.explain("¿Quién puede casarse?", hits[0].id).matches
"""

from __future__ import annotations

import os
import re
from ast import literal_eval
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias, cast

from polylex.builder import IndexBuilder
from polylex.corpus import Document, as_document, document_text
from polylex.errors import BadInput, ModelMismatch
from polylex.explanation import Explanation, Reader, explain
from polylex.index import Hit, Index
from polylex.prune import Pruning
from polylex.shards import Shards
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

PathName: TypeAlias = "str | os.PathLike[str]"
Prune = Callable[[SparseVectors], SparseVectors]

# Documents between two durable points of a build: about ten seconds of encoding on two cores.
CHUNK = 512


class Encoder(Protocol):
    """Anything that turns texts into vectors: our runtime, the PyTorch model, an HTTP client, a stub in a test."""

    @property
    def name(self) -> str:
        """Shown to people, kept in the index."""

    @property
    def weights_id(self) -> str:
        """Identity of the weights, "" if unknown."""

    @property
    def vocab(self) -> Vocab:
        """The term space of the vectors."""

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document") -> SparseVectors:
        """One row a text, in order."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a build has come: documents in the index, and of them those a resumed build found there already."""

    documents: int
    resumed: int


class Retriever:
    """Search an index with texts. Close it, or use it in a `with` block."""

    def __init__(self, encoder: Encoder, index: Index | Shards) -> None:
        """Put a model and an index together.

        Raises VocabMismatch or ModelMismatch unless the index was made with this model.
        """
        check_model(encoder, index)
        self.encoder = encoder
        self.index = index

    @classmethod
    def open(cls, path: PathName | Sequence[PathName], encoder: Encoder | None = None) -> Retriever:
        """Open an index, or several that are searched as one; the model is the one they were made with, unless given.

        Raises IndexNotFound, CorruptIndex, VocabMismatch, ModelMismatch.
        """
        index = Index.open(path) if isinstance(path, str | os.PathLike) else Shards.open(path)
        try:
            if encoder is None:
                from polylex.models import load

                encoder = load(index.info().settings.get("model") or index.info().encoder)
            return cls(encoder, index)
        except BaseException:
            index.close()
            raise

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        documents: Iterable[Document | Mapping[str, Any]],
        encoder: Encoder | None = None,
        *,
        text_fields: Sequence[str] | None = None,
        prune: Prune | None = None,
        overwrite: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Retriever:
        """Encode documents and index them, all or nothing.

        documents    `read_documents(...)`, or mappings with an id (`id`, `_id`, ...) and text (`title`, `text`, ...)
        text_fields  which fields are encoded, in this order; found by their usual names otherwise
        prune        drop light terms of every document, e.g. Pruning(mass=0.9)
        overwrite    replace an index that is there; it stays usable until the new one is complete

        Nothing stands at `path` before the last document is in. An interrupted build is continued by the same call with
        the same documents in the same order. Raises BadInput, DuplicateId, IndexExists, StorageFull.
        """
        if encoder is None:
            from polylex.models import load

            encoder = load()
        settings = {
            "model": getattr(encoder, "source", None),
            "text_fields": list(text_fields) if text_fields else None,
            "pruning": repr(prune) if prune else None,
        }
        with IndexBuilder(
            path,
            encoder.vocab,
            encoder=encoder.name,
            weights_id=encoder.weights_id,
            settings=settings,
            overwrite=overwrite,
        ) as builder:
            resumed = len(builder)
            if on_progress is not None:
                on_progress(Progress(resumed, resumed))
            stream = (as_document(document, text_fields=text_fields) for document in documents)
            _skip(stream, builder)
            while chunk := list(islice(stream, CHUNK)):
                vectors = encoder.encode([document.text for document in chunk], kind="document")
                builder.add(
                    [document.id for document in chunk],
                    [document.fields for document in chunk],
                    prune(vectors) if prune else vectors,
                )
                if on_progress is not None:
                    on_progress(Progress(len(builder), resumed))
            builder.finish()
        return cls.open(path, encoder)

    def search(
        self, query: str, k: int = 10, *, where: str | None = None, prune: Prune | None = None, threads: int = 1
    ) -> list[Hit]:
        """The `k` best documents for a query in any language, best first; ties in document order.

        where  only documents of which this is true, such as "lang = 'de' and year >= 2020" (docs/filters.md)
        prune  drop light terms of the query, e.g. Pruning(top_k=16): quicker, a little worse

        Raises BadFilter, which points at the mistake.
        """
        return self.search_batch([query], k, where=where, prune=prune, threads=threads)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        where: str | None = None,
        prune: Prune | None = None,
        threads: int = 1,
    ) -> list[list[Hit]]:
        """`search` for many queries at one time."""
        vectors = self.encoder.encode(list(queries), kind="query")
        return self.index.search(prune(vectors) if prune else vectors, k, where=where, threads=threads)

    # -- changing --------------------------------------------------------------------------------

    def add(
        self,
        documents: Iterable[Document | Mapping[str, Any]],
        *,
        upsert: bool = False,
        prune: Prune | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> int:
        """Encode documents and add them to the index, all or nothing; how many replaced others.

        documents  as for `build`; the same fields are encoded
        upsert     replace documents that have the same id, instead of refusing the new ones
        prune      as for `build`; by default what the index was built with

        Others may search meanwhile. This retriever sees the documents on return. Raises DuplicateId, BadInput,
        IndexLocked, which names the one who is writing, and StorageFull.
        """
        settings = self._one_index().info().settings
        if prune is None:
            prune = stored_pruning(settings.get("pruning"))
        stream = (as_document(document, text_fields=settings.get("text_fields")) for document in documents)
        count = replaced = 0
        with IndexWriter(self.index.path) as writer:
            while chunk := list(islice(stream, CHUNK)):
                vectors = self.encoder.encode([document.text for document in chunk], kind="document")
                ids, fields = [document.id for document in chunk], [document.fields for document in chunk]
                kept = prune(vectors) if prune else vectors
                if upsert:
                    replaced += writer.upsert(ids, fields, kept)
                else:
                    writer.add(ids, fields, kept)
                count += len(chunk)
                if on_progress is not None:
                    on_progress(Progress(count, 0))
        self.refresh()
        return replaced

    def delete(self, ids: Sequence[str], *, missing_ok: bool = False) -> int:
        """Delete documents, all or nothing; how many there were.

        Raises DocumentNotFound for an id that is not there, unless `missing_ok`; IndexLocked, StorageFull.
        """
        with IndexWriter(self._one_index().path) as writer:
            deleted = writer.delete(ids, missing_ok=missing_ok)
        self.refresh()
        return deleted

    def refresh(self) -> bool:
        """See what writers have done since this was opened; whether there was something.

        Raises VocabMismatch or ModelMismatch where another index, of another model, stands there now.
        """
        changed = self.index.refresh()
        if changed:
            check_model(self.encoder, self.index)
        return changed

    def _one_index(self) -> Index:
        if not isinstance(self.index, Index):
            raise BadInput("several indexes are open as one; open the one that is to change")
        return self.index

    # -- explaining ------------------------------------------------------------------------------

    def explain(self, query: str, document_id: str, *, limit: int | None = None) -> Explanation:
        """Why this document matches, or would match, this query. Raises DocumentNotFound.

        Needs a model that can point at words (the runtime's Encoder can).
        """
        if not hasattr(self.encoder, "term_spans"):
            raise BadInput(f"{type(self.encoder).__name__} has no term_spans, which an explanation needs; use load()")
        reader = cast(Reader, self.encoder)
        hit = self.index.document(document_id)
        text = document_text(hit.fields, self.index.text_fields(hit.row))
        query_vector = self.encoder.encode([query], kind="query")
        return explain(
            reader,
            (query, query_vector),
            (text, self.index.vectors([hit.row])),
            document_id=document_id,
            limit=limit,
        )

    def close(self) -> None:
        """Release the index's files."""
        self.index.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stored_pruning(stored: object) -> Prune | None:
    """The rule that an index was built or pruned with. Raises BadInput where its settings do not tell it whole."""
    if stored is None:
        return None
    try:
        return Pruning(**(stored if isinstance(stored, dict) else _limits(str(stored))))
    except (ValueError, SyntaxError, TypeError):
        raise BadInput(f"the index holds documents pruned by {stored}; give the same rule as prune=...") from None


def _limits(text: str) -> dict[str, Any]:
    """The arguments of a Pruning, from its text. Raises ValueError or SyntaxError for any other text."""
    found = re.fullmatch(r"Pruning\((.*)\)", text)
    if found is None:
        raise ValueError(text)
    return {name: literal_eval(limit) for name, limit in (part.split("=") for part in found[1].split(", "))}


def check_model(encoder: Encoder, index: Index | Shards) -> None:
    """Raise VocabMismatch or ModelMismatch unless `index` was made with the weights of `encoder`."""
    info = index.info()
    SparseVectors.empty(encoder.vocab.fingerprint).require(index.vocab_fingerprint, f"the index {info.path}")
    if encoder.weights_id and info.weights_id and encoder.weights_id != info.weights_id:
        raise ModelMismatch(
            f"{info.path} was made with {info.encoder} ({info.weights_id[:12]}), the query model is {encoder.name} "
            f"({encoder.weights_id[:12]}); their weights are not comparable. "
            f"Search with {info.encoder}, or index the documents again."
        )


def _skip(stream: Iterator[Document], builder: IndexBuilder) -> None:
    """Pass over the documents that an interrupted build already holds, checking that they are the same ones."""
    seen = deque(islice(stream, len(builder)), maxlen=1)
    last = seen[0] if seen else None
    if len(builder) and (last is None or last.id != builder.last_id):
        raise BadInput(
            f"the interrupted build in {builder.folder} stopped after document {builder.last_id!r}, the input now has "
            f"{last.id if last else 'fewer documents'!r} there. Give the same input again, or remove that folder to "
            "begin anew."
        )
