"""Rules that tell documents and views apart when pruning: all alike, by view, by a field of the documents.

rule = PerView(Pruning(mass=0.9), Pruning(top_k=16))
block = Block(vectors, pivot_size=len(vocab.pivot))
vectors.select(rule.kept(block))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from polylex.prune import Pruning, Ranking
from polylex.vectors import SparseVectors

KEEP_ALL = Pruning()
_MASSES = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_TOPS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8)
_RATIOS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of all weights, for thresholds
_VIEW_MASSES = (1.0, 0.9, 0.75, 0.5, 0.25)


class Block:
    """Documents that are pruned together, with what rules ask of them, computed once for all rules.

    vectors     SparseVectors
    pivot_size  int           ids below it are pivot terms; 0 if unknown, then every term counts as source
    labels      str [rows]    what tells the documents apart; "" for all where not given
    """

    def __init__(self, vectors: SparseVectors, pivot_size: int = 0, labels: Sequence[str] | None = None) -> None:
        self.vectors = vectors
        self.pivot_size = pivot_size
        self._labels = [""] * len(vectors) if labels is None else labels

    @cached_property
    def ranking(self) -> Ranking:
        """All terms of each document in one order."""
        return Ranking(self.vectors)

    @cached_property
    def labels(self) -> tuple[list[str], NDArray[np.intp]]:
        """The different labels, and of each row the place of its own among them."""
        names, places = np.unique(np.array(self._labels, dtype=str), return_inverse=True)
        return names.tolist(), places

    @cached_property
    def is_pivot(self) -> NDArray[np.bool_]:
        """Which weights belong to the pivot view."""
        return np.less(self.vectors.terms, self.pivot_size)

    @cached_property
    def view_rankings(self) -> tuple[Ranking, Ranking]:
        """The terms of the pivot view, and of the source view, each in its own order."""
        return Ranking(self.vectors.select(self.is_pivot)), Ranking(self.vectors.select(~self.is_pivot))


class Rule(Protocol):
    """Which terms of documents stay."""

    @property
    def name(self) -> str:
        """One line for people."""

    @property
    def family(self) -> str:
        """Name of the rules that differ from this one in how much they keep only."""

    def kept(self, block: Block) -> NDArray[np.bool_]:
        """Which weights of the block stay, bool [nnz]."""

    def to_dict(self) -> dict[str, Any]:
        """The rule in JSON."""


@dataclass(frozen=True, slots=True)
class Alike:
    """One rule for every term of every document; without limits it keeps all."""

    limits: Pruning = KEEP_ALL

    @property
    def name(self) -> str:
        """Such as "mass 0.9"."""
        return _limits(self.limits)

    @property
    def family(self) -> str:
        """Such as "mass"; "all" without limits."""
        return " and ".join(self.limits.limits()) or "all"

    def kept(self, block: Block) -> NDArray[np.bool_]:
        """Which weights stay."""
        return block.ranking.kept(self.limits)

    def to_dict(self) -> dict[str, Any]:
        """The limits."""
        return self.limits.limits()


@dataclass(frozen=True, slots=True)
class PerView:
    """A rule for the English terms, another for the terms of the text itself."""

    pivot: Pruning
    source: Pruning

    @property
    def name(self) -> str:
        """Such as "pivot mass 0.9, source all"."""
        return f"pivot {_limits(self.pivot)}, source {_limits(self.source)}"

    @property
    def family(self) -> str:
        """The same for all."""
        return "by view"

    def kept(self, block: Block) -> NDArray[np.bool_]:
        """Which weights stay."""
        keep = np.empty(block.vectors.nnz, bool)
        pivot, source = block.view_rankings
        keep[block.is_pivot] = pivot.kept(self.pivot)
        keep[~block.is_pivot] = source.kept(self.source)
        return keep

    def to_dict(self) -> dict[str, Any]:
        """The limits of each view."""
        return {"pivot": self.pivot.limits(), "source": self.source.limits()}


@dataclass(frozen=True, slots=True)
class PerLabel:
    """A rule for the documents of each label (such as a language), one for all others.

    field   name of the field that holds the labels, for people
    groups  (label, its rule)
    rest    rule of every other label
    """

    field: str
    groups: tuple[tuple[str, Pruning], ...]
    rest: Pruning = KEEP_ALL

    @property
    def name(self) -> str:
        """Such as "by lang: 12 mass 0.7, 3 all", how many labels have which rule; `to_dict` tells which."""
        counts = Counter(_limits(limits) for _, limits in self.groups)
        return f"by {self.field}: {', '.join(f'{count} {limits}' for limits, count in sorted(counts.items()))}"

    @property
    def family(self) -> str:
        """Such as "by lang"."""
        return f"by {self.field}"

    def kept(self, block: Block) -> NDArray[np.bool_]:
        """Which weights stay."""
        names, places = block.labels
        rule_of = dict(self.groups)
        limits_of = [rule_of.get(name, self.rest) for name in names]
        keep = np.zeros(block.vectors.nnz, bool)
        for limits in set(limits_of):
            rows = np.array([each == limits for each in limits_of])[places]
            keep |= np.repeat(rows, np.diff(block.vectors.indptr)) & block.ranking.kept(limits)
        return keep

    def to_dict(self) -> dict[str, Any]:
        """The limits of each label."""
        return {
            "field": self.field,
            "labels": {label: limits.limits() for label, limits in self.groups},
            "rest": self.rest.limits(),
        }


def _limits(pruning: Pruning) -> str:
    return ", ".join(f"{name} {limit:g}" for name, limit in pruning.limits().items()) or "all"


def as_prune(
    rule: Rule, pivot_size: int, labels: Iterable[str] | None = None
) -> Callable[[SparseVectors], SparseVectors]:
    """A rule in the form that `Index.rewrite` takes, to be used once.

    labels  of all documents, in their order; for a PerLabel
    """
    remaining = None if labels is None else iter(labels)

    def prune(vectors: SparseVectors) -> SparseVectors:
        here = None if remaining is None else list(islice(remaining, len(vectors)))
        return vectors.select(rule.kept(Block(vectors, pivot_size, here)))

    return prune


def usual_rules(sample: SparseVectors, pivot_size: int = 0) -> list[Rule]:
    """Rules worth trying, from gentle to harsh in every family; the first keeps everything.

    sample  SparseVectors  some documents; thresholds are put at quantiles of their weights, and a view that they do not
                           have gets no rule of its own
    """
    thresholds = np.unique(np.quantile(sample.weights, _QUANTILES)) if sample.nnz else np.zeros(0)
    alike: Iterable[Pruning] = (
        KEEP_ALL,
        *(Pruning(mass=mass) for mass in _MASSES),
        *(Pruning(top_k=k) for k in _TOPS),
        *(Pruning(max_ratio=ratio) for ratio in _RATIOS),
        *(Pruning(threshold=float(f"{weight:.3g}")) for weight in thresholds),
    )
    rules: list[Rule] = [Alike(limits) for limits in alike]
    is_pivot = sample.terms < pivot_size
    if is_pivot.any() and not is_pivot.all():
        pairs = product((Pruning(mass=mass) if mass < 1 else KEEP_ALL for mass in _VIEW_MASSES), repeat=2)
        rules += [PerView(pivot, source) for pivot, source in pairs if pivot != source]
    return rules
