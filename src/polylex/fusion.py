"""Fusion: one ranking from several of the same documents, query by query.

    fused = fuse([read_run("polylex.run"), read_run("bm25.run")])                       # by reciprocal ranks
    fused = fuse([dense, sparse], "minmax", weights=[1, 2])                             # by scores

Ranks can always be fused; scores only where their distances mean something in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from polylex.errors import BadInput
from polylex.trec import Run

# Documents of one query with their scores, best first. The order counts.
Ranking: TypeAlias = "Sequence[tuple[str, float]]"
Method = Literal["rrf", "minmax", "zscore", "sum"]

RANK_CONSTANT = 60.0  # of the paper below: the first rank counts 1/61, the second 1/62


def fuse(
    runs: Sequence[Mapping[str, Ranking]],
    method: Method = "rrf",
    *,
    weights: Sequence[float] | None = None,
    rank_constant: float = RANK_CONSTANT,
    k: int | None = None,
) -> Run:
    """One run from several; a query that some of them lack is fused from the others.

    method         "rrf", reciprocal ranks, or the normalisation of `weighted_sum`
    weights        how much each run counts, >= 0; all the same by default
    rank_constant  of "rrf"
    k              documents to keep for each query; all by default

    Queries come in the order in which the runs first name them. Raises BadInput, also for a document ranked twice.
    """
    if method not in get_args(Method):
        raise BadInput(f"no method {method!r}; there are {', '.join(get_args(Method))}")
    if k is not None and k < 1:
        raise BadInput(f"k must be at least 1, got {k}; leave it out to keep all documents")
    fused: Run = {}
    for query in dict.fromkeys(query for run in runs for query in run):
        rankings = [run.get(query, ()) for run in runs]
        if method == "rrf":
            ranking = reciprocal_rank(rankings, weights=weights, constant=rank_constant)
        else:
            ranking = weighted_sum(rankings, method, weights=weights)
        fused[query] = ranking[:k]
    return fused


def reciprocal_rank(
    rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None, constant: float = RANK_CONSTANT
) -> list[tuple[str, float]]:
    """Fuse by ranks: a document scores the sum over the rankings of weight / (constant + rank), ranks from 1.

    A ranking that lacks a document adds nothing to it. Equal scores: whoever comes first in the first ranking, then in
    the second, ... Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods", SIGIR 2009. Raises BadInput.
    """
    if not (math.isfinite(constant) and constant >= 0):
        raise BadInput(f"the rank constant must be a number >= 0, got {constant}; 60 is usual")
    scores: dict[str, float] = {}
    for ranking, weight in _weighted(rankings, weights):
        for rank, (document, _) in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0.0) + weight / (constant + rank)
    return _sorted(scores)


def weighted_sum(
    rankings: Sequence[Ranking], normalisation: Method = "minmax", *, weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Fuse by scores: a document scores the sum over the rankings of weight * normalised score.

    normalisation  makes the scores of one query in one ranking comparable with those of another:
                     minmax  the lowest becomes 0, the highest 1; equal ones become 1
                     sum     the lowest becomes 0, all together 1; equal ones share alike
                     zscore  mean 0, standard deviation 1; equal ones become 0

    A document that a ranking lacks counts 0 there, with zscore like its lowest. Equal sums: as in `reciprocal_rank`.
    Montague and Aslam, "Relevance score normalization for metasearch", CIKM 2001.
    Raises BadInput, also for scores that are not finite or too far apart for a float.
    """
    normalise = _NORMALISATIONS.get(normalisation)
    if normalise is None:
        raise BadInput(f"no normalisation {normalisation!r}; there are {', '.join(_NORMALISATIONS)}")
    counted = [(ranking, weight) for ranking, weight in _weighted(rankings, weights) if ranking]
    scores = {document: 0.0 for ranking, _ in counted for document, _ in ranking}
    for ranking, weight in counted:
        values = normalise([float(score) for _, score in ranking])
        if not all(map(math.isfinite, values)):
            raise BadInput(
                "scores that are infinite, no numbers or too far apart cannot be normalised; fuse by ranks (rrf)"
            )
        normal = dict(zip((document for document, _ in ranking), values, strict=True))
        lowest = min(normal.values()) if normalisation == "zscore" else 0.0
        for document in scores:
            scores[document] += weight * normal.get(document, lowest)
    return _sorted(scores)


def _minmax(scores: list[float]) -> list[float]:
    low, span = min(scores), max(scores) - min(scores)
    return [(score - low) / span if span else 1.0 for score in scores]


def _sum(scores: list[float]) -> list[float]:
    low = min(scores)
    total = sum(score - low for score in scores)
    return [(score - low) / total if total else 1 / len(scores) for score in scores]


def _zscore(scores: list[float]) -> list[float]:
    mean = sum(scores) / len(scores)
    offsets = [score - mean for score in scores]
    deviation = math.sqrt(sum(offset * offset for offset in offsets) / len(scores))
    return [offset / deviation if deviation else 0.0 for offset in offsets]


_NORMALISATIONS: dict[str, Callable[[list[float]], list[float]]] = {"minmax": _minmax, "sum": _sum, "zscore": _zscore}


def _weighted(rankings: Sequence[Ranking], weights: Sequence[float] | None) -> list[tuple[Ranking, float]]:
    """Each ranking with its weight, both checked; those that weigh nothing are left out."""
    wanted = [1.0] * len(rankings) if weights is None else list(weights)
    if not rankings or len(wanted) != len(rankings):
        raise BadInput(f"{len(wanted)} weights for {len(rankings)} runs; give one run at least, and one weight each")
    if not all(math.isfinite(weight) and weight >= 0 for weight in wanted) or not any(wanted):
        raise BadInput(f"weights must be numbers >= 0, not all of them 0, got {wanted}")
    for ranking in rankings:
        if len({document for document, _ in ranking}) != len(ranking):
            raise BadInput("a run ranks a document twice for one query; every document has one place in a run")
    return [(ranking, weight) for ranking, weight in zip(rankings, wanted, strict=True) if weight]


def _sorted(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])
