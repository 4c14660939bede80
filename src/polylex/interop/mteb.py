"""Polylex models in MTEB: searched through an inverted index, never compared as dense vectors.

    import mteb
    from polylex.interop.mteb import search_model

    mteb.evaluate(search_model("polylex-mini"), mteb.get_tasks(tasks=["SciFact"]))

Needs the extra polylex[mteb] (mteb 2, Python 3.11 or newer). `InvertedIndex` serves any other sparse model of MTEB too:
`SearchEncoderWrapper(model, index_backend=InvertedIndex())`. `local_task` makes a task of a test collection on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polylex.collection import Collection
from polylex.errors import BadInput, MissingExtra
from polylex.index import Index
from polylex.interop.tensors import from_tensor, to_tensor
from polylex.models import DEFAULT, load
from polylex.retriever import Encoder
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

try:
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import ModelMeta, SearchEncoderWrapper
    from mteb.types import PromptType
except ImportError:
    raise MissingExtra("mteb", "mteb", "MTEB (Python 3.11 or newer)") from None

_PAPER = """@misc{nguyen2025milco,
  title={Milco: Learned Sparse Retrieval Across Languages via a Multilingual Connector},
  author={Nguyen, Thong and Lei, Yibin and Ju, Jia-Huei and Yang, Eugene and Yates, Andrew},
  year={2025},
  eprint={2510.00671},
  archivePrefix={arXiv}
}"""


class PolylexModel:
    """An encoder as MTEB's EncoderProtocol: texts -> sparse COO float32 [texts, terms], compared by inner product.

    Only for tasks that search. What compares vectors in another way (STS, clustering, classification, ...) would take
    them for dense ones, and is refused.
    """

    def __init__(self, encoder: Encoder, meta: ModelMeta) -> None:
        self._encoder = encoder
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **_: Any,  # noqa: ANN401 - names of split and subset, batch size, ...
    ) -> Tensor:
        """Vectors of the texts of a dataloader, as queries or as documents. Raises BadInput for other kinds of task."""
        if task_metadata.simplified_task_type != "retrieval":
            raise BadInput(
                f"{task_metadata.name} is a {task_metadata.type} task, which compares dense vectors; a sparse model is "
                "measured by retrieval and reranking. Leave the task out."
            )
        texts = [text for batch in inputs for text in batch["text"]]
        kind: Any = "query" if prompt_type == PromptType.query else "document"
        return to_tensor(self._encoder.encode(texts, kind=kind), len(self._encoder.vocab))

    def similarity(self, embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
        """Inner products float32 [rows, rows]. Raises BadInput for dense vectors."""
        width = embeddings1.shape[1]
        return torch.from_numpy(from_tensor(embeddings1, str(width)).dot(from_tensor(embeddings2, str(width))))

    def similarity_pairwise(self, embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
        """Inner products float32 [rows] of each row with its counterpart."""
        return self.similarity(embeddings1, embeddings2).diagonal()


class InvertedIndex:
    """A search backend of MTEB for sparse vectors: exact, through the index that Polylex serves from.

    Documents that share no term with a query are not in its ranking. Ties stand in the order of the documents.
    """

    def __init__(self, threads: int = 1) -> None:
        """`threads` cores look through the index."""
        self._threads = threads
        self.clear()

    def add_documents(self, embeddings: Tensor, idxs: Sequence[str]) -> None:
        """Take vectors, sparse COO [documents, terms] with weights >= 0. Raises BadInput for others."""
        self._parts.append(from_tensor(embeddings, str(embeddings.shape[1])))
        self._ids += map(str, idxs)

    def search(
        self,
        embeddings: Tensor,
        top_k: int,
        similarity_fn: Callable[..., Any] | None = None,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores and places of the best documents of each query, best first.

        similarity_fn  not asked: an inverted index has the inner product
        top_ranked     by query id, the only documents to rank; places are then places in its list
        """
        if not self._parts:
            raise BadInput("the index is empty; add documents before searching")
        queries = from_tensor(embeddings, self._parts[0].vocab)
        if top_ranked is not None:
            return self._ranked(queries, top_k, [top_ranked.get(name, []) for name in (query_idx_to_id or {}).values()])
        width = embeddings.shape[1]
        with TemporaryDirectory() as folder:
            vocab = Vocab([str(term) for term in range(width)], ())
            rows = [str(row) for row in range(len(self._ids))]  # ids of a corpus may have any form
            documents = _in(vocab, SparseVectors.concat(self._parts))
            with Index.build(Path(folder) / "index", documents, rows, vocab=vocab) as index:
                hits = index.search(_in(vocab, queries), top_k, threads=self._threads, with_fields=False)
        return [[hit.score for hit in row] for row in hits], [[int(hit.id) for hit in row] for row in hits]

    def clear(self) -> None:
        """Forget all documents."""
        self._parts: list[SparseVectors] = []
        self._ids: list[str] = []

    def _ranked(
        self, queries: SparseVectors, top_k: int, candidates: Sequence[Sequence[str]]
    ) -> tuple[list[list[float]], list[list[int]]]:
        documents = SparseVectors.concat(self._parts)
        row = {name: index for index, name in enumerate(self._ids)}
        scores, places = [], []
        for query, names in enumerate(candidates):
            products = queries.take([query]).dot(documents.take([row[name] for name in names]))[0]
            order = np.argsort(-products, kind="stable")[:top_k]
            scores.append(products[order].tolist())
            places.append(order.tolist())
        return scores, places


def model_meta(encoder: Encoder, **facts: Any) -> ModelMeta:  # noqa: ANN401 - fields of ModelMeta
    """What MTEB records of a model.

    facts  fields to set or replace: n_parameters, license, training_datasets, languages, ...

    MTEB wants names of the form owner/name: one without an owner becomes polylex/name.
    """
    config = getattr(encoder, "config", None)
    return ModelMeta.create_empty(
        overwrites={
            "loader": search_model,
            "name": encoder.name if "/" in encoder.name else f"polylex/{encoder.name}",
            "revision": encoder.weights_id or "unknown",
            "model_type": ["sparse"],
            "similarity_fn_name": "dot",
            "embed_dim": len(encoder.vocab),
            "max_tokens": config and config.max_length,
            "use_instructions": bool(config and (config.query_prompt or config.document_prompt)),
            "framework": ["ONNX", "NumPy"],
            "open_weights": True,
            "citation": _PAPER,
            **facts,
        }
    )


def release_meta() -> ModelMeta:
    """ModelMeta of the bundled model."""
    encoder = load()
    return model_meta(
        encoder,
        license="apache-2.0",
        adapted_from="intfloat/multilingual-e5-small",
        n_parameters=_parameters(encoder.folder),
        memory_usage_mb=round(sum(file.stat().st_size for file in encoder.folder.iterdir()) / 2**20, 1),
        # Backbone and teachers saw MS MARCO; of its own data (docs/release-data.md) MTEB has tasks of the others.
        training_datasets={"MSMARCO", "MedicalQARetrieval", "JaQuADRetrieval"},
    )


def search_model(
    model: str | os.PathLike[str] | Encoder = DEFAULT,
    revision: str | None = None,
    *,
    device: str | None = None,
    threads: int | None = None,
    **facts: Any,  # noqa: ANN401 - fields of ModelMeta
) -> SearchEncoderWrapper:
    """A model ready for `mteb.evaluate`: encoded by Polylex, searched in an InvertedIndex.

    model    an encoder, or what polylex.load takes; "polylex/NAME" is the bundled model NAME
    device   only "cpu" or None: the runtime has no other
    threads  texts encoded at one time

    Also the loader of `model_meta` and `release_meta`.
    """
    if device not in (None, "cpu"):
        raise BadInput(f"the Polylex runtime encodes on the CPU, got device {device!r}; leave it out")
    encoder = model if not isinstance(model, str | os.PathLike) else _opened(model, revision, threads)
    return SearchEncoderWrapper(PolylexModel(encoder, model_meta(encoder, **facts)), index_backend=InvertedIndex())


def local_task(collection: Collection, languages: Sequence[str] = ("eng-Latn",), **facts: Any) -> AbsTaskRetrieval:  # noqa: ANN401
    """A retrieval task of MTEB made of a collection, e.g. `read_beir("scifact")`; nothing is downloaded.

    languages  as MTEB writes them: ISO 639-3 and script
    facts      fields of TaskMetadata to set: license, domains, ...
    """
    settings: dict[str, Any] = {
        "name": collection.name,
        "description": f"The collection {collection.name}, read from disk by Polylex.",
        "type": "Retrieval",
        "category": "t2t",
        "eval_langs": list(languages),
        "main_score": "ndcg_at_10",
        "dataset": {"path": f"local/{collection.name}", "revision": "local"},
    }

    class LocalTask(AbsTaskRetrieval):  # type: ignore[misc] # the package has no types here
        metadata = TaskMetadata(**settings | facts)

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:  # noqa: ANN401 - a timer
            self.dataset = {"default": {"test": _split(collection)}}
            self.data_loaded = True

    return LocalTask()


def _split(collection: Collection) -> dict[str, Any]:
    asked = [query for query in collection.queries if query.id in collection.judgments]
    return {
        "corpus": Dataset.from_dict({"id": list(collection.ids), "text": list(collection.texts)}),
        "queries": Dataset.from_dict({"id": [q.id for q in asked], "text": [q.text for q in asked]}),
        "relevant_docs": {query: dict(grades) for query, grades in collection.judgments.items()},
        "top_ranked": None,
    }


def _opened(model: str | os.PathLike[str], revision: str | None, threads: int | None) -> Encoder:
    """Open by name; a revision is one of the hub's only for what comes from there."""
    name = str(model)
    if name.startswith("polylex/") and not Path(model).exists():
        return load(name.removeprefix("polylex/"), threads=threads)
    return load(model, revision=None if Path(model).exists() else revision, threads=threads)


def _parameters(folder: Path) -> int:
    """Weights in a folder's model.safetensors; scales and split columns of int8 count as well."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118


def _in(vocab: Vocab, vectors: SparseVectors) -> SparseVectors:
    return SparseVectors(vectors.indptr, vectors.terms, vectors.weights, vocab.fingerprint)
