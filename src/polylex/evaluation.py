"""How good a run is: measures of ir_measures per query, per language and over all.

evaluation = evaluate(run, collection.judgments, ["nDCG@10", "R@100"], languages=collection.query_languages)
evaluation.mean()["nDCG@10"], evaluation.by_language()["sw"], evaluation.missing
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput, MissingExtra

DEFAULT_MEASURES = ("nDCG@10", "R@100")


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The measures of one run.

    measures   [M]     names as asked for, such as "nDCG@10"
    queries    [Q]     ids of all judged queries: the denominator of every mean, whatever the run holds
    languages  [Q]     of each query, "" where unknown
    values     [Q, M]  float64, in the measure's own unit (most: 0 worst, 1 best)
    missing    ids of judged queries that the run has no document for; they count with their worst value, 0
    unjudged   ids of queries of the run that nobody judged; they do not count
    """

    measures: tuple[str, ...]
    queries: tuple[str, ...]
    languages: tuple[str, ...]
    values: NDArray[np.float64]
    missing: tuple[str, ...]
    unjudged: tuple[str, ...]

    def mean(self) -> dict[str, float]:
        """Of every measure the mean over all judged queries."""
        return self._mean(np.ones(len(self.queries), bool))

    def by_language(self) -> dict[str, dict[str, float]]:
        """Of every query language, sorted, the mean over its judged queries."""
        of_query = np.array(self.languages, dtype=object)
        return {language: self._mean(of_query == language) for language in sorted(set(self.languages))}

    def macro(self, languages: Iterable[str] | None = None) -> dict[str, float]:
        """Of every measure the mean of the languages' means: each counts the same, however many queries it has.

        languages  those that the mean is over; all by default. Raises BadInput for one without a judged query: a mean
                   over fewer languages than asked for would pass for the whole.
        """
        means = self.by_language()
        wanted = list(means) if languages is None else list(languages)
        for language in wanted:
            if language not in means:
                raise BadInput(
                    f"no judged query in language {language!r}; there are {', '.join(map(repr, means))}. "
                    "Leave it out, or add its queries and judgments."
                )
        if not wanted or len(set(wanted)) != len(wanted):
            raise BadInput(f"a macro mean needs one language at least, each one time, got {wanted}")
        return {measure: float(np.mean([means[name][measure] for name in wanted])) for measure in self.measures}

    def _mean(self, rows: NDArray[np.bool_]) -> dict[str, float]:
        return dict(zip(self.measures, self.values[rows].mean(axis=0).tolist(), strict=True))


def evaluate(
    run: Mapping[str, Sequence[tuple[str, float]]],
    judgments: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    languages: Mapping[str, str] | None = None,
) -> Evaluation:
    """Score a run against judgments.

    run        per query its documents, best first; the order is what counts, so that ties stay as the system broke them
    judgments  per query the grade of each judged document; the rest counts as not relevant
    measures   in ir_measures' notation: nDCG@10, R@100, AP, RR@10, P(rel=2)@5, ...
    languages  of each query id, for the means per language

    Raises BadInput for an unknown measure, for no judgments, and for a document ranked twice; MissingExtra without
    ir-measures.
    """
    if not judgments:
        raise BadInput("no query is judged, so there is no mean; check that the qrels belong to this collection")
    if not measures or len(set(measures)) != len(measures):
        raise BadInput(f"measures must name one at least and none twice, got {list(measures)}")
    parsed = [_parse(name) for name in measures]
    column = {measure: index for index, measure in enumerate(parsed)}
    row = {query: index for index, query in enumerate(judgments)}
    values = np.zeros((len(row), len(parsed)))
    for metric in _ir_measures().iter_calc(parsed, judgments, _positions(run, row)):
        values[row[metric.query_id], column[metric.measure]] = metric.value
    spoken = languages or {}
    return Evaluation(
        measures=tuple(measures),
        queries=tuple(row),
        languages=tuple(spoken.get(query, "") for query in row),
        values=values,
        missing=tuple(query for query in row if not run.get(query)),
        unjudged=tuple(query for query in run if query not in row),
    )


def _positions(run: Mapping[str, Sequence[tuple[str, float]]], judged: Iterable[str]) -> dict[str, dict[str, float]]:
    """Scores that fall by 1 from rank to rank: providers sort by score and would break ties by document id."""
    positions: dict[str, dict[str, float]] = {}
    for query in judged:
        ranking = run.get(query, ())
        positions[query] = {document: float(-rank) for rank, (document, _) in enumerate(ranking)}
        if len(positions[query]) != len(ranking):
            raise BadInput(f"query {query!r} ranks a document twice; every document has one place in a run")
    return {query: ranking for query, ranking in positions.items() if ranking}


def _ir_measures() -> Any:  # noqa: ANN401 - the package is optional
    try:
        import ir_measures
    except ImportError:
        raise MissingExtra("ir-measures", "eval", "Evaluation") from None
    return ir_measures


def _parse(name: str) -> Any:  # noqa: ANN401 - a measure of ir_measures
    package = _ir_measures()
    try:
        return package.parse_measure(name)
    except (NameError, ValueError, TypeError, SyntaxError) as fault:
        raise BadInput(f"no measure {name!r} ({fault}); ir_measures' notation is nDCG@10, R@100, AP, RR@10") from None
