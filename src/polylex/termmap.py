"""TermMap: dense ids for the terms that a collection uses, for engines whose id space is small or pays per dimension.

terms = TermMap(vectors.vocab, np.unique(vectors.terms))
terms = terms.grown(more.terms)                # old ids stay
terms.save("articles.map")
dense = terms.to_dense(vectors)                # ids 0, 1, 2, ...; dense.vocab is that of the map

encode = MappedEncoder(polylex.load(), TermMap.load("articles.map"))
encode(["¿Quién puede casarse?"])                 # a query in the same ids
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadVectors, UnknownFormat, VocabMismatch
from polylex.storage import map_arrays, write_arrays
from polylex.vectors import SparseVectors

FORMAT, VERSION = "polylex-term-map", "1"


class TermMap:
    """One term id for each dense id 0, 1, 2, ...; no two of either share one of the other.

    vocab  str              fingerprint of the vocabulary whose terms these are
    terms  uint32 [size]    term of each dense id
    sizes  tuple of int     how large the map was when it was made, and after each growth
    """

    def __init__(self, vocab: str, terms: NDArray[np.uint32], sizes: Sequence[int] = ()) -> None:
        """Take the parts; `sizes` only where it has grown. Raises BadVectors for a term that is there twice."""
        self.vocab = vocab
        self.terms = np.ascontiguousarray(terms, np.uint32)
        self.sizes = tuple(sizes) or (len(terms),)
        if len(np.unique(self.terms)) != len(self.terms):
            raise BadVectors("a term map names a term twice; every term needs one dense id")
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        if not rising or self.sizes[0] < 0 or self.sizes[-1] != len(self.terms):
            raise BadVectors(f"a term map of {len(self.terms)} terms cannot have had the sizes {self.sizes}")

    def __len__(self) -> int:
        return len(self.terms)

    def grown(self, terms: NDArray[np.uint32]) -> TermMap:
        """The map with those of `terms` that are new to it behind the old ones; itself if there are none."""
        new = np.setdiff1d(terms, self.terms)
        if not len(new):
            return self
        return TermMap(self.vocab, np.concatenate([self.terms, new]), (*self.sizes, len(self) + len(new)))

    # -- mapping ---------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """SparseVectors.vocab of dense vectors: SHA-256 (hex) of vocabulary and terms."""
        return self._fingerprint(len(self))

    def _fingerprint(self, size: int) -> str:
        data = f"{FORMAT} {VERSION} {self.vocab}\n".encode("ascii") + self.terms[:size].astype("<u4").tobytes()
        return hashlib.sha256(data).hexdigest()

    @cached_property
    def spaces(self) -> set[str]:
        """Fingerprints of this map and of what it has grown from, whose ids mean the same."""
        return {self._fingerprint(size) for size in self.sizes}

    @cached_property
    def _sorted(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Terms in increasing order, and the dense id of each."""
        order = np.argsort(self.terms)
        return self.terms[order], order.astype(np.uint32)

    def to_dense(self, vectors: SparseVectors, unknown: Literal["refuse", "drop"] = "refuse") -> SparseVectors:
        """The same vectors with dense ids.

        unknown  "drop" leaves out what the map does not have: right for queries, as no document has these terms

        Raises BadVectors for a term that is not in the map, VocabMismatch.
        """
        self._require(vectors, {self.vocab}, "has terms of")
        terms, dense = self._sorted
        at = np.searchsorted(terms, vectors.terms)
        known = np.isin(vectors.terms, terms)
        if not known.all():
            if unknown == "refuse":
                raise BadVectors(
                    f"the map of {len(self)} terms lacks term {vectors.terms[~known][0]}; "
                    "grow it with these vectors first"
                )
            vectors, at = vectors.select(known), at[known]
        return _reordered(vectors, dense[at], self.fingerprint)

    def to_terms(self, dense: SparseVectors) -> SparseVectors:
        """What `to_dense` was given, of this map or of one that it has grown from. Raises VocabMismatch, BadVectors."""
        self._require(dense, self.spaces, "makes ids of")
        if dense.nnz and int(dense.terms.max()) >= len(self):
            raise BadVectors(f"dense id {dense.terms.max()} is not in [0, {len(self)})")
        return _reordered(dense, self.terms[dense.terms], self.vocab)

    def _require(self, vectors: SparseVectors, spaces: set[str], verb: str) -> None:
        if vectors.vocab not in spaces:
            raise VocabMismatch(
                f"the vectors have vocabulary {vectors.vocab[:12]}, this term map {verb} {sorted(spaces)[0][:12]}; "
                "use the map that was made with them"
            )

    # -- on disk ---------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write one file, whole; a map that was there is replaced at the end. Raises StorageFull."""
        path = Path(path)
        arrays: dict[str, NDArray[Any]] = {"terms": self.terms, "sizes": np.array(self.sizes, np.int64)}
        metadata = {"format": FORMAT, "version": VERSION, "vocab": self.vocab}
        write_arrays(path.parent, lambda _: path.name, arrays, metadata)

    @classmethod
    def load(cls, path: Path | str) -> TermMap:
        """Read a file of `save`. Raises BadVectors naming the file, UnknownFormat for another version."""
        arrays, metadata = map_arrays(Path(path), BadVectors)
        if metadata.get("format") != FORMAT:
            raise BadVectors(f"{path} holds {metadata.get('format')!r}, not {FORMAT!r}; give a file of `export --map`")
        if metadata.get("version") != VERSION:
            raise UnknownFormat(
                f"{path} has format version {metadata.get('version')!r}, this release reads {VERSION!r}; "
                "upgrade polylex"
            )
        try:
            return cls(metadata["vocab"], np.asarray(arrays["terms"]), [int(size) for size in arrays["sizes"]])
        except (BadVectors, KeyError) as fault:
            raise BadVectors(f"{path} is damaged ({fault}); restore it from a copy") from None


def _reordered(vectors: SparseVectors, terms: NDArray[np.uint32], vocab: str) -> SparseVectors:
    """`vectors` with other ids, sorted in each row again."""
    rows = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
    order = np.argsort(rows.astype(np.uint64) << np.uint64(32) | terms, kind="stable")
    return SparseVectors(vectors.indptr, terms[order], vectors.weights[order], vocab)


class Encoding(Protocol):
    """What a MappedEncoder asks of a model."""

    def encode(self, texts: Sequence[str], *, kind: Literal["query", "document"] = "document") -> SparseVectors:
        """One row a text."""


class MappedEncoder:
    """A model whose vectors are in the ids of a collection.

    prune  drops light terms, as it did from the documents
    """

    def __init__(
        self, encoder: Encoding, terms: TermMap, prune: Callable[[SparseVectors], SparseVectors] | None = None
    ) -> None:
        """Put a model and a map together."""
        self.encoder, self.terms, self.prune = encoder, terms, prune

    def __call__(self, queries: Sequence[str]) -> SparseVectors:
        """Queries in dense ids; a term that no document has is left out, which changes no score.

        Raises VocabMismatch where the map is of another model.
        """
        vectors = self.encoder.encode(queries, kind="query")
        return self.terms.to_dense(self.prune(vectors) if self.prune else vectors, unknown="drop")
