"""Encodings kept on disk, so that evaluating again, with other measures or prunings, costs no encoding.

    with Encodings("polylex-mini-3f2a", "cache") as encodings:
        vectors = encodings.vectors("document", texts, encoder)

One SQLite file a system; a row is one text, whatever collections it stands in. An interrupted run goes on where it
stopped. The folder ignores itself in git.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput
from polylex.vectors import SparseVectors

if TYPE_CHECKING:
    from polylex.retriever import Encoder

CHUNK = 256  # texts between two commits
_VARIABLES = 500  # of one statement


class Encodings:
    """The encodings of one system. `identity` names its weights: what was encoded with others is not found.

    encoded  int    texts encoded so far by this object, the others were there
    seconds  float  spent on them
    """

    def __init__(self, identity: str, folder: str | os.PathLike[str] | None = None) -> None:
        """Open `folder`/`identity`.sqlite, creating both. None keeps everything in memory.

        Raises BadInput for a file that is no such store.
        """
        self.encoded, self.seconds = 0, 0.0
        self.path = ":memory:"
        if folder is not None:
            root = Path(folder)
            root.mkdir(parents=True, exist_ok=True)
            (root / ".gitignore").write_text("*\n", encoding="utf-8")
            self.path = str(root / f"{identity}.sqlite")
        self._store = sqlite3.connect(self.path)
        try:
            self._store.execute("CREATE TABLE IF NOT EXISTS encodings (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        except sqlite3.DatabaseError as fault:
            self._store.close()
            raise BadInput(f"{self.path} is no store of encodings ({fault}); remove it, it can be made again") from None

    def fetch(
        self,
        kind: str,
        texts: Sequence[str],
        encode: Callable[[list[str]], Sequence[bytes]],
        on_texts: Callable[[int], None] | None = None,
    ) -> list[bytes]:
        """One encoding a text, in order.

        kind      "query" or "document": the same text may be encoded in two ways
        encode    gets the texts that are not here yet, in chunks, longest first
        on_texts  called with the number of texts that have just been encoded, or were there
        """
        keys = [_key(kind, text) for text in texts]
        found = dict(self._known(list(dict.fromkeys(keys))))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        report = on_texts or (lambda count: None)
        report(len(texts) - len(missing))
        todo = sorted(missing, key=lambda key: -len(missing[key]))
        for at in range(0, len(todo), CHUNK):
            chunk = todo[at : at + CHUNK]
            start = time.perf_counter()
            values = dict(zip(chunk, encode([missing[key] for key in chunk]), strict=True))
            self.seconds += time.perf_counter() - start
            self.encoded += len(chunk)
            with self._store:
                self._store.executemany("INSERT OR REPLACE INTO encodings VALUES (?, ?)", values.items())
            found.update(values)
            report(len(chunk))
        return [found[key] for key in keys]

    def vectors(
        self,
        kind: Literal["query", "document"],
        texts: Sequence[str],
        encoder: Encoder,
        on_texts: Callable[[int], None] | None = None,
    ) -> SparseVectors:
        """Sparse vectors of texts, one row each, in order."""
        rows = self.fetch(kind, texts, lambda chunk: packed(encoder.encode(chunk, kind=kind)), on_texts)
        return SparseVectors.from_rows(map(_unpacked, rows), encoder.vocab.fingerprint)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def __del__(self) -> None:
        if hasattr(self, "_store"):
            self.close()

    def __enter__(self) -> Encodings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for at in range(0, len(keys), _VARIABLES):
            some = keys[at : at + _VARIABLES]
            marks = ", ".join("?" * len(some))
            yield from self._store.execute(f"SELECT key, value FROM encodings WHERE key IN ({marks})", some)


def identity_of(folder: Path, *details: str) -> str:
    """A name for the weights in a folder: its own, and a digest of its files (all but .md) and of `details`."""
    digest = blake2b(digest_size=8)
    for detail in details:
        digest.update(detail.encode() + b"\0")
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"{folder.resolve().name}-{digest.hexdigest()}"


def packed(vectors: SparseVectors) -> list[bytes]:
    """Each row as bytes: its terms (uint32), then its weights (float32)."""
    rows = (vectors.row(index) for index in range(len(vectors)))
    return [terms.tobytes() + weights.tobytes() for terms, weights in rows]


def _unpacked(row: bytes) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    half = len(row) // 2
    return np.frombuffer(row[:half], np.uint32), np.frombuffer(row[half:], np.float32)


def _key(kind: str, text: str) -> bytes:
    return blake2b(f"{kind}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
