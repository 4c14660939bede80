"""What OpenSearch and Elasticsearch have in common: their REST interface, whichever client speaks it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from polylex.engine import Rejected, Space, reason_of, translate, unsupported
from polylex.errors import EngineError, Unfit
from polylex.filters import Compare, Field, Has, In, Like, Test
from polylex.formats.bulk import Bulk
from polylex.formats.rows import Row, rows_of
from polylex.names import TermNames
from polylex.profiles import Profile
from polylex.stream import Batch
from polylex.vectors import SparseVectors

_PAGE = 1_000  # ids asked for at one time
_QUERIES = 64  # in one request
_BUSY = frozenset({429, 502, 503, 504})  # status of a document, or of a request, that may do better later
_ORDERS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}

Body = dict[str, Any] | list[dict[str, Any]] | None


class LuceneEngine(ABC):
    """An index with the layout of a Bulk. Subclasses speak to a server."""

    def __init__(self, index: str, space: Space, bulk: Bulk) -> None:
        """Take the parts. Raises Unfit for a map: terms are called by name, whatever their ids."""
        if space.terms is not None:
            raise Unfit(f"{bulk.profile.name} calls terms by name, which needs no map; give a Space without one")
        self.index, self.space, self.bulk = index, space, bulk
        self._names = TermNames(space.vocab, self.profile.forbids)

    @abstractmethod
    def call(self, method: str, path: str, body: Body = None, **parameters: Any) -> Any:  # noqa: ANN401 - JSON
        """The answer to a request; a body that is a list goes as NDJSON.

        Raises EngineUnreachable where the server is away, too slow or too busy (502, 503, 504, 429), else EngineError.
        """

    @abstractmethod
    def exists(self) -> bool:
        """Whether the index is there."""

    @abstractmethod
    def close(self) -> None:
        """As Engine.close."""

    @property
    def profile(self) -> Profile:
        """As Engine.profile."""
        return self.bulk.profile

    def create(self, *, replace: bool = False) -> None:
        """As Engine.create."""
        if replace:
            self.drop()
        elif self.exists():
            raise EngineError(f"there is an index {self.index!r}; pass replace=True, or give another name")
        body = self.bulk.create()
        body["mappings"]["_meta"] = {"polylex": self.space.mark}
        self.call("PUT", f"/{self.index}", body)

    def drop(self) -> None:
        """As Engine.drop."""
        if self.exists():
            self.call("DELETE", f"/{self.index}")

    def mark(self) -> str | None:
        """As Engine.mark: in the `_meta` of the mapping."""
        found = self.call("GET", f"/{self.index}/_mapping")
        mapping = next(iter(found.values()))["mappings"]
        stored = mapping.get("_meta", {}).get("polylex")
        return None if stored is None else str(stored)

    def set_mark(self, mark: str) -> None:
        """As Engine.set_mark."""
        self.call("PUT", f"/{self.index}/_mapping", {"_meta": {"polylex": mark}})

    def push(self, batch: Batch) -> list[Rejected]:
        """As Engine.push: one bulk request, whose answer has a status for each document."""
        rows = rows_of(batch, self.profile, self._names)
        answer = self.call("POST", f"/{self.index}/_bulk", [line for row in rows for line in self.bulk.document(row)])
        return [
            Rejected(item["index"]["_id"], reason_of(item["index"]["error"]), item["index"]["status"] in _BUSY)
            for item in (answer["items"] if answer["errors"] else [])
            if "error" in item["index"]
        ]

    def delete(self, ids: Sequence[str]) -> None:
        """As Engine.delete."""
        for start in range(0, len(ids), _PAGE):
            some = [{"delete": {"_id": id}} for id in ids[start : start + _PAGE]]
            answer = self.call("POST", f"/{self.index}/_bulk", list(some))
            for item in answer["items"]:
                if "error" in item["delete"]:
                    raise EngineError(f"{item['delete']['_id']!r} is not deleted: {reason_of(item['delete']['error'])}")

    def refresh(self) -> None:
        """As Engine.refresh."""
        self.call("POST", f"/{self.index}/_refresh")

    def count(self) -> int:
        """As Engine.count."""
        return int(self.call("GET", f"/{self.index}/_count")["count"])

    def ids(self) -> Iterator[str]:
        """As Engine.ids, by a scroll."""
        body = {"size": _PAGE, "sort": ["_doc"], "_source": False}
        page = self.call("POST", f"/{self.index}/_search", body, scroll="1m")
        while hits := page["hits"]["hits"]:
            yield from (hit["_id"] for hit in hits)
            page = self.call("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": page["_scroll_id"]})
        self.call("DELETE", "/_search/scroll", {"scroll_id": [page["_scroll_id"]]})

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """As Engine.search; up to 64 queries in one request. Scores are the engine's own."""
        allowed = None if where is None else filter_of(where)
        vectors = self.space.queries(queries)
        batch = Batch([str(row) for row in range(len(vectors))], vectors, [{}] * len(vectors))
        found: list[list[tuple[str, float]]] = [[] for _ in range(len(vectors))]
        rows = [row for row in rows_of(batch, self.profile, self._names) if row.terms]
        for start in range(0, len(rows), _QUERIES):
            some = rows[start : start + _QUERIES]
            for row, hits in zip(some, self._search(some, k, allowed), strict=True):
                found[int(row.id)] = hits
        return found

    def _search(self, rows: list[Row], k: int, allowed: dict[str, Any] | None) -> Iterator[list[tuple[str, float]]]:
        lines = [line for row in rows for line in ({}, self.bulk.body(row, k, allowed))]
        for answer in self.call("POST", f"/{self.index}/_msearch", lines)["responses"]:
            if "error" in answer:
                raise EngineError(f"the search failed: {reason_of(answer['error'])}")
            yield [(hit["_id"], float(hit["_score"])) for hit in answer["hits"]["hits"]]


def ndjson(lines: list[dict[str, Any]]) -> bytes:
    """Lines as the body of a bulk request."""
    texts = (json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n" for line in lines)
    return "".join(texts).encode("utf-8", "surrogatepass")


def is_busy(status: int) -> bool:
    """Whether a request with this status may do better later."""
    return status in _BUSY


def filter_of(where: str) -> dict[str, Any]:
    """A filter as OpenSearch and Elasticsearch have them. A list passes a test that one of its elements passes."""
    return translate(where, _test, _join)


def _join(word: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"bool": {{"and": "filter", "or": "should", "not": "must_not"}[word]: parts}}


def _test(test: Test) -> dict[str, Any]:
    place = _place(test.field)
    if test.field.is_id:
        return _id_test(test)
    if isinstance(test, Has) or (isinstance(test, Compare) and test.order == "="):
        return {"term": {place: {"value": test.value}}}
    if isinstance(test, Compare):
        return {"range": {place: {_ORDERS[test.order]: test.value}}}
    if isinstance(test, In):
        return {"terms": {place: list(test.values)}}
    if isinstance(test, Like):
        return {"wildcard": {place: {"value": wildcard(test.pattern)}}}
    return {"exists": {"field": place}}


def _id_test(test: Test) -> dict[str, Any]:
    if isinstance(test, In):
        return {"ids": {"values": [value for value in test.values if isinstance(value, str)]}}
    if isinstance(test, Compare) and test.order == "=" and isinstance(test.value, str):
        return {"ids": {"values": [test.value]}}
    raise unsupported(test, "OpenSearch or Elasticsearch, for ids,")


def _place(field: Field) -> str:
    return ".".join(("fields", *field.names))


def wildcard(pattern: str) -> str:
    """A pattern of `like` in Lucene's signs: * for any characters, ? for one."""
    found, escaped = [], False
    for sign in pattern:
        if escaped or sign not in "%_\\":
            found.append(f"\\{sign}" if sign in "*?\\" else sign)
            escaped = False
        elif sign == "\\":
            escaped = True
        else:
            found.append("*" if sign == "%" else "?")
    return "".join(found)
