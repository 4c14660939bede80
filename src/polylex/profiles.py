"""Profiles: what each engine or format does to sparse vectors, as data, each fact with where it was read.

A profile is asked in two places: `polylex.fit` says what would happen to given vectors, and the writers of
`polylex.formats` and `polylex.engines` take names, rounding and limits from here.

    PROFILES["opensearch"].rounded(weights)          # the weights as the engine will keep them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput

Precision = Literal["f32", "9 bits", "hundredths", "byte"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The limits of one engine or format; None or "" where there is none.

    terms            "names" if terms are called by name there, "numbers" if by id
    dimensions       int    ids must be below it
    folds            bool   an id beyond is taken modulo `dimensions`, silently; else it is refused
    forbids          str    characters that a name may not have; they are written as %XX, and % as %25
    name_length      int    characters of a name
    max_terms        int    of a document
    max_query_terms  int    of a query
    precision        how weights are kept: exact; cut to 9 significant bits; rounded to hundredths; one byte, in
                     steps of ceiling / 255
    ceiling          float  heavier weights are cut down to it
    ids              "text", or "uuid": an id becomes a UUID made of it, and is kept beside it
    id_bytes         int    of an id, in UTF-8
    prunes           str    what the engine drops unless it is told not to; our adapters tell it
    sources          for each of these facts where it was read
    """

    name: str
    terms: Literal["names", "numbers"]
    dimensions: int | None = None
    folds: bool = False
    forbids: str = ""
    name_length: int | None = None
    max_terms: int | None = None
    max_query_terms: int | None = None
    precision: Precision = "f32"
    ceiling: float | None = None
    ids: Literal["text", "uuid"] = "text"
    id_bytes: int | None = None
    prunes: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def rounded(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights as they are kept there, float32; 0 where one is lost."""
        found = weights if self.ceiling is None else np.minimum(weights, np.float32(self.ceiling))
        if self.precision == "9 bits":
            # As Lucene's FeatureField: the upper 17 bits of a float, which are sign, exponent and 8 of the fraction.
            kept: NDArray[np.float32] = (found.view(np.uint32) & np.uint32(0xFFFF8000)).view(np.float32)
            return kept
        if self.precision == "f32":
            return found
        steps = 100 if self.precision == "hundredths" else 255 / float(self.ceiling or 1)
        return (np.rint(found.astype(np.float64) * steps) / steps).astype(np.float32)

    @property
    def error(self) -> str:
        """How far a kept weight can be from the given one, in words."""
        return {
            "f32": "exact",
            "9 bits": "up to 0.4 % below",
            "hundredths": "up to 0.005 off",
            "byte": f"up to {float(self.ceiling or 1) / 510:.3f} off",
        }[self.precision]


_LUCENE = {
    "precision": "Elasticsearch and OpenSearch reference, field types sparse_vector and rank_features: 9 significant "
    "bits are kept, a relative error of about 0.4 %",
    "max_query_terms": "default of indices.query.bool.max_clause_count: 1024 clauses",
    "id_bytes": "Elasticsearch and OpenSearch reference, _id field: 512 bytes",
}
_WORDS = "Lucene's WhitespaceTokenizer parts names at white space"
_SPACES = "".join(map(chr, [*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)])) + (
    "\u2028\u2029\u202f\u205f\u3000"
)

_ALL = (
    Profile(
        name="opensearch",
        terms="names",
        forbids=".",
        precision="9 bits",
        max_query_terms=1024,
        id_bytes=512,
        sources={
            **_LUCENE,
            "forbids": "OpenSearch, rank_features: a feature name with a dot is refused",
        },
    ),
    Profile(
        name="opensearch-sparse",
        terms="numbers",
        dimensions=32_768,
        folds=True,
        precision="byte",
        ceiling=3.0,
        id_bytes=512,
        prunes="postings of a term beyond n_postings (0.0005 of the documents), and light terms of summaries",
        sources={
            "dimensions": "OpenSearch neural-search, sparse_vector: token ids are taken modulo 32768",
            "folds": "the same; weights that meet are merged by their maximum",
            "precision": "OpenSearch reference, sparse_vector: weights are quantised to one byte",
            "ceiling": "the same: quantization_ceiling_ingest, 3 unless set; our adapter sets it from the data",
            "id_bytes": _LUCENE["id_bytes"],
            "prunes": "OpenSearch reference, sparse_vector: n_postings, summary_prune_ratio",
        },
    ),
    Profile(
        name="elasticsearch",
        terms="names",
        forbids=".",
        precision="9 bits",
        max_query_terms=1024,
        id_bytes=512,
        prunes="frequent and light terms of queries, since 9.1",
        sources={
            **_LUCENE,
            "forbids": "elastic/elasticsearch issue 94389: dots in feature names, allowed only in newer releases",
            "prunes": "Elasticsearch reference, sparse_vector: index_options.prune is true by default",
        },
    ),
    Profile(
        name="qdrant",
        terms="numbers",
        dimensions=2**32,
        ids="uuid",
        sources={
            "dimensions": "Qdrant, sparse vectors: indices are u32",
            "ids": "Qdrant reference, points: an id is an unsigned 64-bit integer or a UUID",
        },
    ),
    Profile(
        name="milvus",
        terms="numbers",
        dimensions=2**32 - 2,
        id_bytes=512,
        sources={
            "dimensions": "Milvus reference, sparse vector: u32 below 2^32 - 1; the last one marks empty documents",
            "id_bytes": "VARCHAR(512), as our adapter declares the primary key; Milvus takes up to 65,535",
        },
    ),
    Profile(
        name="vespa",
        terms="names",
        sources={},
    ),
    Profile(
        name="pgvector",
        terms="numbers",
        dimensions=1_000_000_000,
        max_terms=16_000,
        sources={
            "dimensions": "pgvector, sparsevec.h: SPARSEVEC_MAX_DIM",
            "max_terms": "pgvector, sparsevec.h: SPARSEVEC_MAX_NNZ",
        },
    ),
    Profile(
        name="pgvector-hnsw",
        terms="numbers",
        dimensions=1_000_000_000,
        max_terms=1_000,
        max_query_terms=1_000,
        sources={
            "dimensions": "pgvector, sparsevec.h: SPARSEVEC_MAX_DIM",
            "max_terms": "pgvector reference: an HNSW index takes sparsevec of up to 1,000 non-zero elements",
            "max_query_terms": "the same",
        },
    ),
    Profile(
        name="anserini",
        terms="names",
        forbids=_SPACES,
        precision="hundredths",
        sources={
            "forbids": _WORDS,
            "precision": "Anserini, regressions for SPLADE: weights times 100, rounded; Lucene counts whole numbers",
        },
    ),
    Profile(
        name="ciff",
        terms="names",
        forbids=_SPACES,
        precision="hundredths",
        sources={
            "forbids": _WORDS,
            "precision": "CIFF: a posting has an int32 term frequency; we write weights times 100, rounded",
        },
    ),
    Profile(
        name="seismic",
        terms="names",
        name_length=100,
        sources={"name_length": "pyseismic-lsr 0.5: token strings are NumPy U100, longer ones are cut"},
    ),
    Profile(name="csr", terms="numbers"),
    Profile(name="parquet", terms="numbers"),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})


def profile(name: str) -> Profile:
    """The profile of that name. Raises BadInput, with the nearest name."""
    try:
        return PROFILES[name]
    except KeyError:
        near = get_close_matches(name, PROFILES, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadInput(f"no profile {name!r}; {hint}known are {', '.join(PROFILES)}") from None
