"""API keys: a file that holds their hashes, and who may do what.

    secret = KeyFile(path).add("website", "read")      # shown once; only its hash is kept
    KeyRing(path).role(secret)                         # "read"

A secret has 256 random bits, so that one SHA-256 hides it as well as a slow hash would.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from polylex.errors import BadInput

Role = Literal["read", "write"]

PREFIX = "plx_"
VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept.

    name     of who uses it; logs have it
    role     "read", or "write", which may read too
    sha256   hex, of the secret
    created  UTC, ISO 8601
    """

    name: str
    role: Role
    sha256: str
    created: str


class KeyFile:
    """Keys in a JSON file that only its owner may read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; it need not be there yet."""
        self.path = Path(path)

    def read(self) -> list[Key]:
        """All keys. Raises BadInput where the file is not one of ours, FileNotFoundError."""
        text = self.path.read_text(encoding="utf-8")
        try:
            table = json.loads(text)
            if table["version"] != VERSION:
                raise BadInput(f"{self.path} has version {table['version']!r}, this release reads {VERSION}; upgrade")
            keys = [Key(**entry) for entry in table["keys"]]
        except (ValueError, KeyError, TypeError, RecursionError) as fault:
            raise BadInput(f"{self.path} is no file of API keys ({fault}); see `polylex keys add`") from None
        for key in keys:
            if key.role not in get_args(Role) or not _HASH.fullmatch(key.sha256):
                raise BadInput(f"{self.path} is damaged: key {key.name!r}; remove it with an editor and add it anew")
        return keys

    def add(self, name: str, role: Role) -> str:
        """Make a key and return its secret, which is not kept. Raises BadInput for a name that is taken or unusable."""
        if not _NAME.fullmatch(name):
            raise BadInput(f"a key's name has 1 to 64 letters, digits, '.', '_' or '-', got {name!r}")
        if role not in get_args(Role):
            raise BadInput(f"a key's role is one of {', '.join(get_args(Role))}, got {role!r}")
        keys = self.read() if self.path.exists() else []
        if any(key.name == name for key in keys):
            raise BadInput(f"{self.path} has a key {name!r} already; give another name, or remove that one first")
        secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._write([*keys, Key(name, role, digest_of(secret), created)])
        return secret

    def remove(self, name: str) -> None:
        """Forget a key; servers refuse it from now on. Raises BadInput for one that is not there."""
        keys = self.read()
        kept = [key for key in keys if key.name != name]
        if len(kept) == len(keys):
            raise BadInput(f"{self.path} has no key {name!r}; it has {', '.join(key.name for key in keys) or 'none'}")
        self._write(kept)

    def _write(self, keys: list[Key]) -> None:
        """Put a new file in the place of the old one, in one step."""
        table: dict[str, Any] = {"version": VERSION, "keys": [asdict(key) for key in keys]}
        partial = self.path.with_name(self.path.name + ".partial")
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)


class KeyRing:
    """The keys of a file, as it stands at any time: a key that was removed there opens nothing any more."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read the file. Raises as `KeyFile.read` does, and BadInput where there is no key."""
        self._file = KeyFile(path)
        self._lock = threading.Lock()
        self._stamp = self._stamp_of()
        self._keys = self._file.read()
        if not self._keys:
            raise BadInput(f"{path} has no key; make one with `polylex keys add`")

    def find(self, secret: str) -> Key | None:
        """The key of a secret. Takes as long for a wrong one, and tells nothing of how wrong it is."""
        self._follow()
        digest, found = digest_of(secret), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.sha256):
                found = key
        return found

    def _follow(self) -> None:
        """Read the file again if it was changed. While it is missing or damaged, no key opens anything."""
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return
        with self._lock:
            try:
                self._keys = self._file.read()
            except (BadInput, OSError):
                self._keys = []
            self._stamp = stamp

    def _stamp_of(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
