"""The dense encoder that the model grew from: an E5 model, all documents ranked exactly.

`polylex.interop.peers.Dense` by other means of encoding: bfloat16, batches of like length, and a trimmed vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.encodings import Encodings, identity_of
from polylex.interop import peers
from polylex.runtime.tokens import Kind

_PREFIX: dict[Kind, str] = {"query": "query: ", "document": "passage: "}


class Dense(peers.Dense):
    """An E5 model by PyTorch: mean of the last layer over all tokens, scaled to length 1.

    "query: " or "passage: " stands before every text; 512 tokens of it are read.

    folder      a local folder in Hugging Face's layout (config.json, model.safetensors, tokenizer.json)
    cache       folder that keeps the encodings
    precision   "bfloat16" is three times as fast on CPUs that have it
    vocabulary  folder with a tokenizer.json of fewer pieces, used in place of the model's own: what trimming costs
    """

    max_length = 512
    batch_tokens = 4096

    def __init__(
        self,
        folder: Path,
        cache: Path,
        precision: Literal["bfloat16", "float32"] = "bfloat16",
        vocabulary: Path | None = None,
        threads: int | None = None,
    ) -> None:
        name = f"dense:{folder.resolve().name}"
        if vocabulary is not None:
            name += f"+vocabulary={vocabulary.resolve().name}"
        trimmed = [_digest(vocabulary / "tokenizer.json")] if vocabulary else []
        encodings = Encodings(identity_of(folder, "dense", precision, *trimmed), cache)
        super().__init__(folder, name, encodings=encodings, on_texts=dot)
        self._precision, self._vocabulary, self._threads = precision, vocabulary, threads

    def _encode(self, kind: Kind, texts: Sequence[str]) -> list[bytes]:
        import torch

        tokenize, model = self._loaded
        tokens = tokenize([_PREFIX[kind] + text for text in texts])
        rows: dict[int, bytes] = {}
        for batch in _batches(tokens, self.batch_tokens):
            ids, real = _padded([tokens[index] for index in batch], model.config.pad_token_id)
            with torch.inference_mode():
                hidden = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(real)).last_hidden_state
                mask = torch.from_numpy(real)[..., None]
                mean = (hidden.float() * mask).sum(1) / mask.sum(1)
                vectors = torch.nn.functional.normalize(mean, dim=1).numpy()
            rows.update((index, vector.tobytes()) for index, vector in zip(batch, vectors, strict=True))
        return [rows[index] for index in range(len(texts))]

    @cached_property
    def _loaded(self) -> tuple[Callable[[list[str]], list[list[int]]], Any]:
        """The tokenizer, as a function from texts to the model's token ids, and the model."""
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel

        if self._threads:
            torch.set_num_threads(self._threads)
        own = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        used = Tokenizer.from_file(str(self._vocabulary / "tokenizer.json")) if self._vocabulary else own
        used.no_padding()
        used.enable_truncation(self.max_length)
        ids = own.get_vocab()
        of_model = {index: ids.get(piece, ids["<unk>"]) for piece, index in used.get_vocab().items()}
        dtype = getattr(torch, self._precision)
        model = AutoModel.from_pretrained(self.folder, dtype=dtype, add_pooling_layer=False).eval()
        return lambda texts: [[of_model[index] for index in each.ids] for each in used.encode_batch(texts)], model


def dot(texts: int) -> None:
    """Progress: a dot for every chunk of texts."""
    print(".", end="", file=sys.stderr, flush=True)


def _digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _batches(tokens: Sequence[Sequence[int]], budget: int) -> Iterable[list[int]]:
    """Indices of texts of similar length, at most `budget` padded tokens together."""
    order = sorted(range(len(tokens)), key=lambda index: -len(tokens[index]))
    while order:
        size = max(1, budget // len(tokens[order[0]]))
        yield order[:size]
        order = order[size:]


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids [rows, longest], and 1 where a token is real."""
    ids = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    real = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        real[row, : len(tokens)] = 1
    return ids, real
