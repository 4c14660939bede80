"""Views: what one forward pass yields."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the English decoder and the echo see, before any [B, L, V] exists; a fused head starts here.

    pivot   float   [B, L, De]  input of the decoder, after the head's transform and LayerNorm
    source  float32 [B, L]      echo weight of every token, >= 0 where `scale` is; 0 where it may not speak; None
                                without a source view
    speaks  bool    [B, L]      tokens that enter the pivot maximum
    """

    pivot: Tensor
    source: Tensor | None
    speaks: Tensor


@dataclass(frozen=True, slots=True)
class Views:
    """Both views of a batch of texts.

    peaks   float32 [B, V]  raw maxima over the speaking tokens, before relu and log; -inf for a silent text.
                            Stage 1 compares these (method: r = max of raw logits).
    source  float32 [B, L]  one weight per input token, equal tokens not yet summed; None only when
                            config.echo_placement is "none"
    """

    peaks: Tensor
    source: Tensor | None

    @property
    def pivot(self) -> Tensor:
        """Pivot weights float32 [B, V], >= 0: log(1 + relu(peaks)) (SPLADE max pooling, arXiv:2205.04733, Eq. 1)."""
        return self.peaks.relu().log1p()
