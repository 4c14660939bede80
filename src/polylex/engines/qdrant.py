"""Qdrant: a server by qdrant-client, or the same core inside this process by qdrant-edge-py. Searches are exact.

engine = QdrantEngine("http://127.0.0.1:6333", "articles", Space(vocab))

Qdrant wants UUIDs or numbers as ids: a document has a UUID that is made of its id, and its id in the payload.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from polylex.engine import Rejected, Space, translate, unsupported
from polylex.errors import EngineError, EngineUnreachable, MissingExtra
from polylex.filters import Compare, Exists, Field, Has, In, Test
from polylex.formats.points import FIELD, Points, point_id
from polylex.formats.rows import rows_of
from polylex.profiles import PROFILES
from polylex.stream import Batch
from polylex.vectors import SparseVectors

_PAGE = 1_000  # ids asked for at one time
_ORDERS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class QdrantEngine:
    """A collection of a Qdrant server, with one sparse vector `terms`."""

    profile = PROFILES["qdrant"]

    def __init__(self, url: str, collection: str, space: Space, **options: Any) -> None:  # noqa: ANN401
        """Make a client; nothing is sent yet.

        url      ":memory:" is a stand-in written in Python, for tests
        options  go to QdrantClient: api_key, prefer_grpc, timeout (seconds), ...

        Raises MissingExtra.
        """
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise MissingExtra("qdrant-client", "qdrant", "Qdrant") from None
        self.space, self.collection = space, collection
        place = {"location": url} if url == ":memory:" else {"url": url}
        self._client: Any = QdrantClient(**place, **options)

    def create(self, *, replace: bool = False) -> None:
        """As Engine.create."""
        from qdrant_client import models

        if replace:
            self.drop()
        with _faults():
            if self._client.collection_exists(self.collection):
                raise EngineError(
                    f"Qdrant has a collection {self.collection!r}; pass replace=True, or give another name"
                )
            self._client.create_collection(
                self.collection,
                vectors_config={},
                sparse_vectors_config={FIELD: models.SparseVectorParams()},
                metadata={"polylex": self.space.mark},
            )

    def drop(self) -> None:
        """As Engine.drop."""
        with _faults():
            self._client.delete_collection(self.collection)

    def mark(self) -> str | None:
        """As Engine.mark: in the metadata of the collection."""
        with _faults():
            metadata = self._client.get_collection(self.collection).config.metadata or {}
        return metadata.get("polylex")

    def set_mark(self, mark: str) -> None:
        """As Engine.set_mark."""
        with _faults():
            self._client.update_collection(self.collection, metadata={"polylex": mark})

    def push(self, batch: Batch) -> list[Rejected]:
        """As Engine.push. Qdrant takes a request whole or not at all."""
        from qdrant_client import models

        points = [models.PointStruct(**point) for point in points_of(batch)]
        with _faults():
            self._client.upsert(self.collection, points, wait=True)
        return []

    def delete(self, ids: Sequence[str]) -> None:
        """As Engine.delete."""
        from qdrant_client import models

        for start in range(0, len(ids), _PAGE):
            some = [point_id(id) for id in ids[start : start + _PAGE]]
            with _faults():
                self._client.delete(self.collection, models.PointIdsList(points=some), wait=True)

    def refresh(self) -> None:
        """Nothing: each change was waited for."""

    def count(self) -> int:
        """As Engine.count."""
        with _faults():
            return int(self._client.count(self.collection, exact=True).count)

    def ids(self) -> Iterator[str]:
        """As Engine.ids."""
        offset = None
        while True:
            with _faults():
                points, offset = self._client.scroll(self.collection, limit=_PAGE, offset=offset, with_payload=["id"])
            yield from (point.payload["id"] for point in points)
            if offset is None:
                return

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """As Engine.search; all queries in one request."""
        from qdrant_client import models

        dense = self.space.queries(queries)
        allowed = None if where is None else models.Filter.model_validate(filter_of(where))
        asked = [row for row in range(len(dense)) if len(dense.row(row)[0])]
        requests = []
        for row in asked:
            indices, values = (column.tolist() for column in dense.row(row))
            vector = models.SparseVector(indices=indices, values=values)
            requests.append(
                models.QueryRequest(query=vector, using=FIELD, limit=k, filter=allowed, with_payload=["id"])
            )
        with _faults():
            answers = self._client.query_batch_points(self.collection, requests) if requests else []
        found: list[list[tuple[str, float]]] = [[] for _ in range(len(dense))]
        for row, answer in zip(asked, answers, strict=True):
            found[row] = [(point.payload["id"], float(point.score)) for point in answer.points]
        return found

    def close(self) -> None:
        """As Engine.close."""
        self._client.close()


def points_of(batch: Batch) -> Iterator[dict[str, Any]]:
    """The points of a batch, as the REST interface has them."""
    layout = Points()
    return (point for row in rows_of(batch, Points.profile, None) for point in layout.document(row))


def filter_of(where: str) -> dict[str, Any]:
    """A filter as the REST interface has them. A list passes a test that one of its elements passes."""
    found = translate(where, _test, _join)
    return found if _is_join(found) else {"must": [found]}


def _is_join(part: dict[str, Any]) -> bool:
    return not part.keys().isdisjoint({"must", "should", "must_not"})


def _join(word: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {{"and": "must", "or": "should", "not": "must_not"}[word]: parts}


def _test(test: Test) -> dict[str, Any]:
    key = _key(test.field)
    if isinstance(test, Has) or (isinstance(test, Compare) and test.order == "="):
        if isinstance(test.value, float):
            return {"key": key, "range": {"gte": test.value, "lte": test.value}}
        return {"key": key, "match": {"value": test.value}}
    if isinstance(test, Compare) and not isinstance(test.value, str):
        return {"key": key, "range": {_ORDERS[test.order]: test.value}}
    if isinstance(test, In):
        return {"should": [_test(Compare(test.field, "=", value)) for value in test.values]}
    if isinstance(test, Exists):
        return {"must_not": [{"is_empty": {"key": key}}]}
    raise unsupported(test, "Qdrant")


def _key(field: Field) -> str:
    """The path of a field in the payload; names with signs of their own stand in quotes."""
    if field.is_id:
        return "id"
    return ".".join(("fields", *(name if name.isidentifier() else json.dumps(name) for name in field.names)))


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what qdrant-client raises into our errors."""
    import grpc
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as fault:
        kind = EngineUnreachable if fault.status_code in (429, 502, 503, 504) else EngineError
        raise kind(f"Qdrant: {fault.status_code} {fault.reason_phrase}: {fault.content[:500]!r}") from fault
    except (ResponseHandlingException, QdrantException) as fault:
        raise EngineUnreachable(f"Qdrant: {fault}; check that it runs at that address") from fault
    except grpc.RpcError as fault:
        busy = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        kind = EngineUnreachable if isinstance(fault, grpc.Call) and fault.code() in busy else EngineError
        raise kind(f"Qdrant: {fault}") from fault
    except (ApiException, ValueError) as fault:
        raise EngineError(f"Qdrant: {fault}") from fault
