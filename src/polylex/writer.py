"""IndexWriter: change an index that is there, while others search it.

with IndexWriter("my-index") as writer:          # at the end all of it is there, or, after an error, nothing
    writer.upsert(ids, fields, vectors)
    writer.delete(["old-1", "old-2"])

A document is a row, numbered in the order of adding; replacing a document moves it to the end. Ties in a search follow
the rows, so that results are those of an index built anew from the documents that are left, in this order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from polylex.builder import require_terms
from polylex.compaction import Size, everything, worthwhile
from polylex.database import NAME, not_found
from polylex.documents import require_one_each
from polylex.errors import BadInput, CorruptIndex, DocumentNotFound, PolylexError
from polylex.kernels import BLOCK
from polylex.locks import READERS, unpinned
from polylex.postings import Precision, Segment, rows_between, write_segment
from polylex.rows import Rows, open_rows, write_rows
from polylex.storage import Written, full_disk_named, read_vocab, remove_unnamed, sha256_of, vocab_name
from polylex.tables import Deleted, FileEntry
from polylex.transactions import WritableCatalog
from polylex.vectors import SparseVectors

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Part:
    """A segment as a transaction sees it.

    place    file that lists its rows, if any
    deleted  documents that were deleted, as the catalog has it
    gone     bool [rows]  the same with what the transaction deletes; None where that is nothing
    """

    entry: FileEntry
    rows: Rows
    place: Written | None
    deleted: Deleted | None = None
    gone: NDArray[np.bool_] | None = None

    @property
    def live(self) -> int:
        known = 0 if self.deleted is None else self.deleted.documents
        return self.entry.rows - (known if self.gone is None else int(self.gone.sum()))

    def kept(self) -> NDArray[np.bool_]:
        """Which documents are left, bool [rows]."""
        if self.gone is not None:
            return ~self.gone
        count = self.entry.rows
        return np.ones(count, bool) if self.deleted is None else ~self.deleted.mask(count)

    @property
    def files(self) -> list[str]:
        return [self.entry.file] + ([] if self.place is None else [self.place.name])

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Mark documents as deleted."""
        self.gone = ~self.kept()
        self.gone[self.rows.find(rows)[0]] = True


class IndexWriter:
    """The one writer of an index. Use it in a `with` block, from one thread at a time.

    The first change begins a transaction; `commit` or the end of the block makes it durable and visible, `rollback` or
    an error that leaves the block undoes it. What an operation refuses leaves the transaction as it was before it.

    path        Path
    generation  int   transactions since the index was built
    """

    def __init__(self, path: str | os.PathLike[str], *, merge: bool = True) -> None:
        """Take the right to write.

        merge  put small segments together after a commit, and write those anew of which half is deleted

        Raises IndexNotFound; IndexLocked, which names the other writer; CorruptIndex, UnknownFormat, StorageFull.
        """
        self.path = Path(path)
        self._merges = merge
        if not (self.path / NAME).is_file():
            raise not_found(self.path)
        with full_disk_named(self.path):
            self._catalog = WritableCatalog.update(self.path / NAME)
            try:
                if self._catalog.building:
                    raise not_found(self.path)
                (self.path / READERS).touch()
                self._in_doubt = False  # whether the last COMMIT failed: what it wrote may yet prove to be durable
                self._vocab = str(self._catalog.meta["vocab"])
                self._terms: int | None = None
                self._parts: list[_Part] = []
                self._reset()
                self._remove_strays()
            except BaseException:
                self._catalog.close()
                raise

    def _reset(self) -> None:
        """Look at the catalog as after a transaction."""
        self._open = False
        opened = {(part.entry, part.place): part.rows for part in self._parts}
        self._parts = [self._part(entry, opened) for entry in self._catalog.segments]
        self._next_row = self._catalog.next_row
        self._waiting: list[tuple[int, SparseVectors]] = []  # first row and vectors of documents in no segment yet
        self._dropped: set[int] = set()  # rows of them that were deleted again
        self._retired: list[str] = []

    def _part(self, entry: FileEntry, opened: Mapping[tuple[FileEntry, Written | None], Rows]) -> _Part:
        deleted, place = self._catalog.deleted.get(entry.first_row), self._catalog.places.get(entry.first_row)
        rows = opened.get((entry, place))
        if rows is None and place is not None:
            rows = open_rows(self.path / place.name, entry.first_row, entry.rows)
        return _Part(entry, rows or Rows(entry.first_row, entry.rows), place, deleted)

    # -- state -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents, with the changes that are not committed."""
        return sum(part.live for part in self._parts) + self._rows_waiting - len(self._dropped)

    @property
    def _rows_waiting(self) -> int:
        return self._next_row - self._waiting[0][0] if self._waiting else 0

    @property
    def generation(self) -> int:
        """Transactions since the index was built."""
        return self._catalog.generation

    # -- changing --------------------------------------------------------------------------------

    def add(self, ids: Sequence[str], fields: Sequence[Mapping[str, Any]] | None, vectors: SparseVectors) -> None:
        """Add new documents, all of them or, on any error, none.

        ids  one a row, each new; fields: any JSON object a row, or None for no fields

        Raises DuplicateId, BadInput, BadVectors, VocabMismatch, StorageFull.
        """
        self._take(ids, fields, vectors, replace=False)

    def upsert(self, ids: Sequence[str], fields: Sequence[Mapping[str, Any]] | None, vectors: SparseVectors) -> int:
        """`add`, in the place of documents that have these ids; how many there were."""
        return self._take(ids, fields, vectors, replace=True)

    def _take(
        self,
        ids: Sequence[str],
        fields: Sequence[Mapping[str, Any]] | None,
        vectors: SparseVectors,
        *,
        replace: bool,
    ) -> int:
        fields = [{}] * len(ids) if fields is None else fields
        self._check(ids, fields, vectors)
        self._begin()
        if self._waiting and self._rows_waiting + len(ids) > BLOCK:
            self._seal()
        with self._operation():
            known = sorted(self._catalog.rows_of(ids).values()) if replace else []
            self._remove(known)
            self._catalog.add_documents(self._next_row, ids, fields)
        self._drop(known)
        self._waiting.append((self._next_row, vectors))
        self._next_row += len(ids)
        return len(known)

    def _check(self, ids: Sequence[str], fields: Sequence[Mapping[str, Any]], vectors: SparseVectors) -> None:
        require_one_each(ids, fields, vectors)
        vectors.require(self._vocab, f"the index {self.path}")
        if self._terms is None:
            stored = self._catalog.meta.get("terms")
            vocab = self.path / vocab_name(self._vocab)
            self._terms = int(stored) if stored else len(read_vocab(vocab, self._vocab))
        require_terms(vectors, self._terms)

    def delete(self, ids: Sequence[str], *, missing_ok: bool = False) -> int:
        """Delete documents, all of them or, on any error, none; how many there were.

        Raises DocumentNotFound for an id that is not there, unless `missing_ok`.
        """
        if isinstance(ids, str):
            raise BadInput(f"delete takes a list of ids, got the text {ids!r}; write [{ids!r}]")
        found = self._catalog.rows_of(ids)
        missing = [id for id in ids if id not in found]
        if missing and not missing_ok:
            raise DocumentNotFound(
                f"no document with id {missing[0]!r} in {self.path}, nothing was deleted ({len(missing)} of {len(ids)} "
                "ids are not there); ids are compared exactly, missing_ok=True passes over them"
            )
        if not found:
            return 0
        rows = sorted(set(found.values()))
        self._begin()
        with self._operation():
            self._remove(rows)
        self._drop(rows)
        return len(rows)

    def _remove(self, rows: Sequence[int]) -> None:
        self._catalog.remove_documents(rows, self.generation + 1, self._catalog.next_row)

    def _drop(self, rows: Sequence[int]) -> None:
        """Mark the documents of these rows (increasing) as deleted in the segments that hold them."""
        numbers = np.array(rows, np.int64)
        sealed = numbers < (self._waiting[0][0] if self._waiting else self._next_row)
        self._dropped.update(numbers[~sealed].tolist())
        numbers = numbers[sealed]
        which = np.searchsorted([part.rows.first for part in self._parts], numbers, side="right") - 1
        for at in np.unique(which).tolist():
            self._parts[at].drop(numbers[which == at])

    def _begin(self) -> None:
        if not self._open:
            self._catalog.begin()
            self._open = True

    @contextmanager
    def _operation(self) -> Iterator[None]:
        """What fails inside is undone, alone if that is possible."""
        try:
            with self._catalog.step():
                yield
        except BaseException:
            if not self._catalog.in_transaction:
                self._undo()
            raise

    # -- segments --------------------------------------------------------------------------------

    def _seal(self) -> None:
        """Write the documents that wait as segments."""
        numbers = np.concatenate([np.arange(row, row + len(vectors)) for row, vectors in self._waiting])
        vectors = SparseVectors.concat([vectors for _, vectors in self._waiting])
        if self._dropped:
            keep = ~np.isin(numbers, list(self._dropped))
            numbers, vectors = numbers[keep], keep_rows(vectors, keep)
        parts = [
            self._write(numbers[start : start + BLOCK], rows_between(vectors, start, min(start + BLOCK, len(numbers))))
            for start in range(0, len(numbers), BLOCK)
        ]
        with self._operation():
            for part in parts:
                self._name(part)
        self._parts += parts
        self._waiting, self._dropped = [], set()

    def _write(self, numbers: NDArray[np.int64], vectors: SparseVectors) -> _Part:
        """Write documents of increasing rows as one segment, which nothing names yet."""
        precision = cast(Precision, self._catalog.meta["precision"])
        written, place = write_segment(self.path, vectors, precision), write_rows(self.path, numbers)
        rows = Rows(int(numbers[0]), len(numbers), None if place is None else numbers)
        return _Part(FileEntry.of(rows.first, vectors, written), rows, place)

    def _name(self, part: _Part) -> None:
        self._catalog.add_file("segments", part.entry)
        if part.place is not None:
            self._catalog.add_places(part.entry.first_row, part.place)
        self._catalog.keep(part.files)

    def _forget(self, part: _Part) -> None:
        self._catalog.remove_segment(part.entry.first_row)
        self._retired += part.files

    # -- ending ----------------------------------------------------------------------------------

    def commit(self) -> int:
        """Make all changes durable and visible, or, on any error, none of them; the generation that has them.

        Small segments are put together afterwards; if that fails, a warning is logged and the next commit tries again.
        Raises StorageFull.
        """
        if not self._open:
            return self.generation
        try:
            if self._waiting:
                self._seal()
            self._publish()
        except BaseException:
            self._undo()
            raise
        if self._merges:
            self._merge_small()
        return self.generation

    def _publish(self) -> None:
        """Make the transaction that is open durable."""
        catalog, generation = self._catalog, self.generation + 1
        for part in self._parts:
            if part.gone is not None and part.live:
                catalog.set_deleted(part.entry.first_row, Deleted.of(part.gone))
            elif part.gone is not None:
                self._forget(part)
        self._parts = [part for part in self._parts if part.live]
        named = {file for part in self._parts for file in part.files}
        catalog.set_obsolete(set(self._retired) - named, generation)
        catalog.set_meta("generation", str(generation))
        catalog.set_meta("next_row", str(self._next_row))
        with full_disk_named(self.path), self._unread(generation) as given_back:
            if given_back is not None:
                catalog.give_back(given_back)
                catalog.set_meta("epoch", str(catalog.epoch + 1))
                catalog.set_meta("epoch_began", str(generation))
            self._in_doubt = True
            catalog.commit()
            self._in_doubt = False
        self._reset()
        with suppress(OSError):  # the next writer removes them
            self._remove_strays()

    @contextmanager
    def _unread(self, generation: int) -> Iterator[int | None]:
        """Up to which generation nobody needs any more what was removed; None where that is not known.

        A reader of this epoch opened when `epoch_began` was there already, so that what was removed until then is
        needed by readers of the epoch before only. While inside, no reader can begin one that it could read.
        """
        catalog = self._catalog
        with unpinned(catalog.pin_path(catalog.epoch + 1)) as earlier_gone:
            if not earlier_gone:
                yield None
                return
            with unpinned(catalog.pin_path(catalog.epoch)) as all_gone:
                yield generation if all_gone else int(catalog.meta.get("epoch_began", 0))

    def rollback(self) -> None:
        """Undo all changes since the last commit."""
        if self._open:
            self._undo()

    def _undo(self) -> None:
        self._catalog.rollback()
        self._reset()
        if not self._in_doubt:
            with suppress(OSError):
                self._remove_strays()

    def _remove_strays(self) -> None:
        """Remove files that no state needs: what an undone or killed transaction wrote, and what nobody reads now."""
        named = {file for part in self._parts for file in part.files}
        remove_unnamed(self.path, named | self._catalog.obsolete() | {vocab_name(self._vocab)})

    # -- compaction ------------------------------------------------------------------------------

    def compact(self) -> int:
        """Write neighbouring segments anew, full and without deleted documents; how many there were before.

        Readers that are open keep the old files until they close or refresh. Rows stay what they are.
        Raises BadInput while changes are not committed; CorruptIndex for a damaged segment; StorageFull.
        """
        if self._open:
            raise BadInput(f"{self.path} has changes that are not committed; call commit() or rollback() first")
        before = len(self._parts)
        for group in reversed(everything(self._sizes())):
            self._rewrite(group)
        return before

    def _merge_small(self) -> None:
        try:
            while groups := worthwhile(self._sizes()):
                for group in reversed(groups):  # the last first: the others keep their places
                    self._rewrite(group)
        except (PolylexError, OSError) as fault:
            log.warning("%s: small segments stay as they are for now (%s)", self.path, fault)

    def _sizes(self) -> list[Size]:
        return [Size(part.entry.rows, part.live) for part in self._parts]

    def _rewrite(self, group: slice) -> None:
        """Put one segment in the place of some neighbours, in a transaction of its own."""
        old = self._parts[group]
        read = [self._read(part) for part in old]
        new = self._write(np.concatenate([rows for rows, _ in read]), SparseVectors.concat([some for _, some in read]))
        self._begin()
        try:
            with self._operation():
                for part in old:
                    self._forget(part)
                self._name(new)
            self._parts[group] = [new]
            self._publish()
        except BaseException:
            self._undo()
            raise

    def _read(self, part: _Part) -> tuple[NDArray[np.int64], SparseVectors]:
        """Rows and vectors of what is left of a segment."""
        path = self.path / part.entry.file
        if sha256_of(path) != part.entry.sha256:  # damage must not get a new checksum
            raise CorruptIndex(f"{path} fails its checksum; see `polylex repair`")
        kept = part.kept()
        return part.rows.all()[kept], keep_rows(Segment.open(path, part.entry.first_row).vectors(), kept)

    # -- closing ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the index; changes that are not committed are undone. May be called again."""
        self.rollback()
        self._catalog.close()

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()


def keep_rows(vectors: SparseVectors, keep: NDArray[np.bool_]) -> SparseVectors:
    """The rows where `keep` [rows] is True."""
    lengths = np.diff(vectors.indptr)
    held = np.repeat(keep, lengths)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[keep])])
    return SparseVectors(indptr, vectors.terms[held], vectors.weights[held], vectors.vocab)
