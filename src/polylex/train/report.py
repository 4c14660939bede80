"""Report: what training data are made of, for a model card: languages, lengths, sources, licences, what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from polylex.train.data import Group, Pair

UNSTATED = "unstated"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters of some texts: how many texts, and quantiles of their lengths."""

    texts: int
    median: int
    p95: int
    longest: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> Lengths:
        """Measure texts; all zero for none."""
        if not texts:
            return cls(0, 0, 0, 0)
        sizes = np.array([len(text) for text in texts])
        median, high = (int(value) for value in np.percentile(sizes, (50, 95)))
        return cls(len(texts), median, high, int(sizes.max()))


@dataclass(frozen=True, slots=True)
class Part:
    """One set of rows.

    rows       how many
    languages  rows of each language, most first
    sources    rows of each source, most first
    licences   rows under each licence, most first; sources that no pattern names are "unstated"
    lengths    of each kind of text: "english" and "non_english", or "query", "positive" and "negative"
    dropped    of each source how many rows went for which reason; see `screen`
    """

    rows: int
    languages: dict[str, int]
    sources: dict[str, int]
    licences: dict[str, int]
    lengths: dict[str, Lengths]
    dropped: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Report:
    """All sets of rows, by name, and the licence of each source."""

    parts: dict[str, Part]
    licence_of: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """What json.dump takes."""
        return asdict(self)

    def as_markdown(self) -> str:
        """Tables for a model card."""
        return "\n\n".join(_section(name, part, self.licence_of) for name, part in self.parts.items()) + "\n"

    def summary(self) -> str:
        """A line for each set."""
        return "\n".join(
            f"{name}: {part.rows:,} rows, {len(part.languages)} languages, {len(part.sources)} sources, "
            f"{sum(sum(counts.values()) for counts in part.dropped.values()):,} dropped, "
            f"{part.licences.get(UNSTATED, 0):,} of unstated licence"
            for name, part in self.parts.items()
        )


def report(
    sets: Mapping[str, Sequence[Pair] | Sequence[Group]],
    *,
    dropped: Mapping[str, dict[str, dict[str, int]]] | None = None,
    licences: Mapping[str, str] | None = None,
) -> Report:
    """Describe sets of rows.

    dropped   `Screened.dropped` of each set
    licences  licence of the sources that a pattern with * and ? fits, the first that does
    """
    patterns = licences or {}
    sources = sorted({row.source for rows in sets.values() for row in rows})
    licence_of = {source: _licence(source, patterns) for source in sources}
    parts = {name: _part(rows, licence_of, (dropped or {}).get(name, {})) for name, rows in sets.items()}
    return Report(parts, licence_of)


def _part(rows: Sequence[Pair | Group], licence_of: Mapping[str, str], dropped: dict[str, dict[str, int]]) -> Part:
    texts: dict[str, list[str]] = {}
    for row in rows:
        for kind, found in _texts(row).items():
            texts.setdefault(kind, []).extend(found)
    return Part(
        rows=len(rows),
        languages=_counted(row.language for row in rows),
        sources=_counted(row.source for row in rows),
        licences=_counted(licence_of[row.source] for row in rows),
        lengths={kind: Lengths.of(found) for kind, found in texts.items()},
        dropped=dropped,
    )


def _texts(row: Pair | Group) -> dict[str, Sequence[str]]:
    if isinstance(row, Pair):
        return {"english": (row.english,), "non_english": (row.non_english,)}
    return {"query": (row.query,), "positive": row.positives, "negative": row.negatives}


def _licence(source: str, patterns: Mapping[str, str]) -> str:
    return next((licence for pattern, licence in patterns.items() if fnmatchcase(source, pattern)), UNSTATED)


def _counted(values: Any) -> dict[str, int]:  # noqa: ANN401 - an iterable of str
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _section(name: str, part: Part, licence_of: Mapping[str, str]) -> str:
    lines = [
        f"## {name.capitalize()}: {part.rows:,} rows",
        "",
        "| text | number | median characters | 95 % | longest |",
    ]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {x.texts:,} | {x.median:,} | {x.p95:,} | {x.longest:,} |" for kind, x in part.lengths.items()
    ]
    lines += ["", "| source | rows | dropped | licence |", "|---|---|---|---|"]
    for source in dict.fromkeys((*part.sources, *part.dropped)):
        gone = ", ".join(f"{count:,} {reason}" for reason, count in part.dropped.get(source, {}).items())
        lines.append(f"| {source or '-'} | {part.sources.get(source, 0):,} | {gone} | {licence_of.get(source, '')} |")
    lines += ["", "Languages: " + ", ".join(f"{language or '-'} {rows:,}" for language, rows in part.languages.items())]
    return "\n".join(lines)
