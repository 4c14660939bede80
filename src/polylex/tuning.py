"""Tuning: the pruning that meets a target of size, latency or quality, chosen on some queries and checked on others.

with Index.open("articles.plx") as index:
    tuning = tune(Subject.of_index(index), query_vectors)
    choice = tuning.choose([Target.parse("bytes<=200MB"), Target.parse("ndcg>=0.95")])
    choice.rule.name, choice.bytes, choice.kept, choice.held_kept
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polylex.allotment import Labels, label_rules
from polylex.errors import BadInput, OutOfReach
from polylex.latency import LatencyModel, measure
from polylex.prune import Pruning
from polylex.rules import Alike, Rule, usual_rules
from polylex.trials import WORK, Grades, OnProgress, Subject, Trial, in_memory, ndcg, run_trials, work_of
from polylex.vectors import SparseVectors

_LEAST = 4  # judged queries
_TIMED = 100  # queries that the model of latency is fitted to, and as many to check it
_TIMED_RULES = (Alike(), Alike(Pruning(mass=0.6)), Alike(Pruning(mass=0.25)))
_RESAMPLES = 1_000
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TARGET = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
# The names of targets, and the figures of a candidate that they limit.
_FIGURES = {"bytes": "bytes", "latency_ms": "latency_ms", "terms": "terms", "ndcg": "kept"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A rule and what it would make of the index.

    terms       float  a document, mean
    postings    int    (document, term) weights
    bytes       int    on disk, everything included
    latency_ms  float  a query on one thread, encoding it not included: predicted, mean over the queries that choose
    held_latency_ms    the same over those held out: to be compared with `measured_ms`
    kept        float  share of the unpruned nDCG@k, over the queries that choose: what targets are compared with
    held_kept   float  the same over the queries that were held out: what to believe
    interval    (float, float)  95 % of held_kept, by resampling the held queries
    ndcg        float  nDCG@k over the held queries
    """

    rule: Rule
    terms: float
    postings: int
    bytes: int
    latency_ms: float
    held_latency_ms: float
    kept: float
    held_kept: float
    interval: tuple[float, float]
    ndcg: float

    def to_dict(self) -> dict[str, Any]:
        """All figures in JSON."""
        return {
            "name": self.rule.name,
            "rule": self.rule.to_dict(),
            "terms_per_document": round(self.terms, 2),
            "postings": self.postings,
            "bytes": self.bytes,
            "latency_ms": round(self.latency_ms, 4),
            "held_latency_ms": round(self.held_latency_ms, 4),
            "kept": round(self.kept, 4),
            "held_kept": round(self.held_kept, 4),
            "held_kept_95": [round(bound, 4) for bound in self.interval],
            "held_ndcg": round(self.ndcg, 4),
        }


@dataclass(frozen=True, slots=True)
class Target:
    """A limit to meet: `bytes`, `latency_ms` or `terms` (a document) at most, or `ndcg` at least.

    ndcg is a share of the unpruned index's: 0.98 gives away two hundredths of its quality.
    """

    figure: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read "bytes<=200MB", "latency_ms<=2", "terms<=40" or "ndcg>=0.98". Raises BadInput."""
        found = _TARGET.fullmatch(text)
        if found is None or found[1] not in _FIGURES:
            raise BadInput(f"no target {text!r}; write bytes<=200MB, latency_ms<=2, terms<=40 or ndcg>=0.98")
        target = cls(found[1], float(found[3]) * _UNITS.get(found[4].lower(), np.nan))
        if np.isnan(target.limit) or (found[4] and target.figure != "bytes"):
            raise BadInput(f"unit {found[4]!r} in {text!r}; bytes have kB, MB, GB, TB, KiB, MiB or GiB, others none")
        if found[2] != target.sign:
            raise BadInput(f"{text!r} would ask for the worse; write {target.figure}{target.sign}{found[3]}{found[4]}")
        return target

    @property
    def is_quality(self) -> bool:
        """Whether more is better."""
        return self.figure == "ndcg"

    @property
    def sign(self) -> str:
        """Which way the limit goes."""
        return ">=" if self.is_quality else "<="

    def value(self, candidate: Candidate) -> float:
        """The figure of a candidate that is limited."""
        return float(getattr(candidate, _FIGURES[self.figure]))

    def met(self, candidate: Candidate) -> bool:
        """Whether a candidate meets it, as far as the queries that choose tell."""
        value = self.value(candidate)
        return value >= self.limit if self.is_quality else value <= self.limit

    def __str__(self) -> str:
        return f"{self.figure}{self.sign}{self.limit:,.12g}"


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """What was tried, and how far it can be believed.

    candidates     the first keeps everything
    k              int    depth of nDCG
    pseudo         bool   True: nobody judged; the unpruned index's own k best count as relevant, the first most. Then
                          `kept` is likeness to the unpruned results, which real quality often exceeds
    queries        int    all; those without a relevant document say nothing
    chosen_on      int64  rows of the queries that choose; held: rows of those that check
    latency        LatencyModel
    latency_error  float  of its mean on queries that it was not fitted to; 0.1 means 10 % too slow
    """

    candidates: tuple[Candidate, ...]
    k: int
    pseudo: bool
    queries: int
    chosen_on: NDArray[np.int64]
    held: NDArray[np.int64]
    latency: LatencyModel
    latency_error: float

    def front(self) -> list[Candidate]:
        """The candidates that no other beats, the smallest first."""
        return pareto_front(self.candidates)

    def choose(self, targets: Sequence[Target]) -> Candidate:
        """The best candidate that meets all targets.

        Where size, latency or terms are limited, the one of the best quality; else the smallest. Held-out queries have
        no say. Raises OutOfReach, saying what is possible, where no candidate meets them; BadInput for no target.
        """
        if not targets:
            raise BadInput("no target; give one at least, such as bytes<=200MB or ndcg>=0.98")
        meeting = [each for each in self.candidates if all(target.met(each) for target in targets)]
        if not meeting:
            raise OutOfReach(self._possible(targets))
        if all(target.is_quality for target in targets):
            return min(meeting, key=lambda each: (each.bytes, -each.kept))
        return max(meeting, key=lambda each: (each.kept, -each.bytes))

    def _possible(self, targets: Sequence[Target]) -> str:
        """What each target allows, alone and where the others are met."""
        said = []
        for target in targets:
            others = [each for each in targets if each is not target]
            rest = [each for each in self.candidates if all(other.met(each) for other in others)]
            if not rest:
                continue
            best = (max if target.is_quality else min)(rest, key=target.value)
            given = f" with {' and '.join(map(str, others))}" if others else ""
            reached = "at most" if target.is_quality else "at least"
            said.append(f"{target.figure} is {reached} {target.value(best):,.4g}{given} ({best.rule.name})")
        wanted = " and ".join(map(str, targets))
        return f"no pruning meets {wanted}: {'; '.join(said) or 'each is out of reach by itself'}. Relax a target."

    def to_dict(self) -> dict[str, Any]:
        """Everything in JSON."""
        front = {id(each) for each in self.front()}
        return {
            "k": self.k,
            "judgments": "pseudo" if self.pseudo else "given",
            "queries": {"all": self.queries, "chosen_on": len(self.chosen_on), "held": len(self.held)},
            "latency_model": {
                "base_ms": self.latency.base * 1e3,
                "ns": dict(zip(WORK, (rate * 1e9 for rate in self.latency.rates), strict=True)),
                "error_of_mean_on_held": round(self.latency_error, 4),
            },
            "candidates": [{**each.to_dict(), "on_front": id(each) in front} for each in self.candidates],
        }


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats, smallest first: none is as small, as quick and as good, and in one of these better.

    Of candidates that are equal in all three, the first stays.
    """
    front: list[tuple[tuple[float, float, float], Candidate]] = []
    for each in sorted(candidates, key=_costs):  # what beats a candidate comes before it
        costs = _costs(each)
        if not any(all(a <= b for a, b in zip(other, costs, strict=True)) for other, _ in front):
            front.append((costs, each))
    return [each for _, each in front]


def _costs(candidate: Candidate) -> tuple[float, float, float]:
    return candidate.bytes, candidate.latency_ms, -candidate.kept


# -- tuning ------------------------------------------------------------------------------------------


def tune(
    subject: Subject,
    queries: SparseVectors,
    grades: Grades | None = None,
    *,
    rules: Sequence[Rule] | None = None,
    labels: Labels | None = None,
    k: int = 10,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Tuning:
    """Try rules on a random half of the queries, and check them on the other half.

    grades       of each query; None takes the unpruned index's own k best as relevant, with grades k, k - 1, ..., 1
    rules        what to try; None takes the usual ones (polylex.rules.usual_rules). Keeping everything is always tried
    labels       also try to prune documents of different labels, such as languages, differently
    seed         of the split into halves, and of the intervals
    on_progress  called with the number of documents, after each rule that was tried on them

    Raises BadInput for fewer than 4 queries with a relevant document or where the unpruned index finds none of what is
    relevant; VocabMismatch.
    """
    _check(subject, queries, grades, labels, k)
    if rules is None:
        sample = next((vectors for _, vectors in subject.blocks()), SparseVectors.empty(subject.vocab))
        rules = usual_rules(sample, subject.pivot_size)
    values = labels.values if labels else None

    def run(some: Sequence[Rule]) -> list[Trial]:
        return run_trials(subject, queries, some, k, labels=values, on_progress=on_progress)

    trials = run([Alike(), *(rule for rule in rules if rule != Alike())])
    judged = _Judged.split(trials[0], grades, seed)
    if labels is not None:
        trials += run(label_rules(labels, run, judged.quality, trials[0]))
    latency, error = _latency(subject, queries, judged, k)
    return Tuning(
        candidates=tuple(_candidate(subject, trial, trials[0], judged, latency) for trial in trials),
        k=k,
        pseudo=grades is None,
        queries=len(queries),
        chosen_on=judged.choosing,
        held=judged.held,
        latency=latency,
        latency_error=error,
    )


def _check(subject: Subject, queries: SparseVectors, grades: Grades | None, labels: Labels | None, k: int) -> None:
    queries.require(subject.vocab, "what is tuned")
    if k < 1:
        raise BadInput(f"k must be at least 1, got {k}")
    if not subject.documents:
        raise BadInput("there are no documents to prune; tune an index that holds some")
    if grades is not None and len(grades) != len(queries):
        raise BadInput(f"{len(grades)} sets of grades for {len(queries)} queries; give one a query")
    if labels is not None and len(labels.values) != subject.documents:
        raise BadInput(f"{len(labels.values)} labels for {subject.documents} documents; give one a document")


class _Judged:
    """Queries that say something, in two halves.

    grades         [queries]
    choosing, held int64  rows of queries
    """

    def __init__(self, grades: Grades, choosing: NDArray[np.int64], held: NDArray[np.int64], seed: int) -> None:
        self.grades, self.choosing, self.held = grades, choosing, held
        self._resamples = np.random.default_rng(seed).integers(0, len(held), (_RESAMPLES, len(held)))

    @classmethod
    def split(cls, whole: Trial, grades: Grades | None, seed: int) -> _Judged:
        """Judge by `grades`, or by what the unpruned index finds."""
        if grades is None:
            k = whole.rows.shape[1]
            grades = [{row: k - at for at, row in enumerate(rows) if row >= 0} for rows in whole.rows.tolist()]
        judged = np.flatnonzero([any(grade > 0 for grade in known.values()) for known in grades])
        if len(judged) < _LEAST:
            raise BadInput(
                f"{len(judged)} queries with a relevant document; tuning needs {_LEAST} at least, and hundreds to tell "
                "small differences"
            )
        order = np.random.default_rng(seed).permutation(judged)
        middle = (len(order) + 1) // 2
        found = cls(grades, np.sort(order[:middle]), np.sort(order[middle:]), seed)
        quality = ndcg(whole.rows, grades)
        if not (quality[found.choosing].any() and quality[found.held].any()):
            raise BadInput(
                "without any pruning, nothing relevant is among the first results; check that the judgments belong to "
                "these queries and documents"
            )
        return found

    def quality(self, trial: Trial) -> float:
        """Summed nDCG of the choosing half."""
        return float(ndcg(trial.rows, self.grades)[self.choosing].sum())

    def kept(self, trial: Trial, whole: Trial) -> tuple[float, float, tuple[float, float], float]:
        """Share of the unpruned nDCG of the choosing half; of the held half; its interval; nDCG of the held half."""
        quality, before = ndcg(trial.rows, self.grades), ndcg(whole.rows, self.grades)
        mine, theirs = quality[self.held], before[self.held]
        sums = theirs[self._resamples].sum(axis=1)
        shares = np.divide(mine[self._resamples].sum(axis=1), sums, out=np.ones(_RESAMPLES), where=sums > 0)
        low, high = np.percentile(shares, (2.5, 97.5))
        return (
            float(quality[self.choosing].sum() / before[self.choosing].sum()),
            float(mine.sum() / theirs.sum()),
            (float(low), float(high)),
            float(mine.mean()),
        )


def _candidate(subject: Subject, trial: Trial, whole: Trial, judged: _Judged, latency: LatencyModel) -> Candidate:
    kept, held_kept, interval, quality = judged.kept(trial, whole)
    return Candidate(
        rule=trial.rule,
        terms=trial.postings / subject.documents,
        postings=trial.postings,
        bytes=subject.bytes - whole.bytes + trial.bytes,
        latency_ms=float(latency.predict(trial.work[judged.choosing]).mean() * 1e3),
        held_latency_ms=float(latency.predict(trial.work[judged.held]).mean() * 1e3),
        kept=kept,
        held_kept=held_kept,
        interval=interval,
        ndcg=quality,
    )


# -- latency -----------------------------------------------------------------------------------------


def _latency(subject: Subject, queries: SparseVectors, judged: _Judged, k: int) -> tuple[LatencyModel, float]:
    """A model fitted to queries that choose, and its error on held ones, in the index as it is and harshly pruned.

    What is between is interpolated: no rule needs a measurement of its own.
    """
    fitted, held = (queries.take(half[:_TIMED]) for half in (judged.choosing, judged.held))
    tables = in_memory(subject, SparseVectors.concat([fitted, held]), _TIMED_RULES)

    def figures(asked: SparseVectors) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        work = [np.sum([work_of(segment, asked) for segment in table.segments], axis=0) for table in tables]
        return np.concatenate(work), np.concatenate([measure(table.top, asked, k) for table in tables])

    model = LatencyModel.fit(*figures(fitted))
    error = model.error(*figures(held))
    if subject.search is not None:  # which does a little more than search what is in memory
        more = measure(subject.search, fitted, k) - measure(tables[0].top, fitted, k)
        model = replace(model, base=model.base + max(float(more.mean()), 0.0))
    return model, error


def measured_ms(
    subject: Subject, queries: SparseVectors, rule: Rule, k: int = 10, labels: Labels | None = None
) -> float:
    """Milliseconds a query, mean, that a pruned index takes: what `Candidate.held_latency_ms` predicts.

    Measured on a copy in memory of what these queries look into: 6 bytes for each posting of their terms that is left.
    """
    (table,) = in_memory(subject, queries, [rule], labels.values if labels else None)
    return float(measure(table.top, queries, k, rounds=3).mean() * 1e3)
