"""SPLADE models of other libraries as a Polylex encoder: a folder of a `SparseEncoder`, or any masked language model.

    encoder = polylex.load("splade-v3")        # opens whichever kind of folder it is given
    encoder.encode_query(["cheap flights"]).decode(encoder.vocab, top_k=5)

What is understood: a `transformers` folder whose architecture is ...ForMaskedLM (SPLADE max pooling), a modules.json of
sentence-transformers with a Transformer and a SpladePooling, and one with a Router whose queries are looked up in a
table (SparseStaticEmbedding). No code of a folder is run, and sentence-transformers is not needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from polylex.config import ModelConfig
from polylex.errors import BadModel
from polylex.model.encoder import first_position
from polylex.model.weights import identity, read_tensors
from polylex.pooling import Row
from polylex.runtime.encoder import Encoder
from polylex.runtime.tokens import Kind, Tokens, Window
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

Strategy = Literal["max", "sum"]

_BODIES = ("Transformer", "MLMTransformer")
_TABLES = ("SparseStaticEmbedding", "IDF")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a folder lie, and how tokens become a vector.

    body       folder of the masked language model and its tokenizer
    strategy   over the tokens of a text: "max" (SPLADE v2 and later, arXiv:2205.04733) or "sum" (arXiv:2107.05720)
    log_twice  log(1 + log(1 + relu(x))), as inference-free SPLADE has it (arXiv:2504.14839), or log(1 + relu(x))
    table      folder with the weight of every token in a query, None where queries are encoded as documents are
    """

    body: Path
    strategy: Strategy = "max"
    log_twice: bool = False
    table: Path | None = None


class SpladeEncoder(Encoder):
    """A masked language model whose scores, pooled over the tokens, weigh the terms of its own vocabulary.

    All terms are of the pivot view, `e_...`, whatever their language. Every token speaks, special ones too. As with any
    Encoder one text is one run of the network, and a text longer than `config.max_length` is read in windows;
    max_windows=1 truncates it, as sentence-transformers does.
    """

    def __init__(self, folder: str | os.PathLike[str], *, threads: int | None = None) -> None:
        """Open a local folder, offline.

        threads  of PyTorch, for the whole process; left as they are by default

        Raises BadModel for a folder that is not SPLADE-like, naming what was found.
        """
        self.folder = Path(folder)
        self.source = str(self.folder.resolve())
        if threads:
            torch.set_num_threads(threads)
        self.threads = 1  # PyTorch spreads a single text over the cores itself
        self._layout = read_layout(self.folder)
        self._model = _read_model(self._layout.body)
        tokenizer = _read_tokenizer(self._layout.body)
        self.tokens = Tokens(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()))
        self._table = None if self._layout.table is None else _read_table(self._layout.table)
        self.config = _config(self.folder, self._layout.body, self._model, tokenizer.model_max_length, self._table)

    @cached_property
    def vocab(self) -> Vocab:
        """The term space of the vectors: the model's own tokens."""
        names = self.tokens.names
        unnamed = range(len(names), self.config.pivot_size)  # columns that only pad the matrix
        return Vocab((*names, *(f"<unused{index}>" for index in unnamed)), ())

    def encode(self, texts: str | Sequence[str], *, kind: Kind = "document", **options: Any) -> SparseVectors:  # noqa: ANN401
        """As Encoder.encode. Queries of an inference-free model are looked up, each token once."""
        if kind == "document" or self._table is None:
            return super().encode(texts, kind=kind, **options)
        prune, on_text = options.pop("prune", None), options.pop("on_text", None)
        rows = []
        for windows in self.windows([texts] if isinstance(texts, str) else texts, kind=kind, **options):
            rows.append(_looked_up(self._table, windows))
            if on_text is not None:
                on_text(len(windows))
        vectors = SparseVectors.from_rows(rows, self.vocab.fingerprint)
        return prune(vectors) if prune else vectors

    def term_spans(
        self, text: str, terms: Sequence[int], *, kind: Kind = "document"
    ) -> dict[int, list[tuple[int, int]]]:
        """As Encoder.term_spans; in a query that was looked up, a term has the ranges of all its occurrences."""
        if kind == "document" or self._table is None:
            return super().term_spans(text, terms, kind=kind)
        windows = self.windows([text], kind=kind)[0]
        found: dict[int, set[tuple[int, int]]] = {term: set() for term in terms}
        for window in windows:
            for term in terms:
                for start, end in window.spans[(window.ids == term) & window.content].tolist():
                    found[term].add((start, end))
        return {term: sorted(spans) for term, spans in found.items()}

    @torch.inference_mode()
    def _scores(self, window: Window) -> Tensor:
        """Raw scores float32 [L, V] of every term at every token."""
        ids = torch.from_numpy(window.ids)[None]
        scores: Tensor = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        return scores.float()

    def _encode_window(self, window: Window) -> Row:
        scores = self._scores(window)
        if self._layout.strategy == "max":
            weights = self._activated(scores.amax(dim=0))  # what follows is monotone
        else:
            weights = self._activated(scores).sum(dim=0)
        terms = torch.nonzero(weights)[:, 0]
        return terms.numpy().astype(np.uint32), weights[terms].numpy()

    def _activated(self, scores: Tensor) -> Tensor:
        weights = scores.relu().log1p()
        return weights.log1p() if self._layout.log_twice else weights

    def _logits(self, window: Window, terms: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._scores(window)[:, torch.from_numpy(terms)].numpy()
        return scores


def _looked_up(table: NDArray[np.float32], windows: Sequence[Window]) -> Row:
    """Weights of the distinct tokens of a text."""
    terms = np.unique(np.concatenate([window.ids[window.content] for window in windows]))
    terms = terms[table[terms] > 0]
    return terms.astype(np.uint32), table[terms]


# -- reading a folder --------------------------------------------------------------------------------


def read_layout(folder: Path) -> Layout:
    """Find the parts of a folder. Raises BadModel where it is not SPLADE-like."""
    path = folder / "modules.json"
    if not path.is_file():
        _require_masked(folder)
        return Layout(folder)
    modules = [(_class(entry), folder / str(entry.get("path", ""))) for entry in _json(path, list)]
    if [name for name, _ in modules] == ["Router"]:
        return _routed(modules[0][1], folder)
    return _pooled(modules, folder)


def _pooled(modules: Sequence[tuple[str, Path]], folder: Path) -> Layout:
    """The layout of a body and its pooling."""
    names = [name for name, _ in modules]
    if len(names) != 2 or names[0] not in _BODIES or names[1] != "SpladePooling":
        raise BadModel(
            f"{folder} holds {' and '.join(names)}, not Transformer and SpladePooling: it is no SPLADE model. "
            'A dense one is measured by `polylex evaluate "dense:FOLDER"`, not opened as a sparse encoder.'
        )
    body, pooling = modules[0][1], _json(modules[1][1] / "config.json", dict)
    _require_masked(body)
    strategy, activation = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    if strategy not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise BadModel(
            f"{modules[1][1] / 'config.json'} asks for {strategy!r} of {activation!r}; this release knows max and sum "
            "of relu and log1p_relu"
        )
    return Layout(body, strategy, activation == "log1p_relu")


def _routed(router: Path, folder: Path) -> Layout:
    """The layout of a Router whose documents are pooled and whose queries are looked up, or pooled by the same."""
    table = _json(router / "router_config.json", dict)
    types, structure = table.get("types", {}), table.get("structure", {})
    routes = {
        kind: [(str(types.get(name)).rpartition(".")[2], router / str(name)) for name in structure.get(kind, [])]
        for kind in ("query", "document")
    }
    layout = _pooled(routes["document"], folder)
    names = [name for name, _ in routes["query"]]
    if len(names) != 1 or names[0] not in _TABLES:
        raise BadModel(
            f"{folder} routes queries through {' and '.join(names) or 'nothing'}; only a table is understood"
        )
    return replace(layout, table=routes["query"][0][1])


def _require_masked(body: Path) -> None:
    architectures = _json(body / "config.json", dict).get("architectures") or []
    if not any(str(name).endswith("ForMaskedLM") for name in architectures):
        raise BadModel(
            f"{body} is {', '.join(architectures) or 'of no architecture'}, not a masked language model: without its "
            "head there are no terms to weigh. Give the folder of a SPLADE model, or of a ...ForMaskedLM."
        )


def _class(entry: Any) -> str:  # noqa: ANN401 - any JSON value
    """Bare name of a module's class."""
    return str(entry.get("type", "")).rpartition(".")[2] if isinstance(entry, dict) else repr(entry)


def _json(path: Path, kind: type) -> Any:  # noqa: ANN401 - any JSON value
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BadModel(f"{path} cannot be read ({fault}); copy the model again") from None
    if not isinstance(table, kind):
        raise BadModel(f"{path} holds {type(table).__name__}, expected {kind.__name__}; copy the model again")
    return table


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no remarks of transformers meanwhile."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _read_model(body: Path) -> nn.Module:
    try:
        with quiet():
            model, told = AutoModelForMaskedLM.from_pretrained(
                str(body), local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as fault:
        raise BadModel(f"{body} cannot be read as a masked language model ({fault}); copy the model again") from None
    if missing := sorted(told["missing_keys"]):
        raise BadModel(
            f"{body} lacks {len(missing)} weights of a masked language model, such as {missing[0]}; "
            "copy the model again"
        )
    made: nn.Module = model.eval()
    return made


def _read_tokenizer(body: Path) -> Any:  # noqa: ANN401 - of transformers
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(body), local_files_only=True)
    except (OSError, ValueError, KeyError) as fault:
        raise BadModel(f"{body} has no tokenizer that can be read ({fault}); copy the model again") from None
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise BadModel(f"{body} has a tokenizer without a tokenizer.json; save it again with transformers")
    return tokenizer


def _read_table(folder: Path) -> NDArray[np.float32]:
    """Weight float32 [tokens] of every token in a query."""
    tensors = read_tensors(folder)
    if tensors.keys() != {"weight"} or tensors["weight"].ndim != 1:
        raise BadModel(f"the weights in {folder} are {sorted(tensors)}, expected one row named weight")
    table: NDArray[np.float32] = tensors["weight"].float().numpy()
    return table


def _config(
    folder: Path,
    body: Path,
    model: Any,  # noqa: ANN401 - of transformers
    tokenizer_limit: int,
    table: NDArray[np.float32] | None,
) -> ModelConfig:
    """What a ModelConfig can say of such a model."""
    settings = model.config.to_dict()
    digest = hashlib.sha256(identity(model).encode() + (b"" if table is None else table.tobytes())).hexdigest()
    longest = _longest(body, settings, tokenizer_limit)
    prompts = _prompts(folder / "config_sentence_transformers.json")
    return ModelConfig(
        name=folder.resolve().name,
        encoder=settings,
        pivot_size=int(model.get_output_embeddings().weight.shape[0]),
        pivot_width=int(settings.get("hidden_size", settings.get("dim", 1))),
        pivot_vocabulary="",
        echo_placement="none",
        pivot_speakers="all",
        empty_speaks=True,
        max_length=longest,
        stride=min(64, longest // 8),
        query_prompt=prompts.get("query", ""),
        document_prompt=next((prompts[name] for name in ("document", "passage", "corpus") if name in prompts), ""),
        weights_id=digest,
    )


def _longest(body: Path, settings: dict[str, Any], tokenizer_limit: int) -> int:
    """Tokens a window may have: the least of what the encoder, its tokenizer and its settings here allow."""
    limits = [tokenizer_limit]
    if "max_position_embeddings" in settings:
        limits.append(int(settings["max_position_embeddings"]) - first_position(settings))
    path = body / "sentence_bert_config.json"
    if path.is_file() and (said := _json(path, dict).get("max_seq_length")):
        limits.append(int(said))
    return int(min(limits))


def _prompts(path: Path) -> dict[str, str]:
    prompts = _json(path, dict).get("prompts") if path.is_file() else None
    return {name: text or "" for name, text in (prompts or {}).items()}
