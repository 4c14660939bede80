"""Vocab: the names of all terms, English pivot terms first, terms of the source text after them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadModel, BadVectors

if TYPE_CHECKING:
    from polylex.vectors import SparseVectors

View = Literal["pivot", "source"]
PREFIX: dict[View, str] = {"pivot": "e_", "source": "m_"}


class Vocab:
    """Two views in one id space: pivot ids [0, V), source ids [V, V + Vm).

    Names carry the released models' convention: `e_music` is the English term, `m_▁陌` a token of the text itself.

        vocab.id("e_music"), vocab.name(4424), vocab.view(4424)
    """

    def __init__(self, pivot: Sequence[str], source: Sequence[str]) -> None:
        """Take the bare names of both views (no prefix), in id order. Names must be unique within a view."""
        for view, names in (("pivot", pivot), ("source", source)):
            if len(set(names)) != len(names):
                raise BadVectors(f"the {view} view names a term twice; every name needs one id")
        self.pivot = tuple(pivot)
        self.source = tuple(source)

    def __len__(self) -> int:
        return len(self.pivot) + len(self.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Vocab({len(self.pivot)} pivot + {len(self.source)} source terms, {self.fingerprint[:12]})"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the names of both views in id order; equal ids mean equal words iff this is equal."""
        names = json.dumps([self.pivot, self.source], ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(names.encode("ascii")).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {f"e_{name}": index for index, name in enumerate(self.pivot)}
        ids.update((f"m_{name}", index + len(self.pivot)) for index, name in enumerate(self.source))
        return ids

    def id(self, name: str) -> int:
        """Id of a prefixed name. Raises BadVectors for a name that is not here."""
        try:
            return self._ids[name]
        except KeyError:
            raise BadVectors(
                f"no term {name!r} in {self!r}; names start with 'e_' (English term) or 'm_' (token of the text)"
            ) from None

    def view(self, term: int) -> View:
        """Which view a term id belongs to."""
        return "pivot" if term < len(self.pivot) else "source"

    def name(self, term: int) -> str:
        """Prefixed name of a term id."""
        if not 0 <= term < len(self):
            raise BadVectors(f"term id {term} is not in [0, {len(self)})")
        if term < len(self.pivot):
            return f"e_{self.pivot[term]}"
        return f"m_{self.source[term - len(self.pivot)]}"

    def names(self, terms: Iterable[int] | NDArray[np.uint32]) -> list[str]:
        """Prefixed names of term ids."""
        return [self.name(int(term)) for term in terms]

    def require(self, vectors: SparseVectors) -> None:
        """Raise VocabMismatch unless `vectors` live in this id space."""
        vectors.require(self.fingerprint, "this vocabulary")


def pivot_names(vocabulary: str, folder: Path | None = None) -> tuple[str, ...]:
    """Names of a pivot vocabulary: one shipped with Polylex, or a text file in `folder` with one term a line.

    Raises BadModel when there is neither.
    """
    shipped = Path(__file__).parent / "assets" / f"{vocabulary}.txt"
    for path in (shipped, *([folder / vocabulary] if folder else [])):
        if path.is_file():
            return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    raise BadModel(
        f"no pivot vocabulary {vocabulary!r}: it is neither shipped with Polylex nor a file in {folder}. "
        "Put a text file with one term a line beside the weights and name it in config.json."
    )
