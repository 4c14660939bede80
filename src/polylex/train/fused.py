"""The fused form of head.py, in Triton: matrix product, mask, maximum and its position over the sequence in one pass.

Each program owns a tile of terms and a few texts. It multiplies their tokens tile by tile, keeps the running maximum
and where it was, and writes V floats and V positions a text: logits live in registers only. Tokens are the columns of
the product, so that a maximum over them runs along a thread's own registers.

The backward pass is one program an entry (text, term): two rows read, two rows added to, atomically.
"""

# Kernels are written in Triton's dialect: arguments are pointers and numbers, and have no Python types.
# ruff: noqa: ANN001, ANN202, PLR0913
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from polylex.train.head import Entries


@dataclass(frozen=True, slots=True)
class Tiling:
    """How the product is cut.

    terms   rows of a tile
    tokens  columns of a tile: one text's tokens, or several short texts
    depth   De a step takes
    warps, stages  of a program; see Triton
    """

    terms: int = 128
    tokens: int = 128
    depth: int = 64
    warps: int = 4
    stages: int = 3


DEFAULT = Tiling()
# float32 operands take four times the shared memory of a bf16 tile at this depth; they are for tests.
PRECISE = Tiling(terms=64, tokens=64, depth=32, warps=4, stages=2)


@triton.jit
def _peaks_kernel(
    hidden,
    weight,
    bias,
    speaks,
    best,
    at,
    texts,
    length,
    terms,
    width: tl.constexpr,
    TERMS: tl.constexpr,
    TEXTS: tl.constexpr,
    TOKENS: tl.constexpr,
    DEPTH: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    term = tl.program_id(1) * TERMS + tl.arange(0, TERMS)
    column = tl.arange(0, TEXTS * TOKENS)
    text = tl.program_id(0) * TEXTS + column // TOKENS
    row_of_term = tl.minimum(term, terms - 1).to(tl.int64) * width  # beyond the end: read anything, written nowhere
    top = tl.full((TERMS, TEXTS), float("-inf"), tl.float32)
    where = tl.full((TERMS, TEXTS), -1, tl.int32)
    for start in range(0, length, TOKENS):
        token = start + column % TOKENS
        inside = (text < texts) & (token < length)
        row = tl.where(inside, text.to(tl.int64) * length + token, 0)
        product = tl.zeros((TERMS, TEXTS * TOKENS), tl.float32)
        for step in range(0, width, DEPTH):
            depth = step + tl.arange(0, DEPTH)
            if EVEN:
                left = tl.load(weight + row_of_term[:, None] + depth[None, :])
                right = tl.load(hidden + row[None, :] * width + depth[:, None])
            else:
                left = tl.load(weight + row_of_term[:, None] + depth[None, :], mask=depth[None, :] < width, other=0.0)
                right = tl.load(hidden + row[None, :] * width + depth[:, None], mask=depth[:, None] < width, other=0.0)
            product = tl.dot(left, right, product, input_precision=PRECISION)
        heard = tl.load(speaks + row, mask=inside, other=0)
        product = tl.where(heard[None, :] != 0, product, float("-inf"))
        value, index = tl.max(tl.reshape(product, (TERMS, TEXTS, TOKENS)), axis=2, return_indices=True)
        better = value > top
        where = tl.where(better, index + start, where)
        top = tl.where(better, value, top)
    owner = tl.program_id(0) * TEXTS + tl.arange(0, TEXTS)
    target = owner[None, :].to(tl.int64) * terms + term[:, None]
    written = (owner[None, :] < texts) & (term[:, None] < terms)
    offset = tl.load(bias + term, mask=term < terms, other=0.0).to(tl.float32)
    tl.store(best + target, top + offset[:, None], mask=written)
    tl.store(at + target, where, mask=written)


@triton.jit
def _spread_kernel(
    hidden,
    weight,
    texts,
    terms,
    positions,
    gradient,
    of_hidden,
    of_weight,
    length,
    width: tl.constexpr,
    DEPTH: tl.constexpr,
):
    entry = tl.program_id(0)
    share = tl.load(gradient + entry)
    token = (tl.load(texts + entry) * length + tl.load(positions + entry)) * width
    term = tl.load(terms + entry) * width
    depth = tl.arange(0, DEPTH)
    inside = depth < width
    from_weight = tl.load(weight + term + depth, mask=inside, other=0.0).to(tl.float32)
    from_hidden = tl.load(hidden + token + depth, mask=inside, other=0.0).to(tl.float32)
    tl.atomic_add(of_hidden + token + depth, share * from_weight, mask=inside, sem="relaxed")
    tl.atomic_add(of_weight + term + depth, share * from_hidden, mask=inside, sem="relaxed")


def find_peaks_fused(
    hidden: Tensor, speaks: Tensor, weight: Tensor, bias: Tensor, tiling: Tiling | None = None
) -> tuple[Tensor, Tensor]:
    """As `find_peaks`, in one kernel; positions are int32 here. `weight` has the type of `hidden`, `bias` any."""
    count, length, width = hidden.shape
    best = torch.empty((count, len(weight)), dtype=torch.float32, device=hidden.device)
    at = torch.empty((count, len(weight)), dtype=torch.int32, device=hidden.device)
    if not best.numel() or not length:
        return best.fill_(-torch.inf), at.fill_(-1)
    tiling = tiling or (PRECISE if hidden.dtype == torch.float32 else DEFAULT)
    tokens = min(tiling.tokens, max(16, triton.next_power_of_2(length)))
    side = tiling.tokens // tokens
    grid = (triton.cdiv(count, side), triton.cdiv(len(weight), tiling.terms))
    _peaks_kernel[grid](
        hidden.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        speaks.contiguous().view(torch.int8),
        best,
        at,
        count,
        length,
        len(weight),
        width,
        TERMS=tiling.terms,
        TEXTS=side,
        TOKENS=tokens,
        DEPTH=tiling.depth,
        EVEN=width % tiling.depth == 0,
        PRECISION="ieee" if hidden.dtype == torch.float32 else "tf32",
        num_warps=tiling.warps,
        num_stages=tiling.stages,
    )
    return best, at


def spread_fused(hidden: Tensor, weight: Tensor, entries: Entries, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """As `spread`, without products [N, De] in memory. Sums run in no fixed order: equal within float32 rounding."""
    length, width = hidden.shape[1:]
    of_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    of_weight = torch.zeros(weight.shape, dtype=torch.float32, device=hidden.device)
    if len(gradient):
        texts, terms, positions = entries
        _spread_kernel[(len(gradient),)](
            hidden.contiguous(),
            weight.contiguous(),
            texts,
            terms,
            positions,
            gradient,
            of_hidden,
            of_weight,
            length,
            width,
            DEPTH=triton.next_power_of_2(width),
            num_warps=1 if width <= 512 else 2,
        )
    return of_hidden, of_weight
