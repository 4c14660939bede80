"""Milvus, by pymilvus: an inverted index over sparse vectors, searched exactly by inner product.

engine = MilvusEngine("http://127.0.0.1:19530", "articles", Space(vocab))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polylex.engine import Rejected, Space, translate, unsupported
from polylex.errors import EngineError, EngineUnreachable, MissingExtra
from polylex.filters import Compare, Exists, Field, Has, In, Scalar, Test
from polylex.formats.points import FIELD
from polylex.formats.rows import rows_of
from polylex.profiles import PROFILES
from polylex.stream import Batch
from polylex.vectors import SparseVectors

_MARK = "polylex.space"
_IDS = 1_000  # asked for, or deleted, at one time
# Milvus Lite refuses an empty vector. No term has this id, so that no query finds it.
_EMPTY = {2**32 - 2: 1.0}
# Of the client: 2, no connection. Of the server: 2 unavailable, 3 memory, 4 too many requests, 7 disk, 8 rate, 9 quota.
_BUSY = frozenset({2, 3, 4, 7, 8, 9})


class MilvusEngine:
    """A collection with the fields `id` (VARCHAR), `terms` (sparse vector) and `fields` (JSON)."""

    profile = PROFILES["milvus"]

    def __init__(self, url: str, collection: str, space: Space, **options: Any) -> None:  # noqa: ANN401
        """Connect. `options` go to MilvusClient: token, db_name, timeout (seconds).

        Raises MissingExtra, EngineUnreachable.
        """
        try:
            from pymilvus import MilvusClient
        except ImportError:
            raise MissingExtra("pymilvus", "milvus", "Milvus") from None
        self.space, self.collection = space, collection
        with _faults():
            self._client: Any = MilvusClient(url, **options)

    def create(self, *, replace: bool = False) -> None:
        """As Engine.create; strongly consistent, with the index SPARSE_INVERTED_INDEX / IP / DAAT_MAXSCORE."""
        from pymilvus import DataType

        if replace:
            self.drop()
        with _faults():
            if self._client.has_collection(self.collection):
                raise EngineError(
                    f"Milvus has a collection {self.collection!r}; pass replace=True, or give another name"
                )
            schema = self._client.create_schema(auto_id=False)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=self.profile.id_bytes)
            schema.add_field(FIELD, DataType.SPARSE_FLOAT_VECTOR)
            schema.add_field("fields", DataType.JSON)
            index = self._client.prepare_index_params()
            index.add_index(
                FIELD,
                index_type="SPARSE_INVERTED_INDEX",
                metric_type="IP",
                params={"inverted_index_algo": "DAAT_MAXSCORE"},
            )
            self._client.create_collection(
                self.collection,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
                properties={_MARK: self.space.mark},
            )

    def drop(self) -> None:
        """As Engine.drop."""
        with _faults():
            self._client.drop_collection(self.collection)

    def mark(self) -> str | None:
        """As Engine.mark: a property of the collection."""
        with _faults():
            properties: dict[str, str] = self._client.describe_collection(self.collection).get("properties") or {}
        return properties.get(_MARK)

    def set_mark(self, mark: str) -> None:
        """As Engine.set_mark."""
        with _faults():
            self._client.alter_collection_properties(self.collection, properties={_MARK: mark})

    def push(self, batch: Batch) -> list[Rejected]:
        """As Engine.push. Milvus takes a request whole or not at all."""
        rows = [
            {"id": row.id, FIELD: dict(zip(row.terms, row.values, strict=True)) or _EMPTY, "fields": dict(row.fields)}
            for row in rows_of(batch, self.profile, None)
        ]
        with _faults():
            self._client.upsert(self.collection, rows)
        return []

    def delete(self, ids: Sequence[str]) -> None:
        """As Engine.delete."""
        with _faults():
            for start in range(0, len(ids), _IDS):
                self._client.delete(self.collection, ids=list(ids[start : start + _IDS]))

    def refresh(self) -> None:
        """As Engine.refresh: the collection is strongly consistent, so that only its index has to be loaded."""
        with _faults():
            self._client.load_collection(self.collection)

    def count(self) -> int:
        """As Engine.count."""
        with _faults():
            return int(self._client.query(self.collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def ids(self) -> Iterator[str]:
        """As Engine.ids."""
        with _faults():
            pages = self._client.query_iterator(self.collection, _IDS, output_fields=["id"])
            while page := pages.next():
                yield from (row["id"] for row in page)
            pages.close()

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """As Engine.search; all queries in one request."""
        dense = self.space.queries(queries)
        rows = [dict(zip(*(column.tolist() for column in dense.row(row)), strict=True)) for row in range(len(dense))]
        asked = [row for row in rows if row]
        expression = "" if where is None else expression_of(where)
        with _faults():
            found = iter(
                self._client.search(
                    self.collection,
                    asked,
                    anns_field=FIELD,
                    limit=k,
                    filter=expression,
                    output_fields=["id"],
                    search_params={"metric_type": "IP"},
                )
                if asked
                else []
            )
        return [[(hit["id"], float(hit["distance"])) for hit in next(found)] if row else [] for row in rows]

    def close(self) -> None:
        """As Engine.close."""
        self._client.close()


def expression_of(where: str) -> str:
    """A filter as Milvus has them."""
    return translate(where, _test, _join)


def _join(word: str, parts: list[str]) -> str:
    return f"not ({parts[0]})" if word == "not" else "(" + f" {word} ".join(parts) + ")"


def _test(test: Test) -> str:
    place = _place(test.field)
    there = "" if test.field.is_id else f"exists {place} and "  # else `not` of a missing field would not be true
    if isinstance(test, Compare):
        return f"({there}{place} {'==' if test.order == '=' else test.order} {_value(test.value)})"
    if isinstance(test, In):
        if test.field.is_id:
            return f"id in [{', '.join(map(_value, test.values))}]"
        equal = " or ".join(f"{place} == {_value(value)}" for value in test.values)  # Milvus Lite has no `in` for JSON
        return f"({there}({equal}))"
    if isinstance(test, Has) and not test.field.is_id:
        return f"({there}(json_contains({place}, {_value(test.value)}) or {place} == {_value(test.value)}))"
    if isinstance(test, Exists):
        return "id != ''" if test.field.is_id else f"exists {place}"
    raise unsupported(test, "Milvus")


def _place(field: Field) -> str:
    return "id" if field.is_id else "fields" + "".join(f"[{_value(name)}]" for name in field.names)


def _value(value: Scalar) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what pymilvus raises into our errors."""
    import grpc
    from pymilvus.exceptions import MilvusException, MilvusUnavailableException

    try:
        yield
    except MilvusException as fault:
        busy = fault.code in _BUSY or fault.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if busy or isinstance(fault, MilvusUnavailableException):
            raise EngineUnreachable(f"Milvus: {fault.message}; check that it runs and has room") from fault
        raise EngineError(f"Milvus: {fault.message}") from fault
    except (grpc.RpcError, OSError) as fault:
        raise EngineUnreachable(f"Milvus: {fault}; check that it runs at that address") from fault
