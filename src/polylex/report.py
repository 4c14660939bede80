"""Report: an assessment as one HTML file, as Markdown, and as plots.

    write_report("results", assessment, systems)      # report.html, report.md, plots/*.svg (and .png)

Where the first system is a model or an index, the queries it wins and loses lead to why: which terms its hit and the
relevant document share with the query.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np

from polylex.assessment import Assessment, Judged, Result, file_name, write_text
from polylex.collection import Collection
from polylex.explanation import Explanation, Reader, Span, explain
from polylex.pages import Block, Cell, Figure, Heading, Link, Paragraph, Table, html, markdown
from polylex.plots import curves, differences, heat_map, histograms, png
from polylex.systems import Explicable, System

EXAMPLES = 5  # queries won, and as many lost, of each comparison
_TERMS = 8  # of an explanation
_EXCERPT = 400  # characters of a document
_TOP = 10  # hits whose scores are drawn
_SIGNIFICANT = 0.05

TIE_RULE = (
    "The order in which a run lists its documents is its ranking; a file is sorted by score, equal scores by rank. "
    "Queries without hits score 0 and are counted."
)
TEST_RULE = (
    "† differs from the first system: p < .05 of a paired randomisation test, corrected by Holm's method for all "
    "systems and measures of the collection."
)


def write_report(
    folder: str | os.PathLike[str], assessment: Assessment, systems: Sequence[System], *, examples: int = EXAMPLES
) -> list[Path]:
    """Write report.html, report.md and plots/*.svg into a folder, creating it; PNG too where resvg_py is installed.

    Plots of earlier reports there are removed.

    systems   those of the assessment, in its order; the first explains, if it can
    examples  queries won and lost that are explained
    """
    root = Path(folder)
    (root / "plots").mkdir(parents=True, exist_ok=True)
    title = f"Evaluation of {assessment.systems[0]}"
    page = [Heading(1, title), *report(assessment, systems, examples=examples)]
    for stale in [*(root / "plots").glob("*.svg"), *(root / "plots").glob("*.png")]:
        stale.unlink()
    written = []
    for figure in (block for block in page if isinstance(block, Figure)):
        path = root / "plots" / f"{figure.name}.svg"
        write_text(path, figure.svg)
        written.append(path)
        if find_spec("resvg_py"):
            path.with_suffix(".png").write_bytes(png(figure.svg))
            written.append(path.with_suffix(".png"))
    write_text(root / "report.html", html(title, page))
    write_text(root / "report.md", markdown(page))
    return [*written, root / "report.html", root / "report.md"]


def report(assessment: Assessment, systems: Sequence[System], *, examples: int = EXAMPLES) -> list[Block]:
    """The blocks of the report, without its title."""
    made = assessment.settings
    versions = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    page: list[Block] = [
        Paragraph(f"{made['date']}; {versions}; {made['machine']['system']}, Python {made['machine']['python']}."),
        Paragraph(f"Runs of {made['depth']} documents. {TIE_RULE} Seed {made['seed']}, {made['draws']:,} draws."),
        *_summary(assessment),
        *_costs(assessment),
    ]
    first = systems[0]
    for collection in assessment.collections:
        explainer = Explainer(cast(Explicable, first), collection) if _can_explain(first, collection) else None
        page += _collection(assessment, collection, explainer, examples)
    return page


def _can_explain(system: System, collection: Collection) -> bool:
    return (
        hasattr(system, "vectors") and hasattr(getattr(system, "encoder", None), "term_spans") and bool(collection.ids)
    )


# -- all collections ---------------------------------------------------------------------------------


def _summary(assessment: Assessment) -> Iterator[Block]:
    names = [collection.name for collection in assessment.collections]
    for measure in assessment.measures:
        yield Heading(2, measure)
        rows: list[list[Cell]] = []
        for system in assessment.systems:
            cells = [_marked(assessment, system, name, measure) for name in names]
            mean = [_score(assessment.mean(system)[measure])] if len(names) > 1 else []
            rows.append([system, *cells, *mean])
        yield Table(["system", *names, *(["mean of collections"] if len(names) > 1 else [])], rows)
    if len(assessment.systems) > 1:
        yield Paragraph(TEST_RULE)


def _marked(assessment: Assessment, system: str, collection: str, measure: str) -> str:
    value = _score(assessment.result(system, collection).evaluation.mean()[measure])
    found = next((each for each in assessment.comparisons if _is(each, system, collection, measure)), None)
    return value + ("†" if found and found.holm["p_randomisation"] < _SIGNIFICANT else "")


def _is(judged: Judged, system: str, collection: str, measure: str) -> bool:
    return (judged.second, judged.collection, judged.comparison.measure) == (system, collection, measure)


def _costs(assessment: Assessment) -> Iterator[Block]:
    yield Heading(2, "What it costs")
    head = [
        "collection",
        "system",
        "terms / document",
        "terms / query",
        "index",
        "ms / query",
        "encoded now",
        "encoding",
    ]
    rows: list[list[Cell]] = []
    for result in assessment.results:
        found = result.outcome
        rows.append([
            result.collection, result.system, _number(found.document_terms, ".1f"), _number(found.query_terms, ".1f"),
            _number(found.index_bytes, ",", " bytes"), _number(result.search_ms, ".2f"), f"{found.encoded:,}",
            f"{found.encoding_seconds:.1f} s",
        ])  # fmt: skip
    yield Table(head, rows)
    yield Paragraph("Searching is timed on one core, without encoding. Texts not encoded now came from the cache.")


# -- one collection ----------------------------------------------------------------------------------


def _collection(
    assessment: Assessment, collection: Collection, explainer: Explainer | None, examples: int
) -> Iterator[Block]:
    results = [result for result in assessment.results if result.collection == collection.name]
    yield Heading(2, collection.name)
    yield Paragraph(_described(collection, results))
    yield _measures(assessment.measures, results)
    measure = assessment.measures[0]
    yield from _languages(measure, results)
    yield from _matrices(measure, collection, results)
    yield from _pruning(measure, collection, results)
    yield from _scores(collection, results[0])
    comparisons = [each for each in assessment.comparisons if each.collection == collection.name]
    if comparisons:
        yield Heading(3, "Significance")
        yield _tests(comparisons)
    wanted: dict[str, list[str]] = {}
    for result in results[1:]:
        if not result.limits:
            yield from _wins(measure, collection, (results[0], result), examples, wanted if explainer else None)
    if explainer and wanted:
        yield Heading(3, "Explanations")
        yield Paragraph(f"Of {results[0].system}: a term counts its weight in the query times that in the document.")
        for query, others in wanted.items():
            yield from explainer.blocks(query, results[0], others)


def _described(collection: Collection, results: Sequence[Result]) -> str:
    parts = [f"{len(collection.ids):,} documents, {len(collection.judgments):,} judged queries."]
    unknown = collection.unknown_judgments()
    if unknown:
        parts.append(f"{unknown:,} judgments name queries or documents that are not here; they count as not found.")
    for result in results:
        if result.evaluation.missing:
            parts.append(f"{result.system} has nothing for {len(result.evaluation.missing):,} queries, which score 0.")
        if result.evaluation.unjudged:
            parts.append(f"{result.system} answers {len(result.evaluation.unjudged):,} queries that nobody judged.")
    if results[0].absent:
        parts.append(f"No judged query in {', '.join(map(_language, results[0].absent))}: counts 0 in the macro mean.")
    return " ".join(parts)


def _measures(measures: Sequence[str], results: Sequence[Result]) -> Table:
    heads = [f"{measure} ({kind})" for measure in measures for kind in ("queries", "languages")]
    rows: list[list[Cell]] = []
    for result in results:
        mean, macro = result.evaluation.mean(), result.macro()
        rows.append([result.system, *(_score(means[name]) for name in measures for means in (mean, macro))])
    return Table(["mean over", *heads], rows)


def _languages(measure: str, results: Sequence[Result]) -> Iterator[Block]:
    means = [result.evaluation.by_language() for result in results]
    spoken = results[0].languages
    if len(spoken) < 2:
        return
    counts = {name: results[0].evaluation.languages.count(name) for name in spoken}
    yield Heading(3, f"{measure} by query language")
    rows: list[list[Cell]] = [
        [
            _language(name),
            f"{counts[name]:,}",
            *(_score(each[name][measure]) if name in each else "0 (none)" for each in means),
        ]
        for name in spoken
    ]
    yield Table(["language", "queries", *(result.system for result in results)], rows)


def _matrices(measure: str, collection: Collection, results: Sequence[Result]) -> Iterator[Block]:
    for result in results:
        matrix = result.matrix.get(measure)
        if result.limits or matrix is None or (len(matrix.queries) < 2 and len(matrix.documents) < 2):
            continue
        title = f"{measure} of {result.system} on {collection.name}"
        rows, columns = (list(map(_language, names)) for names in (matrix.queries, matrix.documents))
        axes = "rows: language of the query; columns: language of the documents, the others taken out"
        yield Figure(
            f"{file_name(collection.name)}-languages-{file_name(result.system)}",
            heat_map(title, rows, columns, matrix.values.tolist(), axes=axes),
        )


def _pruning(measure: str, collection: Collection, results: Sequence[Result]) -> Iterator[Block]:
    """The measure against the terms kept, a line a rule."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        if len(result.limits) == 1 and result.outcome.document_terms:
            rule = next(iter(result.limits))
            lines.setdefault(rule, []).append((result.outcome.document_terms, result.evaluation.mean()[measure]))
    if sum(map(len, lines.values())) < 2:
        return
    whole = results[0]
    level = None if whole.limits else ("all terms:", whole.evaluation.mean()[measure])
    title = f"Pruning documents of {collection.name}"
    axes = ("terms kept per document", measure)
    yield Heading(3, "Pruning")
    yield Figure(f"{file_name(collection.name)}-pruning", curves(title, lines, axes=axes, level=level))


def _scores(collection: Collection, result: Result) -> Iterator[Block]:
    """How the scores of relevant hits and of the others spread."""
    groups: dict[str, list[float]] = {"relevant": [], "others": []}
    for query, grades in collection.judgments.items():
        for document, score in result.outcome.run.get(query, ())[:_TOP]:
            groups["relevant" if grades.get(document) else "others"].append(score)
    if any(groups.values()):
        title = f"Scores of {result.system} on {collection.name}"
        yield Heading(3, "Scores")
        yield Figure(
            f"{file_name(collection.name)}-scores",
            histograms(title, groups, axis=f"score of the first {_TOP} hits; each group scaled to its own number"),
        )


def _tests(comparisons: Sequence[Judged]) -> Table:
    head = ["system", "measure", "difference", "95 % interval", "better / worse"]
    head += [f"{test}{kind}" for test in ("t-test", "randomisation", "bootstrap") for kind in ("", " (Holm)")]
    rows: list[list[Cell]] = []
    for each in comparisons:
        found = each.comparison
        low, high = found.interval
        values = [
            _p(value)
            for name in ("p_t", "p_randomisation", "p_bootstrap")
            for value in (getattr(found, name), each.holm[name])
        ]
        against = f"{each.first} against {each.second}" + (" (the same rankings)" if each.is_same else "")
        rows.append([
            against, found.measure, _signed(found.difference), f"{_signed(low)} to {_signed(high)}",
            f"{found.wins:,} / {found.losses:,}", *values,
        ])  # fmt: skip
    return Table(head, rows)


def _wins(
    measure: str,
    collection: Collection,
    results: tuple[Result, Result],
    examples: int,
    wanted: dict[str, list[str]] | None,
) -> Iterator[Block]:
    """Queries won and lost. Those that are to be explained are added to `wanted`, with the hits of the other system."""
    first, second = results
    column = first.evaluation.measures.index(measure)
    mine, theirs = first.evaluation.values[:, column], second.evaluation.values[:, column]
    gaps = mine - theirs
    title = f"{first.system} and {second.system} on {collection.name}"
    yield Heading(3, f"Won and lost against {second.system}")
    yield Figure(
        f"{file_name(collection.name)}-against-{file_name(second.system)}",
        differences(title, gaps.tolist(), names=(first.system, second.system), measure=measure),
    )
    order = np.argsort(-gaps, kind="stable").tolist()
    texts = {query.id: query.text for query in collection.queries}
    for name, rows in (("won", order[:examples]), ("lost", order[::-1][:examples])):
        rows = [row for row in rows if (gaps[row] > 0 if name == "won" else gaps[row] < 0)]
        if not rows:
            continue
        yield Heading(4, f"Most clearly {name}")
        lines: list[list[Cell]] = []
        for row in rows:
            query = first.evaluation.queries[row]
            if wanted is not None and query in texts:
                wanted.setdefault(query, []).append(second.system)
            words = f"{query}: {texts.get(query, '')}"
            cell = Link(words, _anchor(collection, query)) if wanted is not None and query in texts else words
            language = first.evaluation.languages[row]
            lines.append([cell, _language(language), _score(mine[row]), _score(theirs[row])])
        yield Table(["query", "language", first.system, second.system], lines)


# -- explanations ------------------------------------------------------------------------------------


class Explainer:
    """Why a system ranked the documents of a query as it did."""

    def __init__(self, system: Explicable, collection: Collection) -> None:
        self._reader = cast(Reader, system.encoder)
        self._collection = collection
        self._queries, self._documents = system.vectors(collection)
        self._query_rows = {query.id: row for row, query in enumerate(collection.queries)}
        self._document_rows = {name: row for row, name in enumerate(collection.ids)}

    def explain(self, query: str, document: str, limit: int = _TERMS) -> Explanation:
        """The score of one document for one query, by ids."""
        asked, row = self._query_rows[query], self._document_rows[document]
        return explain(
            self._reader,
            (self._collection.queries[asked].text, self._queries.take([asked])),
            (self._collection.texts[row], self._documents.take([row])),
            document_id=document,
            limit=limit,
        )

    def blocks(self, query: str, result: Result, others: Sequence[str]) -> Iterator[Block]:
        """A section that the tables link to: the first hit, and the best relevant document where that is another."""
        ranking = [name for name, _ in result.outcome.run.get(query, ())]
        grades = self._collection.judgments[query]
        relevant = [name for name, grade in grades.items() if grade and name in self._document_rows]
        relevant.sort(key=lambda name: (ranking.index(name) if name in ranking else len(ranking), name))
        asked = self._collection.queries[self._query_rows[query]]
        yield Heading(4, f"{query}: {asked.text}", _anchor(self._collection, query))
        yield Paragraph(f"Language: {_language(asked.language)}. Compared with {', '.join(dict.fromkeys(others))}.")
        for name in dict.fromkeys([*ranking[:1], *relevant[:1]]):
            if name in self._document_rows:
                yield from self._section(query, name, ranking, bool(grades.get(name)))

    def _section(self, query: str, document: str, ranking: Sequence[str], is_relevant: bool) -> Iterator[Block]:
        found = self.explain(query, document)
        place = f"rank {ranking.index(document) + 1}" if document in ranking else f"not among the first {len(ranking)}"
        judged = "relevant" if is_relevant else "not relevant, or not judged"
        yield Paragraph(f"{document} ({place}, {judged}, score {found.score:.2f})")
        yield Paragraph(_excerpt(found.document))
        if not found.matches:
            yield Paragraph("It shares no term with the query.")
            return
        rows: list[list[Cell]] = [
            [
                _term(match.term), f"{match.query_weight:.2f} × {match.document_weight:.2f}", f"{match.share:.0%}",
                _words(match.query_words), _words(match.document_words),
            ]
            for match in found.matches
        ]  # fmt: skip
        yield Table(["term", "query × document", "share of score", "in the query", "in the document"], rows)


def _words(words: Iterable[Span]) -> str:
    return ", ".join(dict.fromkeys(word.text for word in words)) or "as a whole"


def _term(name: str) -> str:
    bare = name[2:].replace("\u2581", " ").strip() or name
    return f"↺ {bare}" if name.startswith("m_") else bare


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT].rstrip() + "…"


def _anchor(collection: Collection, query: str) -> str:
    """A name for a place on the page: letters that stand in addresses as they are, the others by their number."""
    plain = (char if char.isascii() and char.isalnum() else f"_{ord(char):x}" for char in f"{collection.name}-{query}")
    return f"q-{''.join(plain)}"


# -- numbers -----------------------------------------------------------------------------------------


def _language(name: str) -> str:
    return name or "unknown"


def _score(value: float) -> str:
    """Three digits, as tables of measures have them: .705."""
    shown = f"{value:.3f}"
    return shown[1:] if shown.startswith("0.") else shown


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{_score(abs(value))}"


def _p(value: float) -> str:
    return "<.0001" if value < 0.0001 else f"{value:.4f}".removeprefix("0")


def _number(value: float | None, shape: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{shape}}{unit}"
