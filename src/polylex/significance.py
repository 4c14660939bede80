"""Is one system better than another, or only luckier with these queries? Paired tests on the values per query.

comparison = compare(evaluate(run, judgments), evaluate(other, judgments), "nDCG@10")
comparison.difference, comparison.interval, comparison.p_t, comparison.p_randomisation
holm([c.p_randomisation for c in comparisons])

Tests follow Smucker, Allan, Carterette: A comparison of statistical significance tests for information retrieval
evaluation, CIKM 2007. All are two-sided, and seeded where they draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.evaluation import Evaluation

DRAWS = 10_000
# Up to so many differences that are not zero, all signs are tried: 2**16 means are at hand at once.
EXACT = 16
_CELLS = 1 << 22  # numbers drawn at one time
_CLOSE = 1e-12  # means that differ by less are equal: sums in another order round differently


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of a system beside that of another, over the same queries.

    measure          str
    queries          int    both were measured on
    difference       float  mean of the first minus mean of the second
    interval         (low, high) of the difference: percentile bootstrap over queries, 95 %
    wins, losses     int    queries on which the first is better, worse
    p_t              float  paired t-test
    p_randomisation  float  signs of the differences swapped: all of them where few differ, else `DRAWS` at random
    p_bootstrap      float  differences moved to mean 0 and drawn with replacement
    """

    measure: str
    queries: int
    difference: float
    interval: tuple[float, float]
    wins: int
    losses: int
    p_t: float
    p_randomisation: float
    p_bootstrap: float


def compare(first: Evaluation, second: Evaluation, measure: str, *, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Compare two evaluations query by query. Raises BadInput unless both have the measure and the same queries."""
    for evaluation in (first, second):
        if measure not in evaluation.measures:
            raise BadInput(f"{measure} was not measured; there are {', '.join(evaluation.measures)}")
    if set(first.queries) != set(second.queries):
        strange = set(first.queries) ^ set(second.queries)
        raise BadInput(
            f"paired tests need the same queries on both sides, {len(strange)} are on one only, such as "
            f"{min(strange)!r}; evaluate both against the same qrels"
        )
    order = {query: row for row, query in enumerate(second.queries)}
    mine = first.values[:, first.measures.index(measure)]
    theirs = second.values[[order[query] for query in first.queries], second.measures.index(measure)]
    differences = mine - theirs
    low, high, p_bootstrap = bootstrap(differences, draws=draws, seed=seed)
    return Comparison(
        measure=measure,
        queries=len(differences),
        difference=float(differences.mean()),
        interval=(low, high),
        wins=int((differences > _CLOSE).sum()),
        losses=int((differences < -_CLOSE).sum()),
        p_t=t_test(differences),
        p_randomisation=randomisation(differences, draws=draws, seed=seed),
        p_bootstrap=p_bootstrap,
    )


def t_test(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Student's paired t-test that the mean of the differences is 0.

    1 where all are 0, and for a single one, which tells nothing; 0 where all are equal and not 0.
    """
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < 2 or abs(mean) < _CLOSE:
        return 1.0
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    return student_tail(abs(mean) / error, count - 1) if error > _CLOSE else 0.0


def student_tail(t: float, freedom: int) -> float:
    """P(|T| >= t) for Student's t with a whole number of degrees of freedom.

    The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4. It is taken from 1, so that what is below 1e-14 comes
    out as 0.
    """
    if freedom < 1 or not t >= 0:
        raise BadInput(f"t must be at least 0 and the degrees of freedom at least 1, got {t} and {freedom}")
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        steps = np.arange(2, freedom - 1, 2, dtype=np.float64)  # 2, 4, ..., freedom - 3
        series = cosine * _series(steps / (steps + 1), cosine) if freedom > 1 else 0.0
        inside = 2 / math.pi * (angle + sine * series)
    else:
        steps = np.arange(1, freedom - 2, 2, dtype=np.float64)  # 1, 3, ..., freedom - 3
        inside = sine * _series(steps / (steps + 1), cosine)
    tail = 1.0 - inside
    return tail if tail > 1e-14 else 0.0


def _series(ratios: NDArray[np.float64], cosine: float) -> float:
    """1 + r1 c^2 + r1 r2 c^4 + ..."""
    return 1.0 + float(np.cumprod(ratios * cosine**2).sum())


def randomisation(differences: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p of Fisher's randomisation test: how often the mean is as far from 0 when a coin gives each sign.

    Exact over all signs where at most `EXACT` differences are not 0; else the share among `draws` random ones, the
    observed one counted with them, so that p is never 0.
    """
    moving = differences[np.abs(differences) > _CLOSE]
    observed = abs(float(moving.sum()))
    if not len(moving):
        return 1.0
    if len(moving) <= EXACT:
        bits = np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float((np.abs((1.0 - 2.0 * bits) @ moving) >= observed - _slack(moving)).mean())
    random = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(draws, len(moving)):
        signs = random.integers(0, 2, (size, len(moving)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ moving) >= observed - _slack(moving)).sum())
    return (extreme + 1) / (draws + 1)


def bootstrap(
    differences: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Queries drawn again with replacement: (low, high) of the mean at `level` (percentiles), and a two-sided p.

    p is the share of draws, moved to mean 0, that are as far from 0 as the mean (Efron and Tibshirani, 16.4), the
    observed one counted with them.
    """
    if not len(differences):
        return 0.0, 0.0, 1.0
    random = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[random.integers(0, len(differences), (size, len(differences)))].mean(axis=1)
            for size in _blocks(draws, len(differences))
        ]
    )
    observed = float(differences.mean())
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    extreme = int((np.abs(means - observed) >= abs(observed) - _CLOSE).sum())
    return low, high, (extreme + 1) / (draws + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method (Holm 1979); in the order given, each at most 1."""
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    running = 0.0
    for rank, at in enumerate(order.tolist()):
        running = max(running, min(1.0, (len(values) - rank) * values[at]))
        adjusted[at] = running
    return [float(value) for value in adjusted]


def _slack(moving: NDArray[np.float64]) -> float:
    return _CLOSE * float(np.abs(moving).sum())


def _blocks(draws: int, width: int) -> Iterator[int]:
    """Draws to hold at one time, of `width` numbers each."""
    if draws < 1:
        raise BadInput(f"draws must be at least 1, got {draws}; {DRAWS:,} are usual")
    step = max(1, _CELLS // max(1, width))
    for start in range(0, draws, step):
        yield min(step, draws - start)
