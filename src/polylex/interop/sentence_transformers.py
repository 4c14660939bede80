"""A Polylex model as a `SparseEncoder` of sentence-transformers: encoding, evaluation and training with its tools.

from polylex.interop.sentence_transformers import sparse_encoder

model = sparse_encoder("my-model")  # a folder that SparseModel.save_pretrained wrote, or a hub id
model.decode(model.encode_query("¿Quién puede casarse?"), top_k=5)  # [("e_marriage", 1.3), ...]

Every such folder holds a modules.json, so that `SparseEncoder(folder, trust_remote_code=True)` gives the same. The flag
is what sentence-transformers 6 asks for before it imports any class that is not its own; no code lies in the folder,
and none but the installed polylex is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from polylex.errors import BadInput, MissingExtra
from polylex.model import SparseModel
from polylex.model.modules import prompts
from polylex.model.tokens import TokenBatch
from polylex.model.views import Views
from polylex.model.weights import fill_folder
from polylex.runtime.tokens import Window
from polylex.vocab import Vocab

try:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import InputModule
except ImportError:
    raise MissingExtra("sentence-transformers 6", "sentence-transformers", "A SparseEncoder") from None

_Features = dict[str, Any]


class PolylexModule(InputModule):  # type: ignore[misc] # the package has no types
    """The one module of such a SparseEncoder: texts -> windows -> weights of all terms [B, V + Vm].

    model        SparseModel  whose parameters are trained
    max_windows  int | None   windows of a long text that are read; None reads all and merges them, as
                              Polylex does; 1 truncates, as other models of sentence-transformers do

    Both views stand in one vector: dimension t is term t of `model.vocab`. Without a source view it has V dimensions.
    """

    config_file_name = "polylex_module.json"
    config_keys = ["max_seq_length", "max_windows"]  # noqa: RUF012 - as its base class declares it

    def __init__(
        self, model: SparseModel, *, max_seq_length: int | None = None, max_windows: int | None = None
    ) -> None:
        """Take a model. `max_seq_length` counts tokens of a window, special ones too; the model's own by default."""
        super().__init__()
        self.model = model
        self.max_seq_length = max_seq_length or model.config.max_length
        self.max_windows = max_windows
        self.tokenizer = TermNames(model.vocab)

    def get_embedding_dimension(self) -> int:
        """Width of a vector."""
        pivot = self.model.config.pivot_size
        return pivot if self.model.source_head is None else len(self.model.vocab)

    def preprocess(
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        *,
        max_length: int | None = None,
        processing_kwargs: Mapping[str, Any] | None = None,
        **_: Any,  # noqa: ANN401 - "task", which makes no difference here
    ) -> _Features:
        """Texts to token ids.

        prompt      stands before every text that is not blank
        max_length  tokens a window may have in this call; processing_kwargs={"text": {"max_length": ...}} says the same

        Returns, all of shape [B, T]: input_ids int64, attention_mask int64, content_mask bool (not a special token),
        and window_ids int64, from 1 in every text, 0 for padding. The windows of a text stand one behind the other, so
        that whatever cuts a batch to rows or pads its columns keeps its meaning.
        """
        for text in inputs:
            if not isinstance(text, str):
                raise BadInput(f"a Polylex model reads strings, got {text!r:.60}")
        asked = (processing_kwargs or {}).get("text", {}).get("max_length")
        cut = self.model.tokens.model_windows(
            inputs,
            replace(self.model.config, document_prompt=prompt or ""),
            "document",
            max_length or asked or self.max_seq_length,
            self.max_windows,
        )
        batch = TokenBatch.of([_joined(windows) for windows in cut], self.model.encoder.pad)
        numbers = torch.zeros_like(batch.ids)
        for row, windows in enumerate(cut):
            each = [torch.full((len(window.ids),), number) for number, window in enumerate(windows, start=1)]
            numbers[row, : sum(map(len, each))] = torch.cat(each)
        return {
            "input_ids": batch.ids,
            "attention_mask": batch.real.long(),
            "content_mask": batch.content,
            "window_ids": numbers,
        }

    def forward(self, features: _Features, **_: Any) -> _Features:  # noqa: ANN401 - as its base class has it
        """Add "sentence_embedding" float32 [B, V + Vm], >= 0: windows merged as `polylex.pooling.merge` does.

        At most B windows go through the network at one time.
        """
        ids, numbers = features["input_ids"], features["window_ids"]
        batch = TokenBatch(ids, features["attention_mask"].bool(), features["content_mask"])
        if numbers.max() <= 1:
            features["sentence_embedding"] = self._weights(batch)
            return features
        windows, texts = _parted(batch, numbers)
        some = [slice(start, start + len(ids)) for start in range(0, len(texts), len(ids))]
        rows = torch.cat([self._weights(TokenBatch(windows.ids[s], windows.real[s], windows.content[s])) for s in some])
        empty = rows.new_zeros(len(ids), rows.shape[1])
        merged = empty.scatter_reduce(0, texts[:, None].expand_as(rows), rows, "amax")
        lengths = rows.norm(dim=1)
        speaking = lengths.new_zeros(len(ids)).index_add(0, texts, (lengths > 0).to(lengths.dtype))
        mean = lengths.new_zeros(len(ids)).index_add(0, texts, lengths) / speaking.clamp(min=1)
        features["sentence_embedding"] = merged * (mean / merged.norm(dim=1).clamp(min=1e-9))[:, None]
        return features

    def _weights(self, batch: TokenBatch) -> Tensor:
        """Both views of some windows side by side; equal source tokens of a window are summed."""
        views: Views = self.model(batch)
        if views.source is None:
            return views.pivot
        echoes = views.source.new_zeros(len(batch.ids), len(self.model.vocab.source))
        return torch.cat([views.pivot, echoes.scatter_add(1, batch.ids, views.source)], dim=1)

    # -- on disk -----------------------------------------------------------------------------------

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:  # noqa: ANN401
        """Write what SparseModel.save_pretrained writes, and polylex_module.json; weights always as safetensors."""
        fill_folder(self.model, Path(output_path))
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
        **_: Any,  # noqa: ANN401 - options of modules that have a `transformers` model inside
    ) -> PolylexModule:
        """Read a folder or hub id, as `SparseEncoder` asks. Of `model_kwargs` only the dtype has a meaning here."""
        options = dict(model_kwargs or {})
        dtype = options.pop("dtype", options.pop("torch_dtype", None))
        if options or backend != "torch":
            raise BadInput(
                f"a Polylex model takes no model_kwargs but dtype and no backend but torch, got {options} and "
                f"{backend!r}; for a quick CPU encoder use polylex.model.export and polylex.load"
            )
        place: dict[str, Any] = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        folder = cls.load_dir_path(model_name_or_path, **place) or model_name_or_path
        settings = cls.load_config(str(folder)) if Path(folder).is_dir() else {}
        module = cls(SparseModel.from_pretrained(folder), **settings)
        return module if dtype in (None, "auto") else module.to(_dtype(dtype))


class TermNames:
    """What `SparseEncoder.decode` asks of a tokenizer: the names of dimensions, "e_music" or "m_▁陌"."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab

    def __len__(self) -> int:
        return len(self._vocab)

    @property
    def vocab_size(self) -> int:
        """Terms of both views."""
        return len(self._vocab)

    def get_vocab(self) -> dict[str, int]:
        """Dimension of every name."""
        return {name: term for term, name in enumerate(self._vocab.names(range(len(self._vocab))))}

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> str | list[str]:
        """Names of dimensions."""
        return self._vocab.name(ids) if isinstance(ids, int) else self._vocab.names(ids)

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """Dimensions of names. Raises BadVectors for a name that is not there."""
        return self._vocab.id(tokens) if isinstance(tokens, str) else [self._vocab.id(name) for name in tokens]


def sparse_encoder(
    model: SparseModel | str | os.PathLike[str],
    *,
    max_windows: int | None = None,
    **options: Any,  # noqa: ANN401 - as declared there
) -> SparseEncoder:
    """A SparseEncoder of a model, or of what SparseModel.from_pretrained reads: inner product, the model's prompts.

    max_windows  as for PolylexModule
    options      of SparseEncoder: device, max_active_dims, prompts, ...

    Raises ModelNotFound, BadModel.
    """
    found = model if isinstance(model, SparseModel) else SparseModel.from_pretrained(model)
    said, default = prompts(found.config)
    return SparseEncoder(
        modules=[PolylexModule(found, max_windows=max_windows)],
        **{"prompts": said, "default_prompt_name": default, "similarity_fn_name": "dot", **options},
    )


def _joined(windows: Sequence[Window]) -> Window:
    """Windows of a text as one, end to end."""
    parts = ([getattr(window, name) for window in windows] for name in ("ids", "content", "spans"))
    return Window(*map(np.concatenate, parts))


def _parted(batch: TokenBatch, numbers: Tensor) -> tuple[TokenBatch, Tensor]:
    """The windows of a batch of joined ones, a row each, and the text [windows] of each."""
    width = int(numbers.max()) + 1
    of_token = (torch.arange(len(numbers), device=numbers.device)[:, None] * width + numbers)[batch.real]
    windows, lengths = torch.unique_consecutive(of_token, return_counts=True)
    ends = lengths.cumsum(0)[:-1].tolist()
    ids, content = (
        pad_sequence(list(torch.tensor_split(each[batch.real], ends)), batch_first=True)
        for each in (batch.ids, batch.content)
    )
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return TokenBatch(ids, real, content), windows // width


def _dtype(name: str | torch.dtype) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype):
        raise BadInput(f"no dtype {name!r}; give torch.float32, torch.bfloat16 or torch.float16")
    return dtype
