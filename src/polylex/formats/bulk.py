"""OpenSearch and Elasticsearch: bulk NDJSON, mappings and query bodies.

Documents have the fields `terms` (name -> weight) and `fields` (what was stored with the document). A query is a line
of its own under `_msearch`, in the order of the queries, and is named after its id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from polylex.formats.rows import LINES, Row
from polylex.profiles import PROFILES, Profile

FIELD, PIVOT, SOURCE = "terms", "pivot", "source"
_NOTHING: tuple[int, Any] = (0, {})
_K = 10  # hits that an exported query asks for

# Texts are compared whole, as filters of Polylex do; a text of more than 8,191 characters is kept, not compared.
_TEXTS = {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 8_191}}
# The first number would make whole numbers of all that come after it.
_NUMBERS = {"match_mapping_type": "long", "mapping": {"type": "double"}}


def settings(
    vector: dict[str, Any],
    texts: Sequence[str] = (),
    **index: Any,  # noqa: ANN401 - settings of an index
) -> dict[str, Any]:
    """The body that creates an index whose documents have these vector fields; `texts` are searched by their words."""
    words = {name: {"type": "text"} for name in texts}
    properties = {"properties": words} if words else {}
    return {
        "settings": {"index": index},
        "mappings": {
            "dynamic_templates": [
                {"texts": {"path_match": "fields.*", **_TEXTS}},
                {"numbers": {"path_match": "fields.*", **_NUMBERS}},
            ],
            "date_detection": False,
            "properties": {**vector, "fields": {"type": "object", "dynamic": True, **properties}},
        },
    }


class Bulk:
    """OpenSearch with a `rank_features` field: exact but for rounding."""

    profile: Profile = PROFILES["opensearch"]
    frame = LINES

    def __init__(self, texts: Sequence[str] = ()) -> None:
        """`texts` are fields whose words are indexed too, for `hybrid`."""
        self.texts = tuple(texts)

    def create(self) -> dict[str, Any]:
        """The body that creates the index."""
        return settings({FIELD: {"type": "rank_features"}}, self.texts)

    def source(self, row: Row) -> dict[str, Any]:
        """A document as it is stored."""
        return {FIELD: dict(zip(row.terms, row.values, strict=True)), "fields": dict(row.fields)}

    def clauses(self, row: Row) -> list[dict[str, Any]]:
        """The query as clauses whose scores add up."""
        return [feature(f"{FIELD}.{term}", weight) for term, weight in zip(row.terms, row.values, strict=True)]

    def body(self, row: Row, k: int = _K, where: dict[str, Any] | None = None) -> dict[str, Any]:
        """The body of a search; `where` is a filter in the engine's words."""
        query: dict[str, Any] = {"should": self.clauses(row), "minimum_should_match": 1, "_name": row.id}
        return {
            "size": k,
            "_source": False,
            "query": {"bool": query if where is None else {**query, "filter": [where]}},
        }

    def hybrid(self, row: Row, words: str, k: int = _K, where: dict[str, Any] | None = None) -> dict[str, Any]:
        """The body of a search that fuses the vector with BM25 of `words` over `texts`.

        OpenSearch wants a search pipeline with a processor that fuses, such as `score-ranker-processor`.
        """
        queries = [_filtered(query, where) for query in (self._vector(row), self._words(words))]
        return {"size": k, "_source": False, "query": {"hybrid": {"queries": queries}}}

    def _vector(self, row: Row) -> dict[str, Any]:
        return {"bool": {"should": self.clauses(row), "minimum_should_match": 1}}

    def _words(self, words: str) -> dict[str, Any]:
        return {"multi_match": {"query": words, "fields": [f"fields.{name}" for name in self.texts]}}

    def document(self, row: Row) -> Iterable[Any]:
        """Two lines: what to do, and the document."""
        return [{"index": {"_id": row.id}}, self.source(row)]

    def query(self, row: Row) -> Iterable[Any]:
        """Two lines: an empty head, and the body."""
        return [{}, self.body(row)]

    def rows(self, values: Iterator[tuple[int, Any]]) -> Iterator[Row]:
        """Documents again."""
        for _, action in values:
            operation = action.get("index") or action["create"]
            line, source = next(values, _NOTHING)
            vector = source[FIELD]
            yield Row(str(operation["_id"]), list(vector), list(vector.values()), source.get("fields", {}), line)


class ElasticBulk(Bulk):
    """Elasticsearch with a `sparse_vector` field that drops nothing."""

    profile = PROFILES["elasticsearch"]

    def create(self) -> dict[str, Any]:
        """The body that creates the index."""
        return settings({FIELD: {"type": "sparse_vector", "index_options": {"prune": False}}}, self.texts)

    def clauses(self, row: Row) -> list[dict[str, Any]]:
        """The query as one clause."""
        vector = dict(zip(row.terms, row.values, strict=True))
        return [{"sparse_vector": {"field": FIELD, "query_vector": vector, "prune": False}}]

    def hybrid(self, row: Row, words: str, k: int = _K, where: dict[str, Any] | None = None) -> dict[str, Any]:
        """The body of a search that fuses the vector with BM25 of `words` over `texts`, by reciprocal ranks."""
        retrievers = [
            {"standard": {"query": _filtered(query, where)}} for query in (self._vector(row), self._words(words))
        ]
        fused = {"retrievers": retrievers, "rank_window_size": max(100, k)}
        return {"size": k, "_source": False, "retriever": {"rrf": fused}}


def _filtered(query: dict[str, Any], where: dict[str, Any] | None) -> dict[str, Any]:
    return query if where is None else {"bool": {"must": [query], "filter": [where]}}


def feature(field: str, weight: float) -> dict[str, Any]:
    """The clause that adds `weight` times what a document has in a feature."""
    return {"rank_feature": {"field": field, "linear": {}, "boost": weight}}
