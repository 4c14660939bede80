"""PivotHead (English terms by max pooling) and SourceHead (echo of the text's own tokens)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from polylex.errors import BadInput

# Tokens whose logits [B, BLOCK, V] exist at one time.
BLOCK = 64


def pool_max(logits: Tensor, speaks: Tensor) -> Tensor:
    """Raw maxima over the tokens that speak.

    logits   float [B, L, V]  raw scores, unbounded
    speaks   bool  [B, L]     True where a token may speak
    returns  float32 [B, V]   -inf where no token of the text speaks

    Masked with -inf, not multiplied by 0: a text's maximum must not depend on its padding.
    Raises BadInput unless speaks.shape == logits.shape[:2].
    """
    if speaks.shape != logits.shape[:2]:
        raise BadInput(f"speaks {tuple(speaks.shape)} must match logits {tuple(logits.shape[:2])}")
    return logits.float().masked_fill(~speaks[..., None], -torch.inf).amax(dim=1)


class PivotHead(nn.Module):
    """BERT's masked-language-model head: dense, GELU, LayerNorm, decoder; Z[t, v] scores English term v at token t."""

    def __init__(self, width: int, terms: int, norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.decoder = nn.Linear(width, terms)

    def forward(self, pivot: Tensor) -> Tensor:
        """[B, L, De] -> the decoder's input [B, L, De]."""
        hidden: Tensor = self.norm(gelu(self.dense(pivot)))
        return hidden

    def peaks(self, hidden: Tensor, speaks: Tensor) -> Tensor:
        """Raw maxima [B, V] float32 of decoder(hidden) over the tokens that speak; see `pool_max`.

        Block by block over the tokens: a long document never holds [B, L, V].
        """
        best = hidden.new_full((len(hidden), self.decoder.out_features), -torch.inf, dtype=torch.float32)
        for start in range(0, hidden.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            best = torch.maximum(best, pool_max(self.decoder(hidden[:, block]), speaks[:, block]))
        return best


class SourceHead(nn.Module):
    """LexEcho: every token scores itself.

    `scaled` True (echo_placement "encoder"): relu(Linear(H)) times a learned scale, on the encoder's states [B, L, Dm].
    `scaled` False (echo_placement "head"): relu of one more row of the English head, on the decoder's input [B, L, De].
    """

    def __init__(self, width: int, *, scaled: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.scale = nn.Parameter(torch.ones(1)) if scaled else None

    def forward(self, hidden: Tensor, speaks: Tensor) -> Tensor:
        """Source weights float32 [B, L]; 0 where `speaks` [B, L] is False."""
        weights: Tensor = self.linear(hidden).squeeze(-1).float().relu()
        if self.scale is not None:
            weights = weights * self.scale.float()
        return weights.masked_fill(~speaks, 0)
