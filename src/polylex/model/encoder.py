"""Backbone: TokenBatch -> hidden states [B, L, Dm]. Any encoder of `transformers`, built from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from polylex.errors import BadModel
from polylex.model.tokens import TokenBatch

# Read by transformers for other purposes: code to fetch, and the type its file happened to be in.
_NOT_ARCHITECTURE = ("auto_map", "dtype", "torch_dtype")
# These families number positions from the id after the padding token's.
_COUNT_FROM_PADDING = ("camembert", "roberta", "xlm-roberta")


def first_position(encoder: Mapping[str, Any]) -> int:
    """Row of the position table that belongs to the first token."""
    return int(encoder.get("pad_token_id", 1)) + 1 if encoder.get("model_type") in _COUNT_FROM_PADDING else 0


class Backbone(nn.Module):
    """A `transformers` encoder with fresh weights; no network, no remote code."""

    def __init__(self, encoder: Mapping[str, Any]) -> None:
        """Take a configuration as `transformers` writes it. Raises BadModel for one it cannot build."""
        super().__init__()
        settings = {name: value for name, value in encoder.items() if name not in _NOT_ARCHITECTURE}
        try:
            self.transformer = AutoModel.from_config(AutoConfig.for_model(**settings))
        except (KeyError, TypeError, ValueError) as fault:
            raise BadModel(
                f"the encoder {encoder.get('model_type')!r} cannot be built ({fault}); config.json must hold the "
                "configuration of an encoder that transformers knows without remote code"
            ) from None
        if hasattr(self.transformer, "pooler"):
            self.transformer.pooler = None  # a sentence vector, of which nothing here is made
        self.width = int(self.transformer.config.hidden_size)
        self.pad = int(self.transformer.config.pad_token_id or 0)
        self._first_position = first_position(encoder)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Hidden states [B, L, Dm]; meaningless where `batch.real` is False."""
        options = {}
        if self._first_position:
            # Left to itself the encoder counts ids that are not padding, and a text may spell a "<pad>" out.
            length = batch.ids.shape[1]
            options["position_ids"] = torch.arange(length, device=batch.ids.device)[None] + self._first_position
        output = self.transformer(input_ids=batch.ids, attention_mask=batch.real.long(), **options)
        hidden: Tensor = output.last_hidden_state
        return hidden
