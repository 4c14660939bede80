"""The sparse-gradient head: maxima of the English decoder over a text's tokens, without logits [B, L, V] in memory.

r = peaks(hidden, speaks, decoder.weight, decoder.bias)         # [B, V], as PivotHead.peaks, gradients included

The maximum of a column of logits depends on one token only. So the forward pass keeps the maxima and their positions,
no logits; the backward pass touches, for each of the few entries (text, term) that the loss has a gradient for, the
one hidden state and the one decoder row that made it:

    d hidden[b, at[b, v]] += g[b, v] * W[v]        d W[v] += g[b, v] * hidden[b, at[b, v]]        d bias[v] += g[b, v]

These are the exact gradients of the eager formula. Where several tokens share the maximum, the first one takes the
whole gradient (as in torch.max(dim); torch.amax would split it, both are subgradients).

Two forms compute the same: a fused Triton kernel on GPUs (fused.py), and PyTorch, block by block over the terms.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from polylex.errors import BadInput

log = logging.getLogger(__name__)

# Logits that exist at one time in the PyTorch form: 64 MiB in bf16.
BLOCK_ELEMENTS = 1 << 25
# Entries whose products [entries, De] exist at one time in the PyTorch form's backward pass.
BLOCK_ENTRIES = 1 << 16


def peaks(hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor, *, fused: bool | None = None) -> Tensor:
    """Raw maxima of hidden @ weight.T + bias over the tokens that speak.

    hidden   float [B, L, De]  input of the decoder
    speaks   bool  [B, L]      True where a token may speak
    weight   float [V, De], bias float [V]: the decoder's
    fused    use the Triton kernel; where it runs, by default
    returns  float32 [B, V]    -inf where no token of the text speaks

    Under autocast products are computed in its type, and gradients summed in float32. Raises BadInput for shapes that
    do not fit together.
    """
    if speaks.shape != hidden.shape[:2] or weight.shape != (len(bias), hidden.shape[2]):
        raise BadInput(
            f"hidden {tuple(hidden.shape)}, speaks {tuple(speaks.shape)}, weight {tuple(weight.shape)} and bias "
            f"{tuple(bias.shape)} do not fit together; expected [B, L, D], [B, L], [V, D], [V]"
        )
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    if fused is None:
        fused = hidden.is_cuda and has_triton()
    result: Tensor = _Peaks.apply(hidden, speaks, weight, bias, fused)  # type: ignore[no-untyped-call]
    return result


@cache
def has_triton() -> bool:
    """Whether the fused kernel compiles and runs here: tried once, on a tiny problem; the log says why not."""
    try:
        from polylex.train.fused import find_peaks_fused

        tiny = torch.ones(1, 1, 16, device="cuda", dtype=torch.bfloat16)
        best, _ = find_peaks_fused(tiny, torch.ones(1, 1, dtype=torch.bool, device="cuda"), tiny[0], tiny[0, 0, :1])
        return float(best) == 17.0
    except Exception as fault:  # no Triton, no C compiler for its launcher, a GPU it does not know: all mean the same
        log.warning("the head falls back to its PyTorch form: the fused kernel does not run here (%s)", fault)
        return False


def find_peaks(hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima float32 [B, V] of hidden @ weight.T + bias over the tokens that speak, and where: int64 [B, V].

    The PyTorch form: logits exist for a block of terms at a time. Of several maxima the first counts; silent texts give
    -inf and -1. All in one type; no gradient.
    """
    texts, length, _ = hidden.shape
    best = torch.full((texts, len(weight)), -torch.inf, device=hidden.device)
    at = torch.full((texts, len(weight)), -1, dtype=torch.long, device=hidden.device)
    if not best.numel() or not length:
        return best, at
    # A token that may not speak repeats the text's first one that may: no pass over the logits is spent on masking.
    here = torch.arange(length, device=hidden.device)
    voice = torch.where(speaks, here, speaks.int().argmax(dim=1, keepdim=True))
    voiced = hidden.gather(1, voice[..., None].expand_as(hidden))
    step = max(1, BLOCK_ELEMENTS // (texts * length))
    for start in range(0, len(weight), step):
        block = slice(start, start + step)
        values, positions = linear(voiced, weight[block], bias[block]).max(dim=1)
        best[:, block] = values
        at[:, block] = voice.gather(1, positions)
    silent = ~speaks.any(dim=1, keepdim=True)
    return best.masked_fill_(silent, -torch.inf), at.masked_fill_(silent, -1)


def spread(hidden: Tensor, weight: Tensor, entries: Entries, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients float32 of `hidden` [B, L, De] and `weight` [V, De] from those of some entries: the PyTorch form.

    entries   (texts, terms, positions) int64 [N] each
    gradient  float32 [N]
    """
    length, width = hidden.shape[1:]
    of_hidden = torch.zeros((len(hidden) * length, width), device=hidden.device)
    of_weight = torch.zeros((len(weight), width), device=hidden.device)
    flat = hidden.reshape(-1, width)
    for start in range(0, len(gradient), BLOCK_ENTRIES):
        block = slice(start, start + BLOCK_ENTRIES)
        texts, terms, positions = (index[block] for index in entries)
        share, tokens = gradient[block, None], texts * length + positions
        of_hidden.index_add_(0, tokens, share * weight[terms].float())
        of_weight.index_add_(0, terms, share * flat[tokens].float())
    return of_hidden.view(hidden.shape), of_weight


Entries = tuple[Tensor, Tensor, Tensor]


class _Peaks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor, fused: bool) -> Tensor:  # noqa: ANN401
        with torch.autocast(hidden.device.type, enabled=False):
            cast = weight.to(hidden.dtype)
            if fused:
                from polylex.train.fused import find_peaks_fused

                best, at = find_peaks_fused(hidden, speaks, cast, bias)
            else:
                best, at = find_peaks(hidden, speaks, cast, bias.to(hidden.dtype))
        ctx.save_for_backward(hidden, weight, at)
        ctx.fused = fused
        return best

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        hidden, weight, at = ctx.saved_tensors
        gradient = gradient.float().masked_fill(at < 0, 0)
        texts, terms = gradient.nonzero(as_tuple=True)
        entries = texts, terms, at[texts, terms].long()
        if ctx.fused:
            from polylex.train.fused import spread_fused as scatter
        else:
            scatter = spread
        of_hidden, of_weight = scatter(hidden, weight, entries, gradient[texts, terms])
        return of_hidden.to(hidden.dtype), None, of_weight.to(weight.dtype), gradient.sum(0), None
