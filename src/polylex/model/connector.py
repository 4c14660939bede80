"""Connector: multilingual hidden states -> the English head's space."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu


class Connector(nn.Module):
    """P = GELU(Linear(H)), exact (erf) GELU: MILCO's projector (arXiv:2510.00671)."""

    def __init__(self, source_width: int, pivot_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(source_width, pivot_width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, L, Dm] -> [B, L, De]."""
        return gelu(self.linear(hidden))
