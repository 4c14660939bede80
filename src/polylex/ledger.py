"""Ledger: what a collection on an engine is known to hold, in a file on this machine.

An entry says that the engine has taken a document with just this content. It is removed before the document is sent
again or deleted, and made when the engine has said yes: what is in the file is true whenever the process dies.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING

from polylex.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polylex.corpus import Document

_VERSION = "1"
_LOCKED_FOR = 5.0  # seconds to wait for another process


class Ledger:
    """A SQLite file for one collection. Close it, or use it in a `with` block."""

    def __init__(self, path: str | os.PathLike[str], collection: str) -> None:
        """Open, or make, the ledger of a collection, which is named as its user names it.

        Raises BadInput for a file that is none, or that of another collection.
        """
        self.path = str(path)
        try:
            self._store = sqlite3.connect(self.path, timeout=_LOCKED_FOR, isolation_level=None)
        except sqlite3.OperationalError as fault:
            raise BadInput(f"{self.path} cannot be opened ({fault}); give a file in a folder that is there") from None
        try:
            self._begin(collection)
        except sqlite3.DatabaseError as fault:
            self._store.close()
            raise BadInput(f"{self.path} is no ledger ({fault}); give another name, or remove it") from None
        except BadInput:
            self._store.close()
            raise

    def _begin(self, collection: str) -> None:
        with self._transaction():
            self._store.execute("CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
            self._store.execute("CREATE TABLE IF NOT EXISTS held (id TEXT PRIMARY KEY, digest BLOB) WITHOUT ROWID")
            for name, value in (("version", _VERSION), ("collection", collection)):
                self._store.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
            about = dict(self._store.execute("SELECT name, value FROM about"))
        if about != {"version": _VERSION, "collection": collection}:
            raise BadInput(
                f"{self.path} is the ledger of {about.get('collection')!r} (version {about.get('version')}), not of "
                f"{collection!r}; give another file"
            )

    def __len__(self) -> int:
        return int(self._store.execute("SELECT count(*) FROM held").fetchone()[0])

    def digest(self, id: str) -> bytes | None:
        """That of the content with which the engine has this document; None if unknown."""
        row = self._store.execute("SELECT digest FROM held WHERE id = ?", (id,)).fetchone()
        return None if row is None else bytes(row[0])

    def forget(self, ids: Iterable[str]) -> None:
        """Remove entries: their documents are about to change. Durable on return."""
        with self._transaction():
            self._store.executemany("DELETE FROM held WHERE id = ?", ((id,) for id in ids))

    def record(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """Make entries: the engine has taken these documents. Durable on return."""
        with self._transaction():
            self._store.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", entries)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._store.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._store.execute("COMMIT")
        except BaseException:
            if self._store.in_transaction:
                self._store.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def content_digest(document: Document, making: Sequence[str]) -> bytes:
    """16 bytes that change with a document's text and fields, and with `making`: what its vector is made with."""
    content = json.dumps([document.text, document.fields, making], sort_keys=True, ensure_ascii=True)
    return blake2b(content.encode("ascii"), digest_size=16).digest()
