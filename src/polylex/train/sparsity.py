"""Sparsity by aim: regularisers that bring documents to a number of terms, and rankings that survive pruning.

factor = pressure(mean_terms(documents, sizes), aim=100)    # what to multiply the documents' regularisers by
kept = keep_heaviest(documents, 30)                         # 30 terms each, gradient of those only
"""

from __future__ import annotations

import torch
from torch import Tensor

from polylex.train.student import Weights

# A tenth too many terms doubles the pressure; a third too many is as much as there is.
_STEEPNESS = 8
_MOST = 10.0


@torch.no_grad()
def mean_terms(texts: Weights, sizes: Tensor) -> Tensor:
    """Active terms of both views of a text, mean over the texts weighted by their `sizes`; a float32 scalar.

    sizes  float32 [B]  tokens of each text, 0 where there is none. A long text counts for more than a short one, as it
                        does in an index: sentences alone could meet a mean over texts while passages stay dense.
    """
    terms = (texts.pivot > 0).sum(dim=1) + (texts.echo > 0).sum(dim=1)
    return (terms * sizes).sum() / sizes.sum().clamp(min=1)


def pressure(measured: Tensor, aim: float) -> Tensor:
    """(measured / aim)^8, at most 10: the factor of the regularisers that keeps documents at `aim` terms.

    The weight of a regulariser says little about the vectors before a run has ended; a number of terms is what an index
    pays for. A proportional rule without memory: a run that continues from a checkpoint needs to know nothing more.
    """
    return (measured / aim).pow(_STEEPNESS).clamp(max=_MOST)


def keep_heaviest(texts: Weights, terms: int) -> Weights:
    """The heaviest `terms` of each text, both views in one ranking; the others weigh 0 and get no gradient.

    Equal tokens of a text are ranked apart here, before their weights are summed. Ties at the limit all stay.
    """
    weights = torch.cat([texts.pivot, texts.echo], dim=1).detach()
    least = weights.topk(min(terms, weights.shape[1]), dim=1).values[:, -1:]
    drop = weights < least
    split = texts.pivot.shape[1]
    return Weights(
        texts.pivot.masked_fill(drop[:, :split], 0), texts.tokens, texts.echo.masked_fill(drop[:, split:], 0)
    )
