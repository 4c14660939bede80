"""The search kernel in numba, for the comparison in kernel_choice.py: the same blocked scorer, the same results."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numba import njit

from polylex.kernels import BLOCK
from polylex.postings import invert


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _search(segments, terms, weights, scores, k):  # type: ignore[no-untyped-def]
    """The k best (score, -row) over segments, best first."""
    heap = [(np.float32(0), np.int64(0))]
    heap.pop()
    threshold = np.float32(0)
    for runs, starts, offsets, postings, rows, first_row in segments:
        scores[:] = 0
        run = 0
        for i in range(len(terms)):
            run += np.searchsorted(runs[run:], terms[i])
            if run == len(runs):
                break
            if runs[run] == terms[i]:
                weight = weights[i]
                for p in range(starts[run], starts[run + 1]):
                    scores[offsets[p]] += postings[p] * weight
        for document in range(rows):
            if scores[document] > threshold:
                if len(heap) < k:
                    heapq.heappush(heap, (scores[document], -(first_row + document)))
                else:
                    heapq.heapreplace(heap, (scores[document], -(first_row + document)))
                if len(heap) == k:
                    threshold = heap[0][0]
    return sorted(heap)[::-1]


_SCORES = np.empty(BLOCK, np.float32)


def arrays(segments: Any) -> tuple[Any, ...]:
    """Opened segments in the form that `top` takes: all runs sparse."""
    found = []
    for segment in segments:
        sparse = invert(segment.vectors(), dense_from=BLOCK + 1)
        runs = (sparse["terms"], sparse["starts"], sparse["offsets"], sparse["weights"])
        found.append((*runs, segment.rows, segment.first_row))
    return tuple(found)


def top(segments: tuple[Any, ...], terms: Any, weights: Any, k: int) -> list[tuple[int, float]]:
    """The k best (row, score) of one query."""
    return [(-row, float(score)) for score, row in _search(segments, terms, weights, _SCORES, k)]
