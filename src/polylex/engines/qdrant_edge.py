"""Qdrant's core inside this process, by qdrant-edge-py: the data model of a Qdrant server in a folder.

engine = QdrantEdgeEngine("articles.qdrant", Space(vocab))
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polylex.engine import Rejected, Space
from polylex.engines.qdrant import filter_of, points_of
from polylex.errors import BadFilter, EngineError, MissingExtra
from polylex.formats.points import FIELD, point_id
from polylex.profiles import PROFILES
from polylex.stream import Batch
from polylex.vectors import SparseVectors

_PAGE = 1_000  # ids asked for at one time
_MARK = "polylex.txt"


class QdrantEdgeEngine:
    """One shard in a folder. One process at a time may have it open."""

    profile = PROFILES["qdrant"]

    def __init__(self, path: Path | str, space: Space) -> None:
        """Take a folder, and open what is there. Raises MissingExtra, EngineError."""
        try:
            import qdrant_edge
        except ImportError:
            raise MissingExtra("qdrant-edge-py", "qdrant-edge", "Qdrant's embedded core") from None
        self._edge: Any = qdrant_edge
        self.space, self.path = space, Path(path)
        self._opened: Any = None

    @property
    def _shard(self) -> Any:  # noqa: ANN401 - the package has no types
        if self._opened is None:
            if not self.path.exists():
                raise EngineError(f"there is no collection in {self.path}; create it first")
            with _faults():
                self._opened = self._edge.EdgeShard.load(str(self.path))
        return self._opened

    def create(self, *, replace: bool = False) -> None:
        """As Engine.create."""
        if replace:
            self.drop()
        if self.path.exists():
            raise EngineError(f"{self.path} exists; pass replace=True, or give another folder")
        edge = self._edge
        config = edge.EdgeConfig(sparse_vectors={FIELD: edge.EdgeSparseVectorParams()})
        self.path.mkdir(parents=True)
        with _faults():
            self._opened = edge.EdgeShard.create(str(self.path), config)
        self.set_mark(self.space.mark)

    def drop(self) -> None:
        """As Engine.drop."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def mark(self) -> str | None:
        """As Engine.mark: a file in the folder."""
        file = self.path / _MARK
        return file.read_text("ascii") if file.is_file() else None

    def set_mark(self, mark: str) -> None:
        """As Engine.set_mark."""
        (self.path / _MARK).write_text(mark, "ascii")

    def push(self, batch: Batch) -> list[Rejected]:
        """As Engine.push."""
        edge, points = self._edge, []
        for point in points_of(batch):
            vector = edge.SparseVector(**point["vector"][FIELD])
            points.append(edge.Point(point["id"], {FIELD: vector}, point["payload"]))
        with _faults():
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        return []

    def delete(self, ids: Sequence[str]) -> None:
        """As Engine.delete."""
        if ids:
            with _faults():
                self._shard.update(self._edge.UpdateOperation.delete_points([point_id(id) for id in ids]))

    def refresh(self) -> None:
        """As Engine.refresh, and everything is on disk."""
        with _faults():
            self._shard.flush()

    def count(self) -> int:
        """As Engine.count."""
        with _faults():
            return int(self._shard.count(self._edge.CountRequest(exact=True)))

    def ids(self) -> Iterator[str]:
        """As Engine.ids."""
        offset = None
        while True:
            request = self._edge.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True, with_vector=False)
            with _faults():
                points, offset = self._shard.scroll(request)
            yield from (point.payload["id"] for point in points)
            if offset is None:
                return

    def search(self, queries: SparseVectors, k: int = 10, *, where: str | None = None) -> list[list[tuple[str, float]]]:
        """As Engine.search."""
        edge, dense = self._edge, self.space.queries(queries)
        allowed = None if where is None else self._filter(filter_of(where))
        found: list[list[tuple[str, float]]] = []
        for row in range(len(dense)):
            indices, values = (column.tolist() for column in dense.row(row))
            if not indices:
                found.append([])
                continue
            query = edge.Query.Nearest(edge.SparseVector(indices=indices, values=values), using=FIELD)
            request = edge.QueryRequest(limit=k, query=query, filter=allowed, with_payload=True)
            with _faults():
                hits = self._shard.query(request)
            found.append([(hit.payload["id"], float(hit.score)) for hit in hits])
        return found

    def _filter(self, part: dict[str, Any]) -> Any:  # noqa: ANN401 - the package has no types
        """A filter of the REST interface as objects."""
        edge = self._edge
        if "is_empty" in part:
            return edge.IsEmptyCondition(part["is_empty"]["key"])
        if "match" in part:
            if isinstance(part["match"]["value"], bool):  # qdrant-edge-py 0.9 would look for the number 1 or 0
                raise BadFilter("Qdrant's embedded core cannot test truth values; store a text or a number", "", 0)
            return edge.FieldCondition(part["key"], match=edge.MatchValue(part["match"]["value"]))
        if "range" in part:
            return edge.FieldCondition(part["key"], range=edge.RangeFloat(**part["range"]))
        return edge.Filter(**{word: [self._filter(each) for each in parts] for word, parts in part.items()})

    def close(self) -> None:
        """As Engine.close."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what the core raises into our errors: it has no class of its own."""
    try:
        yield
    except Exception as fault:
        raise EngineError(f"Qdrant: {fault}") from fault
