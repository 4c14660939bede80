"""From the model's numbers to a vector: terms of one window, and windows of one text. Shared by PyTorch and ONNX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Row = tuple[NDArray[np.uint32], NDArray[np.float32]]


def window_row(
    peaks: NDArray[np.float32], ids: NDArray[np.int64], echo: NDArray[np.float32] | None, pivot_size: int
) -> Row:
    """Terms and weights of one window, both views in one id space.

    peaks    float32 [V]  raw maxima of the English head over the speaking tokens; weight = log(1 + relu(peak))
    ids      int64   [L]  token ids of the window
    echo     float32 [L]  source weight of each token, 0 where it may not speak; None without a source view.
                          Equal tokens are summed.
    returns  terms uint32 [nnz] strictly increasing, weights float32 [nnz] > 0
    """
    pivot = np.flatnonzero(peaks > 0)
    terms, weights = pivot, np.log1p(peaks[pivot])
    if echo is not None:
        source, where = np.unique(ids[echo > 0], return_inverse=True)
        echoed = np.bincount(where, echo[echo > 0], minlength=len(source)).astype(np.float32)
        terms, weights = np.concatenate([pivot, source + pivot_size]), np.concatenate([weights, echoed])
    keep = weights > 0  # a subnormal peak may round to 0
    return terms[keep].astype(np.uint32), weights[keep].astype(np.float32)


def merge(windows: Sequence[Row]) -> Row:
    """Maximum per term over the windows of one text, as long (L2) as the windows are on average.

    Without that, a text of several windows would have a longer vector than its parts and win by its length alone.
    """
    if len(windows) == 1:
        return windows[0]
    terms, where = np.unique(np.concatenate([w[0] for w in windows]), return_inverse=True)
    weights = np.zeros(len(terms), np.float32)
    np.maximum.at(weights, where, np.concatenate([w[1] for w in windows]))
    lengths = [np.linalg.norm(w[1]) for w in windows if len(w[1])]
    if lengths:
        weights *= np.float32(np.mean(lengths) / np.linalg.norm(weights))
    keep = weights > 0  # the product may underflow
    return terms[keep], weights[keep]
