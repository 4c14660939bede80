"""SparseVectors: the one array type that crosses every border, from model to index.

from polylex import SparseVectors, load

encoder = load()
vectors = encoder.encode_query(["Wo steht das?"])
vectors.decode(encoder.vocab, top_k=3)        # [[("where", 1.2), ...]]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadVectors, VocabMismatch

if TYPE_CHECKING:
    from polylex.vocab import Vocab


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """Weighted terms of some texts, one row each.

    indptr   int64   [rows + 1]  row r is the slice indptr[r]:indptr[r + 1]
    terms    uint32  [nnz]       ids in `vocab`, strictly increasing inside a row
    weights  float32 [nnz]       finite, > 0; no unit, comparable only within one model
    vocab    str                 fingerprint of the id space (Vocab.fingerprint); mixing two raises VocabMismatch

    Raises BadVectors when an array breaks this contract, naming the first offending row.
    """

    indptr: NDArray[np.int64]
    terms: NDArray[np.uint32]
    weights: NDArray[np.float32]
    vocab: str

    def __post_init__(self) -> None:
        for name, dtype in (("indptr", np.int64), ("terms", np.uint32), ("weights", np.float32)):
            array = np.asarray(getattr(self, name))
            if array.ndim != 1:
                raise BadVectors(f"{name} must have one dimension, got shape {array.shape}")
            if name != "weights" and array.size and not np.issubdtype(array.dtype, np.integer):
                raise BadVectors(f"{name} must hold integers, got {array.dtype}")
            if name == "terms" and array.dtype != np.uint32 and array.size:
                low, high = int(array.min()), int(array.max())
                if low < 0 or high > 0xFFFFFFFF:
                    raise BadVectors(f"term ids must lie in [0, 2**32), got {low}..{high}")
            object.__setattr__(self, name, np.ascontiguousarray(array, dtype=dtype))
        self._check()

    def _check(self) -> None:
        indptr, terms, weights = self.indptr, self.terms, self.weights
        if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(terms) or (np.diff(indptr) < 0).any():
            raise BadVectors("indptr must start at 0, never decrease and end at the number of terms")
        if len(weights) != len(terms):
            raise BadVectors(f"{len(weights)} weights for {len(terms)} terms; each term needs one weight")
        bad = ~(np.isfinite(weights) & (weights > 0))
        if bad.any():
            at = int(bad.argmax())
            row = int(np.searchsorted(indptr, at, side="right")) - 1
            raise BadVectors(f"row {row}: weight {weights[at]} of term {terms[at]}; weights must be finite and > 0")
        if len(terms) > 1:
            rises = terms[1:] > terms[:-1]
            starts = indptr[1:-1]
            rises[starts[(starts > 0) & (starts < len(terms))] - 1] = True  # the first term of a row may be any
            if not rises.all():
                row = int(np.searchsorted(indptr, int((~rises).argmax()) + 1, side="right")) - 1
                raise BadVectors(f"row {row}: term ids must strictly increase; sort them and merge repeated ones")

    # -- making ----------------------------------------------------------------------------------

    @classmethod
    def empty(cls, vocab: str, rows: int = 0) -> SparseVectors:
        """`rows` vectors without any term."""
        return cls(np.zeros(rows + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), vocab)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[NDArray[np.uint32], NDArray[np.float32]]], vocab: str) -> SparseVectors:
        """One (terms, weights) pair of arrays a row; terms strictly increasing."""
        terms: list[NDArray[np.uint32]] = []
        weights: list[NDArray[np.float32]] = []
        for row_terms, row_weights in rows:
            terms.append(row_terms)
            weights.append(row_weights)
        if not terms:
            return cls.empty(vocab)
        indptr = np.concatenate([[0], np.cumsum([len(t) for t in terms])]).astype(np.int64)
        return cls(indptr, np.concatenate(terms), np.concatenate(weights), vocab)

    @classmethod
    def from_dicts(cls, rows: Iterable[Mapping[str, float]], vocab: Vocab) -> SparseVectors:
        """One {term name: weight} mapping a row, e.g. {"e_music": 1.3, "m_▁陌": 1.1}.

        Raises BadVectors for a name that `vocab` does not have, and for weights that are not finite and > 0.
        """
        pairs = []
        for row in rows:
            ids = np.array([vocab.id(name) for name in row], np.uint32)
            order = np.argsort(ids)
            pairs.append((ids[order], np.array(list(row.values()), np.float32)[order]))
        return cls.from_rows(pairs, vocab.fingerprint)

    @staticmethod
    def concat(parts: Sequence[SparseVectors]) -> SparseVectors:
        """The rows of `parts`, in order. Raises VocabMismatch unless all share one id space."""
        if not parts:
            raise BadVectors("nothing to concatenate: an empty list has no id space; use SparseVectors.empty(vocab)")
        for part in parts:
            part.require(parts[0].vocab, "the first part")
        offsets = np.cumsum([0] + [part.nnz for part in parts])
        indptr = [part.indptr[1:] + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        return SparseVectors(
            np.concatenate([np.zeros(1, np.int64), *indptr]),
            np.concatenate([part.terms for part in parts]),
            np.concatenate([part.weights for part in parts]),
            parts[0].vocab,
        )

    # -- looking ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of (row, term) weights."""
        return len(self.terms)

    def row(self, row: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Views of one row's (terms, weights)."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        span = slice(self.indptr[row], self.indptr[row + 1])
        return self.terms[span], self.weights[span]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> SparseVectors:
        """The given rows, in the given order; a row may repeat."""
        return SparseVectors.from_rows((self.row(int(row)) for row in rows), self.vocab)

    def select(self, keep: NDArray[np.bool_]) -> SparseVectors:
        """The weights where `keep` [nnz] is True; no row is dropped, some may become empty."""
        lengths = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
        return SparseVectors(lengths[self.indptr], self.terms[keep], self.weights[keep], self.vocab)

    def decode(self, vocab: Vocab, top_k: int | None = None) -> list[list[tuple[str, float]]]:
        """Per row the `top_k` heaviest (term name, weight), heaviest first, ties by term id."""
        vocab.require(self)
        rows = []
        for index in range(len(self)):
            terms, weights = self.row(index)
            order = np.argsort(-weights, kind="stable")[:top_k]
            names = vocab.names(terms[order])
            rows.append([(name, float(w)) for name, w in zip(names, weights[order], strict=True)])
        return rows

    def dot(self, other: SparseVectors) -> NDArray[np.float32]:
        """Inner products [len(self), len(other)]: every pair's score. For small sets; an Index is for large ones."""
        self.require(other.vocab, "the other vectors")
        scores = np.zeros((len(self), len(other)), np.float32)
        for i in range(len(self)):
            terms, weights = self.row(i)
            for j in range(len(other)):
                other_terms, other_weights = other.row(j)
                _, mine, theirs = np.intersect1d(terms, other_terms, assume_unique=True, return_indices=True)
                scores[i, j] = np.dot(weights[mine].astype(np.float64), other_weights[theirs])
        return scores

    def require(self, vocab: str, owner: str) -> None:
        """Raise VocabMismatch unless these vectors live in the id space `vocab` of `owner`."""
        if self.vocab != vocab:
            raise VocabMismatch(
                f"the vectors were encoded with vocabulary {self.vocab[:12]}, {owner} has {vocab[:12]}; "
                "their term ids mean different words. Encode both with the same model."
            )
