"""IndexBuilder: from vectors to an index, in chunks that survive a crash, visible only when complete.

with IndexBuilder("my-index", vocab, encoder="polylex-mini") as builder:
    for ids, fields, vectors in chunks[len(builder):]:       # what an interrupted run has added is still there
        builder.add(ids, fields, vectors)
    builder.finish()                                         # now, and not before, there is a folder my-index
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, cast, get_args

from polylex.database import NAME, settle
from polylex.documents import require_one_each
from polylex.errors import BadInput, BadVectors, CorruptIndex, IndexExists, UnfinishedBuild, UnknownFormat
from polylex.kernels import BLOCK
from polylex.locks import WriterLock
from polylex.postings import Precision, rows_between, write_segment
from polylex.storage import (
    full_disk_named,
    is_ours,
    load_vectors,
    remove_unnamed,
    sync_folder,
    vocab_name,
    write_vectors,
    write_vocab,
)
from polylex.tables import FileEntry
from polylex.transactions import WritableCatalog
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab


class IndexBuilder:
    """Builds an index at `path`. Use it in a `with` block, and call `finish` last.

    Works in the folder `<path>.partial`. What `add` has taken is durable; a new builder with the same settings goes on
    after it. Memory is bounded by one segment (65,536 documents), whatever the size of the index.

    folder    Path  where the build is going on
    progress        what the caller stored with the last chunk; any JSON value, None before the first
    last_id   str   id of the last document taken; None before the first
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        vocab: Vocab,
        *,
        encoder: str = "",
        weights_id: str = "",
        settings: Mapping[str, Any] | None = None,
        precision: Precision = "f32",
        overwrite: bool = False,
    ) -> None:
        """Begin, or go on with, the build of an index.

        encoder     name of the model, for people
        weights_id  identity of its weights, so that another model's queries are refused
        settings    anything in JSON that two runs must agree on to be one build; kept in the index
        precision   "f32"; or "u16": two thirds of the size, each weight rounded to 1/512 of itself at most;
                    or "u8": about half the size, each weight rounded to 1/255 of its term's greatest
        overwrite   replace what is there, an index as well as an interrupted build with other settings

        Raises IndexExists, UnfinishedBuild, IndexLocked, StorageFull.
        """
        if precision not in get_args(Precision):
            raise BadInput(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        self.path = Path(path)
        self.folder = self.path.with_name(self.path.name + ".partial")
        self._vocab = vocab
        self._overwrite = overwrite
        self._identity = {
            "vocab": vocab.fingerprint,
            "encoder": encoder,
            "weights_id": weights_id,
            "settings": _json(dict(settings or {}), "settings"),
            "precision": precision,
        }
        _check_target(self.path, overwrite)
        with full_disk_named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._catalog = self._open_catalog()
            try:
                self._continue_or_begin()
            except BaseException:
                self.close()
                raise

    def _open_catalog(self) -> WritableCatalog:
        try:
            return WritableCatalog.write(self.folder / NAME)
        except (CorruptIndex, UnknownFormat) as fault:
            if not self._overwrite:
                raise UnfinishedBuild(
                    f"an interrupted build in {self.folder} cannot be continued ({fault}); "
                    "pass overwrite=True (--overwrite) to begin anew, or remove that folder"
                ) from None
        for name in (NAME, f"{NAME}-journal"):
            (self.folder / name).unlink(missing_ok=True)
        return WritableCatalog.write(self.folder / NAME)

    def _continue_or_begin(self) -> None:
        if not len(self) or self._is_lost():
            return self.restart()
        stored = self._catalog.meta
        other = [
            f"{key} was {stored.get(key)!r}, is now {value!r}"
            for key, value in self._identity.items()
            if stored.get(key) != value
        ]
        if not other:
            return self._remove_orphans()
        if not self._overwrite:
            raise UnfinishedBuild(
                f"an interrupted build in {self.folder} has other settings: {'; '.join(other)}. Give the same to "
                "continue it, pass overwrite=True (--overwrite) to begin anew, or remove that folder"
            )
        return self.restart()

    def _is_lost(self) -> bool:
        """Whether a complete build was interrupted when half of its files were in place, and a writer removed these."""
        files = [entry.file for entry in self._catalog.segments]
        return not self._catalog.building and not all(
            (self.folder / file).exists() or (self.path / file).exists() for file in files
        )

    # -- state -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Documents taken so far, those of an interrupted run included."""
        return len(self._catalog)

    @property
    def progress(self) -> Any:  # noqa: ANN401 - the caller's own JSON
        """What the caller stored with the last chunk."""
        return json.loads(self._catalog.meta.get("progress", "null"))

    @property
    def last_id(self) -> str | None:
        """Id of the last document taken."""
        return self._catalog.ids([len(self) - 1])[len(self) - 1] if len(self) else None

    # -- taking documents ------------------------------------------------------------------------

    def add(
        self,
        ids: Sequence[str],
        fields: Sequence[Mapping[str, Any]] | None,
        vectors: SparseVectors,
        *,
        progress: Any = None,  # noqa: ANN401
    ) -> None:
        """Append documents, all of them or, on any error, none; they are durable on return.

        ids       one a row, each new; fields: any JSON object a row, or None for no fields
        progress  any JSON value, kept with these documents: where the caller's own input stands

        Raises DuplicateId, BadInput, BadVectors, VocabMismatch, StorageFull.
        """
        fields = [{}] * len(ids) if fields is None else fields
        self._check(ids, fields, vectors)
        self._seal(BLOCK)  # before these are taken: whatever goes wrong here then concerns none of them
        first_row = len(self)
        try:
            chunks = [
                self._write_chunk(rows_between(vectors, start, min(start + BLOCK, len(ids))), first_row + start)
                for start in range(0, len(ids), BLOCK)
            ]
            with self._catalog.transaction():
                self._catalog.add_documents(first_row, ids, fields)
                for chunk in chunks:
                    self._catalog.add_file("chunks", chunk)
                self._catalog.set_meta("progress", _json(progress, "progress"))
        except BaseException:
            self._remove_orphans()
            raise

    def _check(self, ids: Sequence[str], fields: Sequence[Mapping[str, Any]], vectors: SparseVectors) -> None:
        if not self._catalog.building:
            raise BadInput(f"the build in {self.folder} is complete; call finish() to put it in place")
        require_one_each(ids, fields, vectors)
        vectors.require(self._vocab.fingerprint, f"the index {self.path}")
        require_terms(vectors, len(self._vocab))

    def _write_chunk(self, vectors: SparseVectors, first_row: int) -> FileEntry:
        written = write_vectors(self.folder, lambda digest: f"chunk-{digest[:16]}.safetensors", vectors)
        return FileEntry.of(first_row, vectors, written)

    def _seal(self, at_least: int) -> None:
        """Turn waiting chunks into segments while that many documents or more wait."""
        while sum(chunk.rows for chunk in self._catalog.chunks) >= at_least:
            group = list(_fitting(self._catalog.chunks))
            vectors = SparseVectors.concat([self._read_chunk(chunk) for chunk in group])
            written = write_segment(self.folder, vectors, cast(Precision, self._identity["precision"]))
            entry = FileEntry.of(group[0].first_row, vectors, written)
            with self._catalog.transaction():
                self._catalog.add_file("segments", entry)
                self._catalog.remove_chunks(entry.first_row + entry.rows)
            self._remove_orphans()

    def _read_chunk(self, chunk: FileEntry) -> SparseVectors:
        try:
            vectors, _ = load_vectors(self.folder / chunk.file)
        except BadVectors as fault:
            raise CorruptIndex(f"{fault}; pass overwrite=True (--overwrite) to build the index anew") from None
        return vectors

    def restart(self) -> None:
        """Forget every document taken so far."""
        with self._catalog.transaction():
            self._catalog.clear()
        self._remove_orphans()
        written = write_vocab(self.folder, self._vocab)
        with self._catalog.transaction():
            for key, value in self._identity.items():
                self._catalog.set_meta(key, value)
            self._catalog.set_meta("vocab_bytes", str(written.bytes))
            self._catalog.set_meta("vocab_sha256", written.sha256)

    # -- ending ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """Put the index in place: all of it or, on any error, nothing; then the same call may be made again.

        An index that is there is replaced, if `overwrite` was given, in one step. Raises IndexExists, StorageFull.
        """
        if self._catalog.building:
            self._seal(1)
            with self._catalog.transaction():
                self._catalog.set_meta("progress", None)
                self._catalog.set_meta("terms", str(len(self._vocab)))
                self._catalog.set_meta("created", datetime.now(timezone.utc).isoformat(timespec="seconds"))
                self._catalog.complete()
            self._remove_orphans()
        _check_target(self.path, self._overwrite)
        self._catalog.close()
        with full_disk_named(self.path):
            self._publish()

    def _publish(self) -> None:
        sync_folder(self.folder)
        if (self.path / NAME).exists():
            self._replace()
        else:
            if self.path.exists():
                self.path.rmdir()  # known to be empty; not every system renames onto it
            os.rename(self.folder, self.path)
        sync_folder(self.path.parent)

    def _replace(self) -> None:
        """Move the files beside the old ones, then the catalog over the old one: that is the moment of change."""
        with WriterLock(self.path):
            for file in sorted(self.folder.iterdir()):
                if is_ours(file.name):
                    os.replace(file, self.path / file.name)
            sync_folder(self.path)
            with suppress(CorruptIndex):  # what is damaged is replaced all the same
                settle(self.path / NAME)
            for suffix in ("-journal", "-wal", "-shm"):  # of the old catalog: SQLite would apply them to the new one
                (self.path / f"{NAME}{suffix}").unlink(missing_ok=True)
            os.replace(self.folder / NAME, self.path / NAME)
            sync_folder(self.path)
            remove_unnamed(
                self.path, {entry.file for entry in self._catalog.segments} | {vocab_name(self._vocab.fingerprint)}
            )
        with suppress(OSError):
            self.folder.rmdir()

    def discard(self) -> None:
        """Give the build up: remove its folder."""
        self._catalog.close()
        remove_unnamed(self.folder, set())
        for name in (NAME, f"{NAME}-journal"):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def close(self) -> None:
        """Stop; a later builder goes on from here. A build without a document leaves nothing behind."""
        if self.folder.exists() and not len(self) and self._catalog.building:
            self.discard()
        self._catalog.close()

    def __enter__(self) -> IndexBuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _remove_orphans(self) -> None:
        """Remove files that the catalog does not name: what a killed or failed run wrote last."""
        named = {entry.file for entry in (*self._catalog.segments, *self._catalog.chunks)}
        remove_unnamed(self.folder, named | {vocab_name(self._vocab.fingerprint)})


def _check_target(path: Path, overwrite: bool) -> None:
    """Raise IndexExists unless an index may appear at `path`."""
    if (path / NAME).is_file():
        if not overwrite:
            raise IndexExists(
                f"{path} holds an index; pass overwrite=True (--overwrite) to replace it, or give another path"
            )
    elif path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise IndexExists(f"{path} exists and is not an index; give the path of a folder that does not exist yet")


def require_terms(vectors: SparseVectors, terms: int) -> None:
    """Raise BadVectors unless every term is one of a vocabulary of that many."""
    if vectors.nnz and int(vectors.terms.max()) >= terms:
        raise BadVectors(f"term id {int(vectors.terms.max())} is not in the vocabulary of {terms} terms")


def _fitting(chunks: Sequence[FileEntry]) -> Iterator[FileEntry]:
    """The first chunks, as many as one segment takes."""
    rows = 0
    for chunk in chunks:
        rows += chunk.rows
        if rows > BLOCK:
            return
        yield chunk


def _json(value: Any, what: str) -> str:  # noqa: ANN401
    """Canonical JSON of the caller's `what`."""
    try:
        return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as fault:
        raise BadInput(f"{what} must be a JSON value ({fault})") from None
