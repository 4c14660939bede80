"""How long an exact search takes, predicted from what it goes through.

measured = measure(index.top, queries, k=10)                       # seconds, one a query
model = LatencyModel.fit(work, measured)                           # work: what each query goes through
model.predict(work_of_others)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.postings import rows_between
from polylex.vectors import SparseVectors


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """seconds = base + work @ rates.

    base   float            seconds a query costs without any work: calling, clearing and collecting the scores
    rates  tuple of floats  seconds a unit of each kind of work
    """

    base: float
    rates: tuple[float, ...]

    @classmethod
    def fit(cls, work: NDArray[np.int64], seconds: NDArray[np.float64]) -> LatencyModel:
        """The constants with the least squares of relative errors of which none is below 0.

        work     int64 [queries, kinds]
        seconds  float64 [queries]
        """
        if not len(seconds) or not (seconds > 0).all():
            raise BadInput(f"a model of latency needs measured queries, each above 0 seconds, got {len(seconds)}")
        columns = np.column_stack([np.ones(len(seconds)), work])
        scale = np.maximum(np.abs(columns).max(axis=0), 1)
        rows = columns / scale / seconds[:, None]
        best, constants = np.inf, np.zeros(len(scale))
        for used in product((False, True), repeat=len(scale)):  # few kinds: all choices of them are tried
            found = np.zeros(len(scale))
            found[list(used)] = np.linalg.lstsq(rows[:, used], np.ones(len(rows)), rcond=None)[0]
            loss = float(((rows @ found - 1) ** 2).sum())
            if (found >= 0).all() and loss < best:
                best, constants = loss, found
        base, *rates = (constants / scale).tolist()
        return cls(base, tuple(rates))

    def predict(self, work: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds of each query."""
        seconds: NDArray[np.float64] = self.base + work @ np.array(self.rates)
        return seconds

    def error(self, work: NDArray[np.int64], seconds: NDArray[np.float64]) -> float:
        """How far the predicted mean is from the measured one, as a share of that: 0.1 is 10 % too slow."""
        return float(self.predict(work).mean() / seconds.mean() - 1)


def measure(
    search: Callable[[SparseVectors, int], object], queries: SparseVectors, k: int, rounds: int = 5
) -> NDArray[np.float64]:
    """Seconds each query takes, one at a time on one thread: the best of `rounds`, so that other work disturbs little.

    search  takes one query as SparseVectors, and k
    """
    singles = [rows_between(queries, row, row + 1) for row in range(len(queries))]
    best = np.full(len(singles), np.inf)
    for _ in range(rounds):
        for row, query in enumerate(singles):
            start = time.perf_counter()
            search(query, k)
            best[row] = min(best[row], time.perf_counter() - start)
    return best
