"""How good a run is: measures of ir_measures per query, per language and over all.

evaluation = evaluate(run, collection.judgments, ["nDCG@10", "R@100"], languages=collection.query_languages)
evaluation.mean()["nDCG@10"], evaluation.by_language()["sw"], evaluation.missing
language_matrix(run, collection, ["nDCG@10"])["nDCG@10"].cell("sw", "en")

Ties: the order in which a run lists its documents is the ranking (`read_run` sorts by score, equal scores by rank).
Other programs sort again, by score and then by document id, and may differ in ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.collection import Collection
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

    def macro(self, languages: Iterable[str] | None = None, *, absent_as_zero: bool = False) -> dict[str, float]:
        """Of every measure the mean of the languages' means: each counts the same, however many queries it has.

        languages       those that the mean is over; all by default. One without a judged query raises BadInput: a mean
                        over fewer languages than asked for would pass for the whole.
        absent_as_zero  it counts 0 instead; `absent` names it
        """
        means = self.by_language()
        wanted = list(means) if languages is None else list(languages)
        for language in () if absent_as_zero else self.absent(wanted):
            raise BadInput(
                f"no judged query in language {language!r}; there are {', '.join(map(repr, means))}. "
                "Leave it out, or add its queries and judgments."
            )
        if not wanted or len(set(wanted)) != len(wanted):
            raise BadInput(f"a macro mean needs one language at least, each one time, got {wanted}")
        zeros = dict.fromkeys(self.measures, 0.0)
        return {
            measure: float(np.mean([means.get(name, zeros)[measure] for name in wanted])) for measure in self.measures
        }

    def absent(self, languages: Iterable[str]) -> tuple[str, ...]:
        """Those of `languages` in which no query is judged."""
        spoken = set(self.languages)
        return tuple(language for language in languages if language not in spoken)

    def _mean(self, rows: NDArray[np.bool_]) -> dict[str, float]:
        return dict(zip(self.measures, self.values[rows].mean(axis=0).tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class LanguageMatrix:
    """One measure by language of the query (rows) and of the documents (columns).

    queries, documents  [Lq], [Ld]   languages, sorted; "" where unknown
    values              [Lq, Ld]     float64; nan where no query of the row has a relevant document in the column
    counts              [Lq, Ld]     int64, queries behind each value
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    def cell(self, query: str, document: str) -> float:
        """The mean of one pair of languages; nan where nothing is judged."""
        return float(self.values[self.queries.index(query), self.documents.index(document)])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON; None for a cell without queries."""
        cells = [
            [value if count else None for value, count in zip(*row, strict=True)]
            for row in zip(self.values.tolist(), self.counts.tolist(), strict=True)
        ]
        return {
            "query_languages": list(self.queries),
            "document_languages": list(self.documents),
            "values": cells,
            "queries": self.counts.tolist(),
        }


def language_matrix(
    run: Mapping[str, Sequence[tuple[str, float]]],
    collection: Collection,
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> dict[str, LanguageMatrix]:
    """Of every measure its mean for each pair of languages: how well queries in one find documents in another.

    For a column the documents of all other languages are taken out of rankings and judgments, so that a cell does not
    depend on what the rankings hold in other languages; what stands below the depth of the run is not seen. A query
    counts in a column where it has a relevant document, also if the run has nothing for it.

    Raises as `evaluate` does.
    """
    spoken, written = collection.query_languages, collection.document_languages
    rows = tuple(sorted({spoken.get(query, "") for query in collection.judgments}))
    columns = tuple(sorted(set(written.values()))) or ("",)
    values = {measure: np.full((len(rows), len(columns)), np.nan) for measure in measures}
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for column, language in enumerate(columns):
        judged = {
            query: here
            for query, grades in collection.judgments.items()
            if any((here := _of_language(grades, written, language)).values())
        }
        if not judged:
            continue
        found = {query: [hit for hit in run.get(query, ()) if written.get(hit[0], "") == language] for query in judged}
        evaluation = evaluate(found, judged, measures, languages=spoken)
        of_query = np.array(evaluation.languages, dtype=object)
        for language_of_query, means in evaluation.by_language().items():
            row = rows.index(language_of_query)
            counts[row, column] = int((of_query == language_of_query).sum())
            for measure in measures:
                values[measure][row, column] = means[measure]
    return {measure: LanguageMatrix(rows, columns, values[measure], counts) for measure in measures}


def _of_language(grades: Mapping[str, int], written: Mapping[str, str], language: str) -> dict[str, int]:
    return {document: grade for document, grade in grades.items() if written.get(document, "") == language}


def depth(measures: Sequence[str]) -> int:
    """How many documents a run needs for these measures: the deepest cut-off, at least 100; 1,000 for one without."""
    cutoffs = [_parse(name).params.get("cutoff") for name in measures]
    return max(100, *(1000 if cutoff is None else int(cutoff) for cutoff in cutoffs))


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
