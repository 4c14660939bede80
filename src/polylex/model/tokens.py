"""TokenBatch: windows of several texts, padded to one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polylex.config import Speakers
from polylex.runtime.tokens import Window


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """What the model reads.

    ids      int64 [B, L]  token ids; any id where `real` is False
    real     bool  [B, L]  False where a row is padded
    content  bool  [B, L]  False for padding and for the tokenizer's special tokens
    """

    ids: Tensor
    real: Tensor
    content: Tensor

    @classmethod
    def of(cls, windows: Sequence[Window], pad: int) -> TokenBatch:
        """Pad windows to the longest of them with the token id `pad`."""
        shape = len(windows), max((len(window.ids) for window in windows), default=0)
        ids = torch.full(shape, pad, dtype=torch.long)
        real = torch.zeros(shape, dtype=torch.bool)
        content = torch.zeros(shape, dtype=torch.bool)
        for row, window in enumerate(windows):
            length = len(window.ids)
            ids[row, :length] = torch.from_numpy(window.ids)
            real[row, :length] = True
            content[row, :length] = torch.from_numpy(window.content)
        return cls(ids, real, content)

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.real.to(device), self.content.to(device))

    def speaks(self, speakers: Speakers, empty_speaks: bool) -> Tensor:
        """Which tokens may speak, bool [B, L]: "all" real ones or only "content".

        Unless `empty_speaks`, a text without a token of its own is silent altogether.
        """
        if speakers == "content":
            return self.content
        return self.real if empty_speaks else self.real & self.content.any(dim=1, keepdim=True)
