"""Encodings kept on disk, so that a benchmark run again costs no encoding and an interrupted one goes on.

One SQLite file a system; a row is one text, whatever sets it stands in. The folder ignores itself in git.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".cache"
CHUNK = 256


class Encodings:
    """The encodings of one system. `identity` names its weights: what was encoded with others is not found."""

    def __init__(self, identity: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        self._store = sqlite3.connect(folder / f"{identity}.sqlite")
        self._store.execute("CREATE TABLE IF NOT EXISTS encodings (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.encoded = 0
        self.seconds = 0.0

    def fetch(self, kind: str, texts: Sequence[str], encode: Callable[[list[str]], list[bytes]]) -> list[bytes]:
        """One encoding a text, in order; `encode` gets those that are not here yet, in chunks, longest first."""
        keys = [_key(kind, text) for text in texts]
        missing = dict(zip(keys, texts, strict=True))
        for key in self._known(missing):
            del missing[key]
        todo = sorted(missing, key=lambda key: -len(missing[key]))
        start = time.perf_counter()
        for at in range(0, len(todo), CHUNK):
            chunk = todo[at : at + CHUNK]
            values = encode([missing[key] for key in chunk])
            with self._store:
                self._store.executemany(
                    "INSERT OR REPLACE INTO encodings VALUES (?, ?)", zip(chunk, values, strict=True)
                )
            done = at + len(chunk)
            print(
                f"\r{kind}: {done:,}/{len(todo):,} texts, {time.perf_counter() - start:.0f} s  ",
                end="",
                file=sys.stderr,
            )
        if todo:
            print(file=sys.stderr)
            self.encoded += len(todo)
            self.seconds += time.perf_counter() - start
        return [self._store.execute("SELECT value FROM encodings WHERE key = ?", (key,)).fetchone()[0] for key in keys]

    def _known(self, keys: dict[bytes, str]) -> Iterator[bytes]:
        for key in list(keys):
            if self._store.execute("SELECT 1 FROM encodings WHERE key = ?", (key,)).fetchone():
                yield key


def identity(folder: Path, *details: str) -> str:
    """A name for the weights in a folder: its own, and a digest of its files and of `details`."""
    digest = blake2b(digest_size=8)
    for detail in details:
        digest.update(detail.encode() + b"\0")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"{folder.resolve().name}-{digest.hexdigest()}"


def _key(kind: str, text: str) -> bytes:
    return blake2b(f"{kind}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
