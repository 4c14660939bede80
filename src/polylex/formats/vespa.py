"""Vespa: the schema, documents and queries for a collection. Built from its reference, never run against a server.

A document has `terms`, a mapped tensor with the exact weights, and `keys`, a weighted set with hundredths, which finds
candidates by WAND. A query takes the candidates and orders them by the inner product of tensors.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from polylex.formats.rows import Row
from polylex.profiles import PROFILES

PROFILE = PROFILES["vespa"]
_CANDIDATES = 10  # by WAND, for each hit that is wanted: its weights are rounded


def schema(name: str) -> str:
    """The file `schemas/NAME.sd` of the application."""
    return f"""schema {name} {{
    document {name} {{
        field id type string {{
            indexing: attribute | summary
            attribute: fast-search
        }}
        field terms type tensor<float>(t{{}}) {{
            indexing: attribute
        }}
        field keys type weightedset<string> {{
            indexing: attribute
            attribute: fast-search
        }}
        field fields type string {{
            indexing: summary
        }}
    }}
    rank-profile polylex {{
        inputs {{
            query(q) tensor<float>(t{{}})
        }}
        first-phase {{
            expression: sum(query(q) * attribute(terms))
        }}
    }}
}}
"""


def document(row: Row, name: str, namespace: str = "polylex") -> dict[str, Any]:
    """An operation for `vespa feed`. Weights below half a hundredth are in the tensor only."""
    fields = {
        "id": row.id,
        "terms": {"cells": dict(zip(row.terms, row.values, strict=True))},
        "keys": _hundredths(row),
        "fields": json.dumps(dict(row.fields), ensure_ascii=False, separators=(",", ":")),
    }
    return {"put": f"id:{namespace}:{name}::{row.id}", "fields": fields}


def query(row: Row, name: str, k: int = 10) -> dict[str, Any]:
    """The body of a request to /search/."""
    return {
        "yql": f"select id from {name} where {{targetHits: {k * _CANDIDATES}}}wand(keys, @keys)",
        "keys": json.dumps(_hundredths(row), ensure_ascii=False, separators=(",", ":")),
        "input.query(q)": {"cells": dict(zip(row.terms, row.values, strict=True))},
        "ranking.profile": "polylex",
        "hits": k,
    }


def _hundredths(row: Row) -> dict[Any, int]:
    whole = np.rint(np.array(row.values, np.float64) * 100).astype(np.int64).tolist()
    return {term: weight for term, weight in zip(row.terms, whole, strict=True) if weight}
