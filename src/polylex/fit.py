"""Fit: what an engine or format would do to given vectors, told before anything is sent.

fit = Fit(profile("opensearch-sparse"), vocab)
for batch in stream:
fit.add(batch.ids, batch.vectors)
fit.require()                                  # raises Unfit, with what to do
fit.findings                                   # what is rounded or renamed, too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadVectors, Unfit
from polylex.names import TermNames
from polylex.profiles import Profile
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

Kind = Literal["refused", "folded", "cut", "lost", "rounded", "renamed", "remapped", "pruned"]
_HARM: frozenset[Kind] = frozenset({"refused", "folded"})
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that happens to vectors.

    kind      "refused" or "folded" must not happen; the others are losses and changes that one should know of
    count     int    how many documents, terms or weights, as `text` says
    text      str    what happens, with the limit
    advice    str    what to do about it, "" where nothing needs to be done
    examples  tuple  ids of documents or names of terms, the first few
    """

    kind: Kind
    count: int
    text: str
    advice: str = ""
    examples: tuple[str, ...] = ()

    @property
    def harmful(self) -> bool:
        """Whether results would be wrong."""
        return self.kind in _HARM

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": self.kind,
            "harmful": self.harmful,
            "count": self.count,
            "text": self.text,
            "advice": self.advice,
            "examples": list(self.examples),
        }


class _Tally:
    """How often something was met, and the first few examples."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, found: Sequence[str]) -> None:
        self.count += len(found)
        self.examples += found[: _EXAMPLES - len(self.examples)]


class Fit:
    """Gathers, batch by batch, what a profile does to vectors."""

    def __init__(self, profile: Profile, vocab: Vocab | None, *, mapped: bool = False, queries: bool = False) -> None:
        """Begin with nothing.

        vocab    names of the terms; needed where the profile calls terms by name
        mapped   the vectors have dense ids of a TermMap
        queries  they are queries, for which other limits hold
        """
        if profile.terms == "names" and vocab is None:
            raise BadVectors(f"{profile.name} calls terms by name; give the vocabulary, or the model that has it")
        self.profile = profile
        self.documents = 0
        self._vocab = vocab
        self._mapped = mapped
        self._limit = profile.max_query_terms if queries else profile.max_terms
        self._unit = "queries" if queries else "documents"
        self._long_ids, self._many_terms = _Tally(), _Tally()
        self._weights = self._cut = self._lost = self._rounded = 0
        self._error = 0.0
        self._used = np.zeros(0, np.uint32)

    def add(self, ids: Sequence[str], vectors: SparseVectors) -> None:
        """Look at some documents."""
        self.documents += len(vectors)
        if self.profile.id_bytes is not None:
            self._long_ids.add([id for id in ids if len(id.encode("utf-8", "replace")) > self.profile.id_bytes])
        if self._limit is not None:
            self._many_terms.add([ids[row] for row in np.flatnonzero(np.diff(vectors.indptr) > self._limit).tolist()])
        self._add_weights(vectors.weights)
        self._used = np.union1d(self._used, vectors.terms)

    def _add_weights(self, weights: NDArray[np.float32]) -> None:
        kept = self.profile.rounded(weights)
        changed = (kept != weights) & (kept > 0)
        self._weights += len(weights)
        self._lost += int((kept == 0).sum())
        if self.profile.ceiling is not None:
            self._cut += int((weights > self.profile.ceiling).sum())
        if changed.any():
            self._rounded += int(changed.sum())
            worst = np.abs(kept[changed].astype(np.float64) / weights[changed] - 1).max()
            self._error = max(self._error, float(worst))

    # -- what came out ---------------------------------------------------------------------------

    @property
    def fits(self) -> bool:
        """Whether nothing harmful was found."""
        return not self._harm

    @property
    def findings(self) -> list[Finding]:
        """All that was found, the harmful first."""
        found = [*self._harm, *self._renamed(), *self._of_weights()]
        if self.profile.prunes:
            text = f"{self.profile.name} drops {self.profile.prunes}"
            found.append(Finding("pruned", 0, text, "the settings that Polylex writes switch this off where they can"))
        return found

    def require(self) -> None:
        """Raise Unfit, with the first harmful finding."""
        for finding in self._harm:
            shown = f" (such as {', '.join(finding.examples)})" if finding.examples else ""
            raise Unfit(f"{self.profile.name}: {finding.text}{shown}; {finding.advice}")

    @property
    def _harm(self) -> list[Finding]:
        return [*self._of_documents(), *(self._long_names() if self.profile.terms == "names" else self._large_ids())]

    def _of_documents(self) -> list[Finding]:
        found = []
        if self._many_terms.count:
            text = f"{self._many_terms.count:,} {self._unit} have more than {self._limit:,} terms"
            advice = f"prune them first: polylex prune --top-k {self._limit}"
            if self._unit == "queries":
                advice = f"encode them with --top-k {self._limit}"
            found.append(Finding("refused", self._many_terms.count, text, advice, tuple(self._many_terms.examples)))
        if self._long_ids.count:
            text = f"{self._long_ids.count:,} ids have more than {self.profile.id_bytes} bytes"
            found.append(
                Finding("refused", self._long_ids.count, text, "give shorter ids", tuple(self._long_ids.examples))
            )
        return found

    def _large_ids(self) -> list[Finding]:
        found: list[Finding] = []
        limit = self.profile.dimensions
        if limit is None:
            return found
        beyond = self._used[self._used >= limit]
        if len(beyond) and self.profile.folds:
            struck = np.isin(self._used % limit, beyond % limit).sum() - len(beyond)
            text = f"{len(beyond):,} term ids are taken modulo {limit:,}, and {int(struck):,} others are hit by that"
            found.append(Finding("folded", len(beyond), text, self._map_advice(), self._named(beyond)))
        elif len(beyond):
            text = f"{len(beyond):,} term ids are not below {limit:,}"
            found.append(Finding("refused", len(beyond), text, self._map_advice(), self._named(beyond)))
        return found

    def _map_advice(self) -> str:
        limit, used = int(self.profile.dimensions or 0), len(self._used)
        if used <= limit:
            return f"map the {used:,} terms in use to dense ids: --map FILE"
        if self._vocab is not None and len(self._vocab.pivot) <= limit:
            return (
                f"{used:,} terms are in use, more than fit; keep the terms of the text itself in a field that calls "
                "them by names, as the OpenSearch adapter does with sparse=True, or use another profile"
            )
        return f"{used:,} terms are in use, more than fit; prune them, or use another profile"

    @cached_property
    def _names(self) -> TermNames:
        return TermNames(self._vocab or Vocab([], []), self.profile.forbids)

    def _long_names(self) -> list[Finding]:
        limit = self.profile.name_length
        long = [] if limit is None else [name for name in self._names.of(self._used) if len(name) > limit]
        if not long:
            return []
        text = f"{len(long):,} names have more than {limit} characters"
        return [Finding("refused", len(long), text, "use another format", tuple(long[:_EXAMPLES]))]

    def _renamed(self) -> list[Finding]:
        """What ids and terms are called there."""
        found: list[Finding] = []
        if self.profile.ids == "uuid" and self.documents:
            text = "each id becomes a UUID that is made of it (version 5); the id itself stands in the payload"
            found.append(Finding("renamed", self.documents, text))
        if self._mapped:
            text = f"terms have dense ids of a map; {len(self._used):,} are used"
            found.append(Finding("remapped", len(self._used), text))
        if self.profile.terms == "names" and self.profile.forbids and self._vocab is not None:
            plain, names = self._vocab.names(self._used), self._names.of(self._used)
            changed = [f"{old} as {new}" for old, new in zip(plain, names, strict=True) if old != new]
            if changed:
                text = f"{len(changed):,} names have characters that are written as %XX, there and back"
                found.append(Finding("renamed", len(changed), text, examples=tuple(changed[:_EXAMPLES])))
        return found

    def _of_weights(self) -> list[Finding]:
        found: list[Finding] = []
        if self._cut:
            text = f"{self._cut:,} weights are cut down to {self.profile.ceiling:g}"
            found.append(Finding("cut", self._cut, text, "raise the ceiling of the engine's quantisation"))
        if self._lost:
            text = f"{self._lost:,} of {self._weights:,} weights are so small that they become 0"
            found.append(Finding("lost", self._lost, text))
        if self._rounded:
            text = (
                f"{self._rounded:,} of {self._weights:,} weights are rounded ({self.profile.error}); the most by "
                f"{self._error:.2%}"
            )
            found.append(Finding("rounded", self._rounded, text))
        return found

    def _named(self, terms: NDArray[np.uint32]) -> tuple[str, ...]:
        if self._vocab is None or self._mapped:
            return tuple(map(str, terms[:_EXAMPLES].tolist()))
        return tuple(self._vocab.names(terms[:_EXAMPLES]))
