"""Allotment: how harshly the documents of each language (or of any label) are pruned, for the good of the whole.

rules = label_rules(Labels("lang", index.values("lang")), run, quality, whole)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polylex.prune import Pruning
from polylex.rules import KEEP_ALL, PerLabel, Rule
from polylex.trials import Trial

_MASSES = (0.95, 0.9, 0.8, 0.7, 0.55, 0.4)  # tried of every label
_ALLOTMENTS = 24  # tried of all labels together
_LADDER = (KEEP_ALL, *(Pruning(mass=mass) for mass in _MASSES))


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A field that tells documents apart.

    field   str              its name
    values  int -> str       of every document by row, in increasing order; "" where a document has none
    limit   int              the most frequent values are pruned each by its own rule, all others together
    """

    field: str
    values: Mapping[int, str]
    limit: int = 24

    def frequent(self) -> list[str]:
        """The values with their own rule, sorted."""
        return sorted(value for value, _ in Counter(self.values.values()).most_common(self.limit))


def label_rules(
    labels: Labels,
    run: Callable[[Sequence[Rule]], list[Trial]],
    quality: Callable[[Trial], float],
    whole: Trial,
) -> list[Rule]:
    """Rules that spend postings on the labels where they buy most quality.

    run      tries rules
    quality  of a trial, any unit
    whole    the trial that keeps everything

    Each label is pruned alone first, all others whole. What that costs and saves is taken as independent of the others,
    and every price of a posting then has its best rule. Those rules remain to be tried: no figure rests on this.
    """
    names = labels.frequent()
    alone = [PerLabel(labels.field, ((name, limits),)) for name in names for limits in _LADDER[1:]]
    if set(labels.values.values()) - set(names):
        whole_names = tuple((name, KEEP_ALL) for name in names)
        alone += [PerLabel(labels.field, whole_names, limits) for limits in _LADDER[1:]]
    if not alone:
        return []
    trials = run(alone)
    lost, size = np.zeros((2, len(trials) // len(_MASSES), len(_LADDER)))
    lost[:, 1:] = np.reshape([quality(whole) - quality(each) for each in trials], (-1, len(_MASSES)))
    size[:, 1:] = np.reshape([each.postings - whole.postings for each in trials], (-1, len(_MASSES)))
    rules: list[Rule] = []
    for levels in allotments(lost, size, _ALLOTMENTS):
        chosen = [_LADDER[level] for level in levels]
        rest = chosen[len(names)] if len(chosen) > len(names) else KEEP_ALL
        rules.append(PerLabel(labels.field, tuple(zip(names, chosen, strict=False)), rest))
    return rules


def allotments(lost: NDArray[np.float64], size: NDArray[np.float64], count: int) -> list[list[int]]:
    """Levels that are best for some price of size, one level a group: the least of lost + price * size in every row.

    lost, size  [groups, levels]  what each level loses, and how large it is
    returns up to `count` different choices, from the lowest price to the highest, without those that take level 0 only
    """
    more_lost = lost[:, None, :] - lost[:, :, None]  # [group, from, to]
    saved = size[:, :, None] - size[:, None, :]
    prices = np.unique(np.divide(more_lost, saved, out=np.zeros_like(saved), where=saved > 0))
    prices = prices[prices > 0]
    lowest = prices[0] / 2 if len(prices) else 1.0  # takes what costs nothing
    # Between two of these prices nobody changes its mind.
    found = {tuple(np.argmin(lost + price * size, axis=1).tolist()): None for price in (lowest, *(prices * (1 + 1e-9)))}
    choices = [list(levels) for levels in found if any(levels)]
    if len(choices) <= count:
        return choices
    return [choices[at] for at in np.linspace(0, len(choices) - 1, count).round().astype(int)]
