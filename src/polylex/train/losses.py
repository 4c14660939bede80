"""Losses and regularisers: pure functions of tensors. Equations: docs/method.md; each docstring names its own.

B texts, V terms, Q queries, D documents of a batch, G documents of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from polylex.errors import BadInput


def align_mse(student: Tensor, teacher: Tensor, floor: float = -0.5) -> tuple[Tensor, Tensor]:
    """Sum of squared differences on the union of active terms, and how many terms that is (float32 scalars).

    student, teacher  float [B, V]  raw maxima r, before relu and log; -inf for a silent text, which counts as no term
    floor             the teacher's r is clamped from below: where it is silent the student need only be silent too

    MILCO, stage 1: mask = {v : r_student > 0 or r_teacher > 0}, loss = mean over mask of (r_student - r_teacher)^2.
    Sum and count are apart so that the mean can be taken over the texts of all GPUs.
    """
    _same_shape(student, teacher)
    mask = ((student > 0) | (teacher > 0)) & student.isfinite() & teacher.isfinite()
    difference = torch.where(mask, student - teacher.clamp(min=floor), 0.0)
    return difference.square().sum(), mask.sum().float()


def distill_kl(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean over queries of KL(softmax(teacher) || softmax(student)), natural logarithm.

    student, teacher  float [Q, G]  scores of each query's documents; divide by a temperature before
    known             bool  [Q, G]  documents that take part; a query with fewer than two adds nothing

    MILCO, stage 2, over a group; or over all documents of a batch.
    """
    _same_shape(student, teacher)
    known = torch.ones_like(student, dtype=torch.bool) if known is None else known
    useful = known.sum(dim=1) > 1
    mine = log_softmax(student.masked_fill(~known, -1e9), dim=1)
    theirs = log_softmax(teacher.masked_fill(~known, -1e9), dim=1)
    divergence = (theirs.exp() * (theirs - mine)).masked_fill(~known, 0).sum(dim=1)
    return (divergence * useful).sum() / useful.sum().clamp(min=1)


def margin_mse(student: Tensor, teacher: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean squared error between margins: (s_0 - s_j) against (t_0 - t_j), column 0 the positive (arXiv:2010.02666).

    student, teacher  float [Q, G]
    known             bool  [Q, G]  documents that take part; rows without column 0 add nothing
    """
    _same_shape(student, teacher)
    known = torch.ones_like(student, dtype=torch.bool) if known is None else known
    pairs = known[:, 1:] & known[:, :1]
    error = (student[:, :1] - student[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    return torch.where(pairs, error, 0.0).square().sum() / pairs.sum().clamp(min=1)


def in_batch(scores: Tensor, target: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Mean over queries of the cross-entropy of the right document among all of the batch (InfoNCE).

    scores   float [Q, D]
    target   int64 [Q]     column of each query's positive
    ignored  bool  [Q, D]  columns that are no negatives: other positives of the query; the target always counts
    """
    if ignored is not None:
        ignored = ignored.scatter(1, target[:, None], False)
        scores = scores.masked_fill(ignored, -torch.inf)
    return torch.nn.functional.cross_entropy(scores, target)


def l1(weights: Tensor) -> Tensor:
    """Mean over texts of the sum of a text's weights. weights float [B, V] or [B, L], >= 0."""
    return weights.sum(dim=1).mean()


def flops(mean_weights: Tensor) -> Tensor:
    """Sum over terms of the squared mean weight: the expected work of a search (arXiv:2004.05665, Eq. 4).

    mean_weights  float [V]  over the texts of the whole batch, all GPUs included. A term that is always on costs most.
    """
    return mean_weights.square().sum()


def warm_up(progress: float, share: float) -> float:
    """Factor of the regularisers: rises quadratically from 0 to 1 over the first `share` of a run, then stays 1."""
    return 1.0 if share <= 0 else min(1.0, progress / share) ** 2


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise BadInput(f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must have one shape")
