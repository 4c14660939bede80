"""SparseModel: backbone, connector and two heads; texts in, SparseVectors out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polylex import pooling
from polylex.config import ModelConfig
from polylex.errors import BadInput, BadModel
from polylex.model.connector import Connector
from polylex.model.encoder import Backbone
from polylex.model.heads import PivotHead, SourceHead
from polylex.model.tokens import TokenBatch
from polylex.model.views import Hidden, Views
from polylex.runtime.tokens import Kind, Tokens, Window
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab, pivot_names


class SparseModel(nn.Module):
    """MILCO (arXiv:2510.00671): multilingual encoder -> connector -> English MLM head, and an echo of the source.

        model = SparseModel.from_pretrained("my-model")
        model.encode_query(["¿Quién puede casarse?"]).decode(model.vocab, top_k=5)

    Made fresh from a ModelConfig, its weights are random; `from_pretrained` reads them.
    """

    def __init__(self, config: ModelConfig, tokens: Tokens, pivot: Sequence[str] | None = None) -> None:
        """Build the modules of `config`.

        pivot  bare names of the English terms; by default the vocabulary that `config.pivot_vocabulary` names

        Raises BadModel when the sizes of model, vocabulary and tokenizer do not fit together.
        """
        super().__init__()
        names = pivot_names(config.pivot_vocabulary) if pivot is None else tuple(pivot)
        if len(names) != config.pivot_size:
            raise BadModel(f"pivot_size is {config.pivot_size}, the pivot vocabulary has {len(names)} terms")
        self.config = config
        self.tokens = tokens
        self._pivot = names
        self.encoder = Backbone(config.encoder)
        self.connector = Connector(self.encoder.width, config.pivot_width)
        self.pivot_head = PivotHead(config.pivot_width, config.pivot_size, config.pivot_norm_eps)
        self.source_head = _source_head(config, self.encoder.width)
        rows = int(self.encoder.transformer.config.vocab_size)
        if len(tokens.names) > rows:
            raise BadModel(f"the tokenizer has {len(tokens.names)} tokens, the encoder embeds {rows}")

    # -- reading and writing: weights.py -----------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        encoder: str | os.PathLike[str] | None = None,
        pivot: str | os.PathLike[str] | None = None,
    ) -> SparseModel:
        """Read a folder or hub id, ours or a released MILCO checkpoint; see `polylex.model.weights.read`."""
        from polylex.model import weights

        return weights.read(source, revision=revision, encoder=encoder, pivot=pivot)

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> Path:
        """Write config.json, model.safetensors, tokenizer.json and README.md; see `polylex.model.weights.write`."""
        from polylex.model import weights

        return weights.write(self, folder, card=card)

    def push_to_hub(self, repo: str, *, private: bool = False, card: str | None = None) -> str:
        """Upload what `save_pretrained` writes and return the commit's address."""
        from polylex.model import weights

        return weights.push(self, repo, private=private, card=card)

    # -- the network -------------------------------------------------------------------------------

    def hidden(self, batch: TokenBatch) -> Hidden:
        """All but the decoder: where a fused head takes over from `forward`."""
        config = self.config
        states = self.encoder(batch)
        pivot = self.pivot_head(self.connector(states))
        source = None
        if self.source_head is not None:
            echoes = batch.speaks(config.source_speakers, config.empty_speaks)
            source = self.source_head(states if config.echo_placement == "encoder" else pivot, echoes)
        return Hidden(pivot, source, batch.speaks(config.pivot_speakers, config.empty_speaks))

    def forward(self, batch: TokenBatch) -> Views:
        """Both views of a batch of windows."""
        hidden = self.hidden(batch)
        return Views(self.pivot_head.peaks(hidden.pivot, hidden.speaks), hidden.source)

    # -- an encoder like polylex.runtime.Encoder ---------------------------------------------------

    @property
    def name(self) -> str:
        """The model's name, kept in every index made with it."""
        return self.config.name

    @property
    def weights_id(self) -> str:
        """SHA-256 (hex) of the weights as they are now; hashes every parameter."""
        from polylex.model import weights

        return weights.identity(self)

    @cached_property
    def vocab(self) -> Vocab:
        """The term space of the vectors."""
        return Vocab(self._pivot, self.tokens.names)

    def encode_query(self, texts: str | Sequence[str], **options: Any) -> SparseVectors:  # noqa: ANN401
        """`encode(texts, kind="query", ...)`."""
        return self.encode(texts, kind="query", **options)

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> SparseVectors:  # noqa: ANN401
        """`encode(texts, kind="document", ...)`."""
        return self.encode(texts, kind="document", **options)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        kind: Kind = "document",
        batch_size: int = 32,
        device: torch.device | str | None = None,
        max_length: int | None = None,
        max_windows: int | None = None,
        prune: Callable[[SparseVectors], SparseVectors] | None = None,
        on_text: Callable[[int], None] | None = None,
    ) -> SparseVectors:
        """Encode texts, one row each, in order; the model is in evaluation mode meanwhile.

        kind         which prompt of the model stands before each text
        batch_size   windows per forward pass; no effect on the result beyond rounding
        device       moves the model there first; where it is by default
        max_length   tokens a window may have; the model's own by default
        max_windows  windows of a long text that are read; all by default, 1 truncates
        prune        applied to the result, e.g. Pruning(mass=0.9)
        on_text      called after each text, in the order in which they finish, with its number of windows

        A text longer than a window is cut into windows that overlap by `config.stride` tokens; their vectors are
        merged (`polylex.pooling.merge`). Equal source tokens of a window are summed.
        """
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}")
        if device is not None:
            self.to(device)
        cut = self.windows(
            [texts] if isinstance(texts, str) else list(texts),
            kind=kind,
            max_length=max_length,
            max_windows=max_windows,
        )
        rows: list[list[pooling.Row]] = [[] for _ in cut]
        with _evaluating(self):
            for owner, row in self._rows(cut, batch_size):
                rows[owner].append(row)
                if on_text is not None and len(rows[owner]) == len(cut[owner]):
                    on_text(len(cut[owner]))
        vectors = SparseVectors.from_rows((pooling.merge(parts) for parts in rows), self.vocab.fingerprint)
        return prune(vectors) if prune else vectors

    def windows(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "document",
        max_length: int | None = None,
        max_windows: int | None = None,
    ) -> list[list[Window]]:
        """The windows of each text as the model gets them."""
        return self.tokens.model_windows(texts, self.config, kind, max_length, max_windows)

    def _rows(self, cut: Sequence[Sequence[Window]], batch_size: int) -> Iterator[tuple[int, pooling.Row]]:
        """(text, row of one of its windows), windows of like length together and the longest first."""
        flat = sorted(
            ((owner, window) for owner, windows in enumerate(cut) for window in windows),
            key=lambda pair: -len(pair[1].ids),
        )
        device = next(self.parameters()).device
        for start in range(0, len(flat), batch_size):
            part = flat[start : start + batch_size]
            views = self(TokenBatch.of([window for _, window in part], self.encoder.pad).to(device))
            peaks = views.peaks.cpu().numpy()
            source = None if views.source is None else views.source.cpu().numpy()
            for index, (owner, window) in enumerate(part):
                echo = None if source is None else source[index, : len(window.ids)]
                yield owner, pooling.window_row(peaks[index], window.ids, echo, self.config.pivot_size)


def _source_head(config: ModelConfig, encoder_width: int) -> SourceHead | None:
    if config.echo_placement == "none":
        return None
    scaled = config.echo_placement == "encoder"
    return SourceHead(encoder_width if scaled else config.pivot_width, scaled=scaled)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and back to whatever mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
