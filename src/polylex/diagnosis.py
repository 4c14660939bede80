"""Diagnosis: which queries fail, and where: in the texts, in the vectors, or in the ranking.

    diagnosis = diagnose(Sparse(polylex.load()), read_beir("xquadr-pooled"))
    diagnosis.by_language()["ar"]["no shared term"], diagnosis.failures[0].outranked_by

A query fails when none of its relevant documents is among the first `k` hits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from polylex.collection import Collection
from polylex.errors import BadInput
from polylex.index import Index
from polylex.systems import Explicable
from polylex.trec import Run
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

Reason = Literal[
    "not in the collection",
    "empty query",
    "empty document",
    "collapsed query",
    "collapsed document",
    "no shared term",
    "truncated",
    "outranked",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
MEANINGS: dict[Reason, str] = {
    "not in the collection": "none of its relevant documents is there (or in the index)",
    "empty query": "its vector has no term",
    "empty document": "the vectors of its relevant documents have no term",
    "collapsed query": "its vector is nearly that of a query with another text",
    "collapsed document": "the vector of the best relevant document is nearly that of a document with another text",
    "no shared term": "query and relevant documents have terms, but none in common",
    "truncated": "the model reads only the beginning of the query or of the best relevant document",
    "outranked": "other documents score higher",
}

_TERMS = 5  # named in a failure
_SAME = 0.99  # cosine of vectors that say the same
_NEIGHBOURS = 4  # looked at for a vector that says the same of another text


@dataclass(frozen=True, slots=True)
class Reach:
    """What one term adds to the score of the document in front and of the relevant one behind it."""

    term: str
    query_weight: float
    ahead: float
    relevant: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A query whose relevant documents are not among the first hits.

    query, language, text  id, language ("" if unknown) and text of the query
    reason        the first that holds, in the order of REASONS
    relevant      id of the relevant document that scores best, None where none is there
    rank          its place among the hits, from 1; None where it is none of them
    score         its score
    outranked_by  id of the first hit, None where there is none; its score is `ahead`
    terms         those that part the two most, for the first hit, heaviest first
    twin          id of the text whose vector is the same, for the reasons "collapsed ..."
    """

    query: str
    language: str
    text: str
    reason: Reason
    relevant: str | None = None
    rank: int | None = None
    score: float = 0.0
    outranked_by: str | None = None
    ahead: float = 0.0
    terms: tuple[Reach, ...] = ()
    twin: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What became of the judged queries of a collection.

    queries   int  judged queries that have a relevant document
    k         int  hits among which one must be relevant
    counts    queries by language
    failures  in the order of the judgments
    """

    system: str
    collection: str
    k: int
    queries: int
    counts: dict[str, int]
    failures: tuple[Failure, ...]

    def by_reason(self) -> dict[Reason, int]:
        """Failures by reason; every reason is there."""
        return {reason: sum(failure.reason == reason for failure in self.failures) for reason in REASONS}

    def by_language(self) -> dict[str, dict[Reason, int]]:
        """Failures by language and reason; every language with a query is there."""
        return {
            language: {
                reason: sum((each.language, each.reason) == (language, reason) for each in self.failures)
                for reason in REASONS
            }
            for language in self.counts
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists, ready for JSON."""
        return {
            "system": self.system,
            "collection": self.collection,
            "k": self.k,
            "queries": self.queries,
            "failed": len(self.failures),
            "by_reason": self.by_reason(),
            "by_language": {
                language: {"queries": self.counts[language], "failed": sum(reasons.values()), "by_reason": reasons}
                for language, reasons in self.by_language().items()
            },
            "failures": [failure.to_dict() for failure in self.failures],
        }


def diagnose(system: Explicable, collection: Collection, k: int = 10) -> Diagnosis:
    """Find the queries that fail, and the reason of each.

    system  a model or an index: its vectors are looked at
    k       hits among which a relevant document must be

    Raises BadInput for a collection without documents or without a query that has a relevant one.
    """
    if k < 1:
        raise BadInput(f"k must be at least 1, got {k}")
    if not collection.ids:
        raise BadInput(f"{collection.name} was read without its documents; a diagnosis looks at their texts")
    wanted = {
        query: relevant
        for query, grades in collection.judgments.items()
        if (relevant := [document for document, grade in grades.items() if grade > 0])
    }
    if not wanted:
        raise BadInput(f"no query of {collection.name} has a relevant document, so that none can fail")
    outcome = system.search(collection, max(k, 100))
    failed = {
        query: relevant
        for query, relevant in wanted.items()
        if not {document for document, _ in outcome.run.get(query, ())[:k]}.intersection(relevant)
    }
    spoken = collection.query_languages
    counts = {name: sum(spoken.get(query, "") == name for query in wanted) for name in _sorted(spoken, wanted)}
    return Diagnosis(
        system=system.name,
        collection=collection.name,
        k=k,
        queries=len(wanted),
        counts=counts,
        failures=tuple(_Examiner(system, collection, outcome.run).examine(failed)),
    )


def _sorted(spoken: dict[str, str], queries: Iterable[str]) -> list[str]:
    return sorted({spoken.get(query, "") for query in queries})


@dataclass(frozen=True, slots=True)
class _Case:
    """A failed query with its best relevant document: rows in the collection."""

    query: int
    document: int


class _Examiner:
    """Looks at the vectors of a collection."""

    def __init__(self, system: Explicable, collection: Collection, run: Run) -> None:
        self._system, self._collection, self._run = system, collection, run
        self._queries, self._documents = system.vectors(collection)
        self._query_rows = {query.id: row for row, query in enumerate(collection.queries)}
        self._document_rows = {name: row for row, name in enumerate(collection.ids)}

    def examine(self, failed: dict[str, list[str]]) -> list[Failure]:
        """One failure a query."""
        cases: dict[str, _Case] = {}
        found: dict[str, Failure] = {}
        for query, relevant in failed.items():
            if query not in self._query_rows:
                found[query] = Failure(query, "", "", "empty query")
                continue
            rows = [self._document_rows[name] for name in relevant if name in self._document_rows]
            if not rows:
                found[query] = self._failure(query, "not in the collection")
                continue
            asked = self._query_rows[query]
            scores = self._queries.take([asked]).dot(self._documents.take(rows))[0]
            cases[query] = _Case(asked, rows[int(scores.argmax())])
        twins = self._twins(cases)
        for query, case in cases.items():
            found[query] = self._judge(query, case, *twins[query])
        return [found[query] for query in failed]

    def _judge(self, query: str, case: _Case, query_twin: str | None, document_twin: str | None) -> Failure:
        asked, document = self._queries.row(case.query), self._documents.row(case.document)
        shared = np.intersect1d(asked[0], document[0], assume_unique=True)
        checks: tuple[tuple[Reason, bool], ...] = (
            ("empty query", not len(asked[0])),
            ("empty document", not len(document[0])),
            ("collapsed query", query_twin is not None),
            ("collapsed document", document_twin is not None),
            ("no shared term", not len(shared)),
            ("truncated", self._is_truncated(case)),
        )
        reason: Reason = next((name for name, holds in checks if holds), "outranked")
        twin = {"collapsed query": query_twin, "collapsed document": document_twin}.get(reason)
        return self._failure(query, reason, case, twin)

    def _failure(self, query: str, reason: Reason, case: _Case | None = None, twin: str | None = None) -> Failure:
        asked = self._collection.queries[self._query_rows[query]]
        ranking = self._run.get(query, [])
        first, ahead = ranking[0] if ranking else (None, 0.0)
        if case is None:
            return Failure(query, asked.language, asked.text, reason, outranked_by=first, ahead=ahead)
        name = self._collection.ids[case.document]
        places = [document for document, _ in ranking]
        score = float(self._queries.take([case.query]).dot(self._documents.take([case.document]))[0, 0])
        return Failure(
            query=query,
            language=asked.language,
            text=asked.text,
            reason=reason,
            relevant=name,
            rank=places.index(name) + 1 if name in places else None,
            score=score,
            outranked_by=first,
            ahead=ahead,
            terms=self._reaches(case, first),
            twin=twin,
        )

    def _reaches(self, case: _Case, first: str | None) -> tuple[Reach, ...]:
        """The terms that put the first hit in front."""
        if first not in self._document_rows:
            return ()
        terms, weights = self._queries.row(case.query)
        ahead, behind = (_weights(self._documents, row, terms) for row in (self._document_rows[first], case.document))
        gaps = weights.astype(np.float64) * (ahead - behind)
        vocab: Vocab = self._system.encoder.vocab
        return tuple(
            Reach(
                term=vocab.name(int(terms[at])),
                query_weight=float(weights[at]),
                ahead=float(weights[at] * ahead[at]),
                relevant=float(weights[at] * behind[at]),
            )
            for at in np.argsort(-gaps, kind="stable")[:_TERMS].tolist()
            if gaps[at] > 0
        )

    def _is_truncated(self, case: _Case) -> bool:
        """Whether the model says that it does not read to the end; one that reads in windows does not say so."""
        truncates = getattr(self._system.encoder, "truncates", None)
        if truncates is None:
            return False
        texts = (
            (self._collection.queries[case.query].text, "query"),
            (self._collection.texts[case.document], "document"),
        )
        return any(truncates([text], kind=kind)[0] for text, kind in texts)

    def _twins(self, cases: dict[str, _Case]) -> dict[str, tuple[str | None, str | None]]:
        """Of each case the query, and the document, that has the same vector but another text; None for none."""
        if not cases:
            return {}
        queries = [(query.id, query.text) for query in self._collection.queries]
        documents = list(zip(self._collection.ids, self._collection.texts, strict=True))
        vocab = self._system.encoder.vocab
        of_queries = _twins(self._queries, queries, [case.query for case in cases.values()], vocab)
        of_documents = _twins(self._documents, documents, [case.document for case in cases.values()], vocab)
        return dict(zip(cases, zip(of_queries, of_documents, strict=True), strict=True))


def _weights(vectors: SparseVectors, row: int, terms: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Weights of some terms in a row, 0 for those that it does not have."""
    found = np.zeros(len(terms))
    here, weights = vectors.row(row)
    _, mine, theirs = np.intersect1d(terms, here, assume_unique=True, return_indices=True)
    found[mine] = weights[theirs]
    return found


def _twins(
    vectors: SparseVectors, named: Sequence[tuple[str, str]], rows: Sequence[int], vocab: Vocab
) -> list[str | None]:
    """Of each of `rows` the id of another text whose vector points the same way (cosine of 0.99 and more)."""
    lengths = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    squares = np.bincount(lengths, vectors.weights.astype(np.float64) ** 2, len(vectors))
    scaled = (vectors.weights / np.sqrt(squares)[lengths]).astype(np.float32)
    alike = SparseVectors(vectors.indptr, vectors.terms, scaled, vectors.vocab)
    with (
        TemporaryDirectory() as folder,
        Index.build(Path(folder) / "index", alike, list(map(str, range(len(alike)))), vocab=vocab) as index,
    ):
        found, cosines = index.top(alike.take(rows), _NEIGHBOURS)
    twins: list[str | None] = []
    for row, near, close in zip(rows, found.tolist(), cosines.tolist(), strict=True):
        same = (
            named[other][0]
            for other, cosine in zip(near, close, strict=True)
            if other >= 0 and cosine >= _SAME and named[other][1] != named[row][1]
        )
        twins.append(next(same, None))
    return twins
