"""The frozen English teacher of stage 1: any masked language model (SPLADE), or a model of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM
from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

from polylex.config import FORMAT as OURS
from polylex.errors import BadModel
from polylex.model.model import SparseModel
from polylex.model.tokens import TokenBatch
from polylex.runtime.tokens import Tokens
from polylex.train.batches import Chunk
from polylex.train.head import peaks

Speakers = Literal["all", "content"]


class Teacher(nn.Module):
    """Raw maxima [B, V] of English texts; no gradient, evaluation mode.

    tokens     its tokenizer
    pad        its padding token
    lowercase  whether texts are lower-cased before the tokenizer (a BERT tokenizer does that itself)
    """

    def __init__(self, body: nn.Module, decoder: nn.Linear, tokens: Tokens, pad: int, speakers: Speakers) -> None:
        """Take `body`, which maps a TokenBatch to decoder inputs [B, L, De], and the decoder."""
        super().__init__()
        self.body, self.decoder, self.tokens, self.pad = body, decoder, tokens, pad
        self.lowercase = False
        self.limit = 512
        self._speakers: Speakers = speakers
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def read(cls, folder: str | os.PathLike[str], speakers: Speakers = "all") -> Teacher:
        """Read a folder: a masked language model as `transformers` writes it, or a PyTorch folder of Polylex.

        Raises BadModel for anything else.
        """
        path = Path(folder)
        config = path / "config.json"
        if not config.is_file():
            raise BadModel(f"{path} has no config.json; a teacher is a folder with a masked language model")
        if f'"{OURS}"' in config.read_text(encoding="utf-8"):
            model = SparseModel.from_pretrained(path)
            teacher = cls(_Ours(model), model.pivot_head.decoder, model.tokens, model.encoder.pad, speakers)
            teacher.lowercase = model.config.lowercase
            teacher.limit = model.config.max_length
            return teacher
        tokens = Tokens.read(path)
        try:
            with _without_progress_bars():
                model = AutoModelForMaskedLM.from_pretrained(str(path), local_files_only=True)
        except (OSError, ValueError, KeyError) as fault:
            raise BadModel(f"{path} cannot be read as a masked language model ({fault})") from None
        decoder = model.get_output_embeddings()
        model.set_output_embeddings(_Through())  # so that "logits" are the decoder's input
        teacher = cls(_Masked(model), decoder, tokens, int(model.config.pad_token_id or 0), speakers)
        teacher.limit = int(getattr(model.config, "max_position_embeddings", teacher.limit))
        return teacher

    @property
    def terms(self) -> int:
        """V."""
        return self.decoder.out_features

    @torch.no_grad()
    def forward(self, chunks: Sequence[Chunk]) -> Tensor:
        """Raw maxima float32 [B, V] of the texts of all chunks, in their order."""
        found = []
        for chunk in chunks:
            speaks = chunk.batch.real if self._speakers == "all" else chunk.batch.content
            speaks = speaks & chunk.batch.content.any(dim=1, keepdim=True)
            found.append(peaks(self.body(chunk.batch), speaks, self.decoder.weight, self.decoder.bias))
        return torch.cat(found)[torch.cat([chunk.rows for chunk in chunks]).argsort()]


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """`transformers` draws one while it reads weights; a library is silent."""
    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


class _Ours(nn.Module):
    def __init__(self, model: SparseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Tensor:
        hidden: Tensor = self.model.hidden(batch).pivot
        return hidden


class _Masked(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Tensor:
        output = self.model(input_ids=batch.ids, attention_mask=batch.real.long())
        logits: Tensor = output.logits
        return logits


class _Through(nn.Identity):
    """In the place of a decoder, whose bias `transformers` ties."""

    bias = None
