"""Rows: which row of the index each document of a segment is.

A row is the number a document got when it was added, and keeps: deleting others leaves a gap, compaction keeps gaps.
Documents 0, 1, ... of a segment are rows first, first + 1, ..., or, where there are gaps, those that a file lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.errors import CorruptIndex, UnknownFormat
from polylex.storage import Written, map_arrays, write_arrays

FORMAT = "polylex-rows"
VERSION = "1"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of the documents of one segment.

    first   int             row of document 0
    count   int             documents
    listed  int64 [count]   row of each document, strictly increasing from `first`; None where there is no gap
    """

    first: int
    count: int
    listed: NDArray[np.int64] | None = None

    @property
    def last(self) -> int:
        """Row of the last document."""
        return self.first + self.count - 1 if self.listed is None else int(self.listed[-1])

    def all(self) -> NDArray[np.int64]:
        """Every row, int64 [count], increasing."""
        return np.arange(self.first, self.first + self.count) if self.listed is None else self.listed

    def of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of some documents of the segment, each in [0, count)."""
        return documents + self.first if self.listed is None else self.listed[documents]

    def find(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Documents of some rows, and which of these rows are here at all; where not, the document says nothing."""
        if self.listed is None:
            return rows - self.first, (rows >= self.first) & (rows < self.first + self.count)
        documents = np.minimum(np.searchsorted(self.listed, rows), self.count - 1)
        return documents, self.listed[documents] == rows


def write_rows(folder: Path, rows: NDArray[np.int64]) -> Written | None:
    """Write the rows of a segment with gaps; None, and no file, where there is no gap. Raises StorageFull."""
    if int(rows[-1] - rows[0]) == len(rows) - 1:
        return None
    return write_arrays(
        folder,
        lambda digest: f"rows-{digest[:16]}.safetensors",
        {"rows": rows},
        {"format": FORMAT, "version": VERSION},
    )


def open_rows(path: Path, first: int, count: int) -> Rows:
    """Map a file of `write_rows`. Raises CorruptIndex unless it lists `count` rows from `first`; UnknownFormat."""
    arrays, metadata = map_arrays(path)
    if metadata.get("format") != FORMAT:
        raise CorruptIndex(f"{path} lists no rows (format {metadata.get('format')!r}); restore it from a copy")
    if metadata.get("version") != VERSION:
        raise UnknownFormat(
            f"{path} has version {metadata.get('version')!r}, this release reads {VERSION!r}; upgrade polylex"
        )
    listed = arrays.get("rows")
    if listed is None or listed.dtype.str != "<i8" or len(listed) != count or count == 0 or listed[0] != first:
        raise CorruptIndex(f"{path} does not list {count} rows from {first}; restore it from a copy")
    return Rows(first, count, listed)
