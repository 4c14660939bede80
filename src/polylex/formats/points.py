"""Qdrant points and Milvus rows: JSON with the numbers of terms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID, uuid5

from polylex.formats.rows import LINES, Row
from polylex.profiles import PROFILES

FIELD = "terms"  # of the vector, in both engines
_SPACE = UUID("5e0c1f4e-2d0c-5a3c-9d3e-6c2f6f9b7a11")  # of our ids among all UUIDs


def point_id(id: str) -> str:
    """The UUID (version 5) that Qdrant knows a document by. Two ids never have one, as far as SHA-1 goes."""
    return str(uuid5(_SPACE, id))


class Points:
    """Qdrant: {"id": UUID, "vector": {"terms": {"indices", "values"}}, "payload": {"id": "7", "fields": {}}}."""

    profile = PROFILES["qdrant"]
    frame = LINES

    def document(self, row: Row) -> Iterable[Any]:
        """One line."""
        vector = {FIELD: {"indices": list(row.terms), "values": list(row.values)}}
        return [{"id": point_id(row.id), "vector": vector, "payload": {"id": row.id, "fields": dict(row.fields)}}]

    def query(self, row: Row) -> Iterable[Any]:
        """One line: the id of the query, and what `query` of the search request is."""
        return [{"id": row.id, "query": {"indices": list(row.terms), "values": list(row.values)}}]

    def rows(self, values: Iterator[tuple[int, Any]]) -> Iterator[Row]:
        """Documents again."""
        for line, value in values:
            vector, payload = value["vector"][FIELD], value["payload"]
            yield Row(payload["id"], vector["indices"], vector["values"], payload.get("fields", {}), line)


class MilvusRows:
    """Milvus: {"id": "7", "terms": {"4424": 1.2}, "fields": {}}, in {"rows": [...]} as its bulk import reads it."""

    profile = PROFILES["milvus"]
    frame = ('{"rows":[\n', ",\n", "\n]}\n")

    def document(self, row: Row) -> Iterable[Any]:
        """One line."""
        return [{"id": row.id, FIELD: dict(zip(row.terms, row.values, strict=True)), "fields": dict(row.fields)}]

    def query(self, row: Row) -> Iterable[Any]:
        """One line: the id of the query and its vector."""
        return [{"id": row.id, FIELD: dict(zip(row.terms, row.values, strict=True))}]

    def rows(self, values: Iterator[tuple[int, Any]]) -> Iterator[Row]:
        """Documents again."""
        for line, value in values:
            vector = value[FIELD]
            yield Row(value["id"], [int(term) for term in vector], list(vector.values()), value.get("fields", {}), line)
