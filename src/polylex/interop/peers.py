"""Models of sentence-transformers as systems under test, from a local folder: `Dense`, and any kind of `SparseEncoder`.

    outcome = Dense("all-MiniLM-L6-v2").search(read_beir("scifact"), 100)
    outcome = Sparse(SparsePeer("my-sparse-encoder")).search(read_beir("scifact"), 100)

A sparse model is never scored as a dense one: `SentenceTransformer(folder)` would open its folder without a word, drop
the head that makes it what it is, and average hidden states. `Dense` refuses it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.collection import Collection
from polylex.encodings import Encodings
from polylex.errors import BadModel, MissingExtra
from polylex.interop.tensors import from_tensor
from polylex.model.splade import quiet
from polylex.runtime.tokens import Kind
from polylex.systems import Outcome
from polylex.trec import PathName, Run
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

try:
    import sentence_transformers
except ImportError:
    raise MissingExtra("sentence-transformers", "sentence-transformers", "A model of sentence-transformers") from None

BLOCK = 256  # queries whose scores exist at one time
_SPARSE_MODULES = ("SpladePooling", "SparseAutoEncoder", "CSRSparsity", "SparseStaticEmbedding", "IDF", "PolylexModule")
_SCORES = ("cosine", "dot")


class Dense:
    """A dense bi-encoder: every document ranked exactly, by the model's own similarity (cosine or inner product).

    query_prompt     stands before every query; None: what the folder says, if it does. e5 wants "query: "
    document_prompt  likewise; e5 wants "passage: "
    encodings        where vectors are kept between runs; in memory by default
    options          of SentenceTransformer: device, model_kwargs, ...
    """

    def __init__(
        self,
        folder: PathName,
        name: str = "",
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        encodings: Encodings | None = None,
        batch_size: int = 32,
        on_texts: Callable[[int], None] | None = None,
        **options: Any,  # noqa: ANN401 - as declared there
    ) -> None:
        """Take a local folder; it is opened when the first text has to be encoded.

        Raises BadModel where the folder holds no dense bi-encoder.
        """
        self.folder = Path(folder)
        require_dense(self.folder)
        self.name = name or f"dense:{self.folder.resolve().name}"
        self._prompts: dict[Kind, str | None] = {"query": query_prompt, "document": document_prompt}
        self._encodings = encodings or Encodings("")
        self._batch_size, self._on_texts, self._options = batch_size, on_texts, options

    def search(self, collection: Collection, k: int) -> Outcome:
        """The `k` best documents of every query; ties in document order. Raises BadModel for vectors of zeros."""
        before = self._encodings.encoded, self._encodings.seconds
        documents = self._vectors("document", collection.texts)
        queries = self._vectors("query", [query.text for query in collection.queries])
        start = time.perf_counter()
        run = rank(collection, queries, documents, k)
        return Outcome(
            run,
            index_bytes=documents.nbytes,
            encoded=self._encodings.encoded - before[0],
            encoding_seconds=self._encodings.seconds - before[1],
            search_seconds=time.perf_counter() - start,
        )

    def _vectors(self, kind: Kind, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [texts, width], as they are compared."""
        prompt = self._prompts[kind]
        label = kind if prompt is None else f"{kind}\0{prompt}"
        rows = self._encodings.fetch(label, texts, lambda chunk: self._encode(kind, chunk), self._on_texts)
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1 if rows else 0)

    def _encode(self, kind: Kind, texts: list[str]) -> list[bytes]:
        model = self._model
        encode = model.encode_query if kind == "query" else model.encode_document
        vectors = encode(
            texts,
            prompt=self._prompts[kind],
            batch_size=self._batch_size,
            show_progress_bar=False,
            normalize_embeddings=model.similarity_fn_name == "cosine",
        )
        refuse_sparse(np.asarray(vectors, np.float32), str(self.folder))
        return [row.tobytes() for row in np.asarray(vectors, np.float32)]

    @cached_property
    def _model(self) -> Any:  # noqa: ANN401 - the package has no types
        try:
            with quiet():
                model = sentence_transformers.SentenceTransformer(
                    str(self.folder), **{"local_files_only": True, **self._options}
                )
        except (OSError, ValueError, KeyError) as fault:
            raise BadModel(f"{self.folder} cannot be opened by sentence-transformers ({fault})") from None
        if model.similarity_fn_name not in _SCORES:
            raise BadModel(
                f"{self.folder} compares by {model.similarity_fn_name}; only {', '.join(_SCORES)} are measured"
            )
        return model


class SparsePeer:
    """Any SparseEncoder as an encoder of Polylex, encoded by sentence-transformers: CSR models too.

    SPLADE models are better opened by `polylex.load`: they then read long texts whole, and can be explained.

    Dimensions are named by the model's tokens where it has one for each, else by their numbers.
    """

    weights_id = ""

    def __init__(self, folder: PathName, name: str = "", *, batch_size: int = 32, **options: Any) -> None:  # noqa: ANN401
        """Open a local folder. `options` are those of SparseEncoder. Raises BadModel."""
        path = Path(folder)
        self.name = name or f"sparse-encoder:{path.resolve().name}"
        self._batch_size = batch_size
        try:
            with quiet():
                self._model = sentence_transformers.SparseEncoder(str(path), **{"local_files_only": True, **options})
        except (OSError, ValueError, KeyError) as fault:
            raise BadModel(f"{path} cannot be opened as a SparseEncoder ({fault})") from None

    @cached_property
    def vocab(self) -> Vocab:
        """The dimensions."""
        width = int(self._model.encode("a", convert_to_sparse_tensor=True).shape[0])
        ids: dict[str, int] = self._model.tokenizer.get_vocab()
        names = sorted(ids, key=lambda name: ids[name]) if len(ids) == width else map(str, range(width))
        return Vocab(tuple(names), ())

    def encode(self, texts: Sequence[str], *, kind: Kind = "document") -> SparseVectors:
        """One row a text, in order; longer texts than the model takes are truncated."""
        if not texts:
            return SparseVectors.empty(self.vocab.fingerprint)
        encode = self._model.encode_query if kind == "query" else self._model.encode_document
        found = encode(list(texts), batch_size=self._batch_size, show_progress_bar=False, save_to_cpu=True)
        return from_tensor(found, self.vocab.fingerprint)


def rank(collection: Collection, queries: NDArray[np.float32], documents: NDArray[np.float32], k: int) -> Run:
    """The `k` documents of highest inner product for each query; ties in document order.

    queries [Q, D], documents [N, D]
    """
    run: Run = {}
    for first, scores in _blocks(queries, documents):
        for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :k]):
            run[collection.queries[first + row].id] = [(collection.ids[at], float(scores[row, at])) for at in best]
    return run


def _blocks(queries: NDArray[np.float32], documents: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First query and scores [queries, documents] of each block of queries."""
    for first in range(0, len(queries), BLOCK):
        yield first, queries[first : first + BLOCK] @ documents.T


# -- the guard ---------------------------------------------------------------------------------------


def require_dense(folder: Path) -> None:
    """Raise BadModel where a folder says that it holds something else than a dense bi-encoder."""
    if not folder.is_dir():
        raise BadModel(f"{folder}: no such folder; a dense model is measured from a local folder")
    config, settings = _table(folder / "config.json"), _table(folder / "config_sentence_transformers.json")
    kind = str(settings.get("model_type", "SentenceTransformer"))
    modules = _module_names(folder)
    reason = ""
    if config.get("format") == "polylex-model":
        reason = "a Polylex model"
    elif kind != "SentenceTransformer":
        reason = f"a {kind}"
    elif found := [name for name in modules if name in _SPARSE_MODULES]:
        reason = f"a sparse encoder ({', '.join(found)})"
    elif not modules and any(str(each).endswith("ForMaskedLM") for each in config.get("architectures") or ()):
        reason = "a masked language model, as SPLADE models are saved"
    if reason:
        raise BadModel(
            f"{folder} holds {reason}, not a dense bi-encoder. Scored as dense it would be measured without its head, "
            "on averaged hidden states. Give the folder without `dense:`, so that it is opened for what it is."
        )


def refuse_sparse(vectors: NDArray[np.float32], where: str) -> None:
    """Raise BadModel for vectors [rows, width] more than half of which is exactly zero: no dense model makes such.

    Rows of nothing but zeros are passed over: some models give them to blank texts.
    """
    filled = vectors[vectors.any(axis=1)]
    if filled.size and (zeros := float((filled == 0).mean())) > 0.5:
        raise BadModel(
            f"{where} gives vectors that are zero to {zeros:.0%}: it is sparse and must not be scored as dense. "
            "Give the folder without `dense:`, or as `sparse-encoder:`."
        )


def _module_names(folder: Path) -> list[str]:
    """Bare class names of modules.json and of the routes of a Router."""
    path = folder / "modules.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    types = [str(entry.get("type", "")) for entry in entries]
    types += map(str, _table(folder / "router_config.json").get("types", {}).values())
    return [each.rpartition(".")[2] for each in types]


def _table(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise BadModel(f"{path} cannot be read ({fault}); copy the model again") from None
    return table if isinstance(table, dict) else {}
