"""Snapshot: one state of an index, opened for reading. It stays what it was, whatever writers do meanwhile.

snapshot = Snapshot.open(Path("my-index"))
rows, scores = snapshot.top(queries, 10, allowed=snapshot.columns.matching("year >= 2020"))
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.catalog import Catalog
from polylex.columns import Columns
from polylex.database import NAME, not_found
from polylex.errors import CorruptIndex
from polylex.kernels import BLOCK, Allowed, SegmentTable
from polylex.postings import Segment
from polylex.rows import Rows, open_rows
from polylex.storage import sha256_of, vocab_name
from polylex.tables import Deleted, FileEntry
from polylex.vectors import SparseVectors

Top = tuple[NDArray[np.int64], NDArray[np.float32]]

_SMALL = 65_536  # bytes of a file that is verified whole on opening: that takes 0.1 ms


class Snapshot:
    """All that searching needs, from any number of threads.

    catalog  Catalog
    table    SegmentTable
    rows     tuple of Rows, one a segment
    alive    per segment the documents that were not deleted, as bitmaps for the kernels; None: all of them
    columns  Columns, for filters and facets

    The catalog is closed when nobody refers to the snapshot any more: a search that is under way ends well.
    """

    def __init__(self, catalog: Catalog, segments: list[Segment], rows: list[Rows]) -> None:
        """Take opened parts; call `open`."""
        self.catalog = catalog
        self.table = SegmentTable(segments)
        self.rows = tuple(rows)
        self.columns = Columns(catalog, rows)
        self.alive = tuple(_alive(catalog.deleted.get(each.first), each.count) for each in rows)
        self._firsts = np.array([each.first for each in rows], np.int64)
        weakref.finalize(self, catalog.close)

    @classmethod
    def open(cls, path: Path, known: Snapshot | None = None) -> Snapshot:
        """Open what is in a folder now.

        known  an older state, whose files need not be opened again

        Raises IndexNotFound, CorruptIndex naming the file, UnknownFormat.
        """
        try:
            return cls._open(path, known)
        except CorruptIndex:
            return cls._open(path, None)  # it may have been replaced between two looks into the folder

    @classmethod
    def _open(cls, path: Path, known: Snapshot | None) -> Snapshot:
        if not (path / NAME).is_file():
            raise not_found(path)
        catalog = Catalog.read(path / NAME)
        try:
            if catalog.building:
                raise not_found(path)
            catalog.require_settings()
            require_size(path / vocab_name(catalog.meta["vocab"]), int(catalog.meta["vocab_bytes"]))
            opened = {} if known is None else dict(zip(known._keys(), known._parts(), strict=True))
            parts = [
                opened.get((entry, catalog.places.get(entry.first_row))) or open_segment(path, catalog, entry)
                for entry in catalog.segments
            ]
            return cls(catalog, [segment for segment, _ in parts], [rows for _, rows in parts])
        except BaseException:
            catalog.close()
            raise

    def _keys(self) -> Iterator[tuple[object, object]]:
        """What tells the segments of one state from those of another."""
        return ((entry, self.catalog.places.get(entry.first_row)) for entry in self.catalog.segments)

    def _parts(self) -> Iterator[tuple[Segment, Rows]]:
        return zip(self.table.segments, self.rows, strict=True)

    # -- searching -------------------------------------------------------------------------------

    def top(self, queries: SparseVectors, k: int, part: slice = slice(None), *, allowed: Allowed | None = None) -> Top:
        """`SegmentTable.top` of documents that were not deleted and are `allowed` (None: all), in rows of the index."""
        found, scores = self.table.top(queries, k, part, self.permitted(allowed))
        return self._rows_of(found), scores

    def permitted(self, allowed: Allowed | None) -> Allowed | None:
        """Deletions and a filter as one: what the kernels skip."""
        if allowed is None:
            return self.alive if any(bits is not None for bits in self.alive) else None
        if len(allowed) != len(self.alive):
            return allowed  # which the kernel refuses
        return [_both(here, alive) for here, alive in zip(allowed, self.alive, strict=True)]

    def _rows_of(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the index for those of the kernel, which knows no gaps inside a segment."""
        if all(each.listed is None for each in self.rows):
            return found
        segments = np.searchsorted(self._firsts, found, side="right") - 1
        rows: NDArray[np.int64] = found.copy()
        for segment in np.unique(segments[found >= 0]).tolist():
            here = (segments == segment) & (found >= 0)
            rows[here] = self.rows[segment].of(found[here] - self._firsts[segment])
        return rows

    # -- documents -------------------------------------------------------------------------------

    def live(self, segment: int) -> NDArray[np.int64]:
        """Documents of a segment that were not deleted, int64, increasing."""
        deleted, count = self.catalog.deleted.get(self.rows[segment].first), self.rows[segment].count
        gone = np.zeros(count, bool) if deleted is None else deleted.mask(count)
        return np.flatnonzero(~gone)

    def find(self, segment: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where in `rows` there are live documents of a segment, and which they are."""
        documents, here = self.rows[segment].find(rows)
        deleted = self.catalog.deleted.get(self.rows[segment].first)
        if deleted is not None:
            here = here & ~deleted.mask(self.rows[segment].count)[np.where(here, documents, 0)]
        found = np.flatnonzero(here)
        return found, documents[found]

    def blocks(self) -> Iterator[tuple[int, SparseVectors]]:
        """First row and vectors of up to 65,536 rows at a time; rows without a document have empty vectors."""
        for number, (segment, rows) in enumerate(self._parts()):
            live = self.live(number)
            if len(live) == rows.count and rows.listed is None:
                yield rows.first, segment.vectors()
                continue
            vectors, numbers = segment.vectors(rows.first + live), rows.of(live)
            for start in range(rows.first, rows.last + 1, BLOCK):
                begin, end = np.searchsorted(numbers, [start, start + BLOCK]).tolist()
                stop = min(start + BLOCK, rows.last + 1)
                indptr = vectors.indptr[begin + np.searchsorted(numbers[begin:end], np.arange(start, stop + 1))]
                span = slice(int(indptr[0]), int(indptr[-1]))
                yield (
                    start,
                    SparseVectors(indptr - indptr[0], vectors.terms[span], vectors.weights[span], vectors.vocab),
                )

    # -- checking --------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """What is wrong, in words, each naming the file; reads every byte."""
        catalog, folder = self.catalog, self.catalog.path.parent
        numbers = range(len(self.rows))
        faults = catalog.faults(self.rows[number].of(self.live(number)) for number in numbers)
        named = {vocab_name(catalog.meta["vocab"]): catalog.meta["vocab_sha256"]}
        named |= {entry.file: entry.sha256 for entry in catalog.segments}
        named |= {written.name: written.sha256 for written in catalog.places.values()}
        faults += chain.from_iterable(_changed(folder / name, sha256) for name, sha256 in named.items())
        for number, (segment, rows) in enumerate(self._parts()):
            faults += [f"{segment.path}: {fault}" for fault in segment.faults()]
            deleted = catalog.deleted.get(rows.first)
            if deleted is not None and rows.count - len(self.live(number)) != deleted.documents:
                faults.append(f"{catalog.path}: the deletions of row {rows.first} are miscounted")
            if rows.listed is not None and (np.diff(rows.listed) <= 0).any():
                faults.append(f"{folder / catalog.places[rows.first].name}: rows do not strictly increase")
        faults += [
            f"{catalog.path}: rows from {after.first} belong to two segments"
            for before, after in zip(self.rows[:-1], self.rows[1:], strict=True)
            if after.first <= before.last
        ]
        return faults


def open_segment(path: Path, catalog: Catalog, entry: FileEntry) -> tuple[Segment, Rows]:
    """Map a segment that the catalog names; it must be what the catalog says, as far as a glance tells."""
    vocab = catalog.meta["vocab"]
    _require_intact(path / entry.file, entry.bytes, entry.sha256)
    segment = Segment.open(path / entry.file, entry.first_row)
    if (segment.rows, segment.postings, segment.vocab) != (entry.rows, entry.postings, vocab):
        raise CorruptIndex(f"{segment.path} is not the segment that the index names; restore it from a copy")
    deleted = catalog.deleted.get(entry.first_row)
    if deleted is not None and len(deleted.bits) != -(-entry.rows // 8):
        raise CorruptIndex(f"{catalog.path} is damaged: the deletions of row {entry.first_row} are of another segment")
    place = catalog.places.get(entry.first_row)
    if place is None:
        return segment, Rows(entry.first_row, entry.rows)
    _require_intact(path / place.name, place.bytes, place.sha256)
    return segment, open_rows(path / place.name, entry.first_row, entry.rows)


def require_size(path: Path, size: int) -> None:
    """Raise CorruptIndex unless a file has the size it was written with."""
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        raise CorruptIndex(f"{path} is missing; restore it from a copy or build the index again") from None
    if actual != size:
        raise CorruptIndex(
            f"{path} has {actual} bytes, it was written with {size}; restore it from a copy or build the index again"
        )


def _require_intact(path: Path, size: int, sha256: str) -> None:
    """`require_size`, and for a small file its checksum."""
    require_size(path, size)
    if size <= _SMALL and sha256_of(path) != sha256:
        raise CorruptIndex(_failed(path))


def _changed(path: Path, sha256: str) -> list[str]:
    """What is wrong with a file, if anything."""
    try:
        return [] if sha256_of(path) == sha256 else [_failed(path)]
    except OSError as fault:
        return [f"{path} cannot be read ({fault.strerror})"]


def _failed(path: Path) -> str:
    return f"{path} fails its checksum; restore it from a copy or build the index again"


def _alive(deleted: Deleted | None, rows: int) -> NDArray[np.uint8] | None:
    return None if deleted is None else np.packbits(~deleted.mask(rows), bitorder="little")


def _both(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other if one.shape == other.shape else one  # which the kernel refuses
