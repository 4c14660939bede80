"""The collapse and grounding monitor: whether the sparse space is still made of words that mean the text.

Contrastive training without an aligned start drifts into terms that say nothing; over-long vectors and terms that are
always on are its beginning. A Monitor counts on the device, without waiting, and is read at every log line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from polylex.train.recipe import Recipe

# A term in more than this share of all texts is "always on".
ALWAYS = 0.5
# Names of always-on terms that a log line holds.
NAMED = 20

Comparison = Literal["translation", "teacher"]


@dataclass(frozen=True, slots=True)
class Health:
    """Means over some texts; None where nothing was measured.

    texts        how many were seen
    terms        active pivot terms of a text; source_terms: of the source view
    empty        share of texts with no pivot term
    translation  overlap of a text with its translation, 0..1
    teacher      overlap of a text with the teacher's vector of its English side, 0..1

    Overlap is sum of minima / sum of maxima of the weights (weighted Jaccard).
    """

    texts: int
    terms: float | None
    source_terms: float | None
    empty: float | None
    translation: float | None
    teacher: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the monitor saw since it was read last.

    all        of all texts; languages: of each one that was seen
    live       share of the pivot vocabulary that some text used
    always_on  terms in more than half of the texts, the commonest first: (name, share)
    always_on_count  how many there are; only the first are named
    """

    all: Health
    languages: dict[str, Health]
    live: float
    always_on: tuple[tuple[str, float], ...]
    always_on_count: int

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


class Monitor:
    """Counts, per language, what `Reading` tells."""

    def __init__(self, names: Sequence[str], languages: Sequence[str], device: torch.device) -> None:
        """Take names of the pivot terms [V] and of the languages that `see` numbers."""
        self._names, self.languages, self._device = names, tuple(languages), device
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        rows, device = len(self.languages), self._device
        self._texts, self._terms, self._source, self._empty = torch.zeros((4, rows), device=device)
        self._overlap = {kind: torch.zeros((2, rows), device=device) for kind in ("translation", "teacher")}
        self._used = torch.zeros(len(self._names), device=device)

    @torch.no_grad()
    def see(self, weights: Tensor, languages: Tensor, echo: Tensor | None = None) -> None:
        """Count texts: pivot weights [B, V], number of each one's language int64 [B], source weights [B, L]."""
        active = weights > 0
        count = active.sum(dim=1).float()
        self._texts.index_add_(0, languages, torch.ones_like(count))
        self._terms.index_add_(0, languages, count)
        self._empty.index_add_(0, languages, (count == 0).float())
        if echo is not None:
            self._source.index_add_(0, languages, (echo > 0).sum(dim=1).float())
        self._used += active.sum(dim=0)

    @torch.no_grad()
    def compare(self, kind: Comparison, weights: Tensor, others: Tensor, languages: Tensor) -> None:
        """Measure the overlap of weights [B, V] with those of translations or of the teacher [B, V]."""
        shared = torch.minimum(weights, others).sum(dim=1)
        union = torch.maximum(weights, others).sum(dim=1)
        overlap = torch.where(union > 0, shared / union.clamp(min=1e-9), 0.0)
        self._overlap[kind][0].index_add_(0, languages, overlap)
        self._overlap[kind][1].index_add_(0, languages, torch.ones_like(overlap))

    def read(self) -> Reading:
        """What was seen; and start again."""
        table = torch.stack(
            [
                self._texts,
                self._terms,
                self._source,
                self._empty,
                *self._overlap["translation"],
                *self._overlap["teacher"],
            ]
        ).cpu()
        texts = float(table[0].sum())
        share = (self._used / max(texts, 1)).cpu()
        often = (share > ALWAYS).nonzero().flatten().tolist()
        often.sort(key=lambda term: (-float(share[term]), term))
        languages = {
            name: _health(table[:, row])
            for row, name in enumerate(self.languages)
            if table[0, row] > 0 or table[5, row] > 0 or table[7, row] > 0
        }
        reading = Reading(
            _health(table.sum(dim=1)),
            languages,
            float((share > 0).float().mean()),
            tuple((self._names[term], round(float(share[term]), 4)) for term in often[:NAMED]),
            len(often),
        )
        self.reset()
        return reading


def why_stop(reading: Reading, config: Recipe) -> str | None:
    """The reason to stop a run with such a reading; None for a healthy one."""
    seen = reading.all
    named = ", ".join(name for name, _ in reading.always_on[:8])
    checks = (
        (seen.empty, ">", config.monitor_max_empty, "of the texts have no pivot term", "monitor_max_empty"),
        (seen.terms, ">", config.monitor_max_terms, "active terms a text", "monitor_max_terms"),
        (float(reading.always_on_count), ">", config.monitor_max_always_on,
         f"terms are on in more than half of all texts ({named})", "monitor_max_always_on"),
        (reading.live, "<", config.monitor_min_live, "of the vocabulary is in use", "monitor_min_live"),
        (seen.teacher, "<", config.monitor_min_teacher,
         "is the overlap with the English teacher: the terms are not grounded in words", "monitor_min_teacher"),
        (seen.translation, "<", config.monitor_min_translation, "is the overlap of translations",
         "monitor_min_translation"),
    )  # fmt: skip
    for value, sign, limit, told, name in checks:
        if value is not None and (value > limit if sign == ">" else value < limit):
            return f"{value:.3g} {told}; the limit {name} is {limit:g}"
    return None


def plot(log: str | os.PathLike[str], picture: str | os.PathLike[str]) -> bool:
    """Draw the curves of a log.jsonl; False where matplotlib is not installed or there is nothing to draw."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "monitor" in row]
    if not rows:
        return False
    curves = {
        "loss": [row["loss"] for row in rows],
        "terms a text": [row["monitor"]["all"]["terms"] for row in rows],
        "empty texts": [row["monitor"]["all"]["empty"] for row in rows],
        "live vocabulary": [row["monitor"]["live"] for row in rows],
        "overlap of translations": [row["monitor"]["all"]["translation"] for row in rows],
        "overlap with the teacher": [row["monitor"]["all"]["teacher"] for row in rows],
    }
    figure = Figure(figsize=(12, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, values) in enumerate(curves.items()):
        axes = figure.add_subplot(2, 3, index + 1)
        axes.plot([row["step"] for row in rows], [float("nan") if v is None else v for v in values])
        axes.set_title(name)
        axes.set_xlabel("step")
    figure.savefig(str(picture), dpi=100)
    return True


def _health(column: Tensor) -> Health:
    texts, terms, source, empty, translation, translated, teacher, taught = (float(x) for x in column)
    return Health(
        int(texts),
        _mean(terms, texts),
        _mean(source, texts),
        _mean(empty, texts),
        _mean(translation, translated),
        _mean(teacher, taught),
    )


def _mean(total: float, count: float) -> float | None:
    return round(total / count, 5) if count else None
