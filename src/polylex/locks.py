"""Locks on files, kept by the operating system: a process that dies, however it dies, lets go of all of its own.

WriterLock says who writes to an index; a Pin tells the writer that a reader still needs what was removed since.
Without flock (Windows) only WriterLock works: nobody can tell that a reader is gone, so nothing is given back.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from polylex.errors import IndexLocked

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

WRITER = "writer.lock"
READERS = "readers.lock"  # pinned by readers of odd epochs; those of even ones pin the vocabulary
_PATIENCE = 60.0  # seconds for a lock that others hold while they commit: milliseconds, unless it is a large change
_FAR = 1 << 30  # where Windows locks a byte: what stands at the beginning can still be read


class WriterLock:
    """The right to change the index in a folder; one at a time. Raises IndexLocked, which names the holder."""

    def __init__(self, folder: Path) -> None:
        """Take it, or raise at once."""
        self.path = folder / WRITER
        self._handle: int | None = None
        while self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if not _take(handle):
                    raise IndexLocked(f"{folder} is being written by {_holder(self.path)}; wait for it, or stop it")
                if _is_at(handle, self.path):  # not removed by the one who held it before
                    self._handle, handle = handle, -1
            finally:
                if handle >= 0:
                    os.close(handle)
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with suppress(OSError):  # a full disk: the lock is held all the same, only nobody knows by whom
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"process {os.getpid()} on {platform.node()} since {since}".encode())
        _held.add(self)

    def release(self) -> None:
        """Let go, and remove the file. May be called again."""
        if self._handle is not None:
            with suppress(OSError):
                self.path.unlink()
            self.forget()

    def forget(self) -> None:
        """Close the file: in a forked child, which must not keep its parent's lock."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Pin:
    """A shared lock on a file, for as long as a reader is open."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Take it. Raises IndexLocked where a writer keeps the file to itself for longer than it should.

        create  make a file that is missing; where there is none and none can be made, nothing is pinned
        """
        self._handle: int | None = None
        try:
            handle = os.open(path, os.O_RDONLY | (os.O_CREAT if create and not path.exists() else 0), 0o644)
        except OSError:
            return
        try:
            _share(handle, path)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def release(self) -> None:
        """Let go. May be called again."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


@contextmanager
def unpinned(path: Path) -> Iterator[bool]:
    """Whether no reader has a Pin on this file, which must be there. While inside, and True, none can take one."""
    if sys.platform == "win32" or not path.exists():
        yield False
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            free = _take(handle)
        except OSError:
            free = False  # a file system without locks: readers cannot take one either, so nobody knows
        yield free
    finally:
        os.close(handle)


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _take(handle: int) -> bool:
    """Lock a file for oneself, if that is possible at once."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows
        return False
    return True


def _share(handle: int, path: Path) -> None:
    """Lock a file together with other readers."""
    if sys.platform == "win32":
        return
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise IndexLocked(
                    f"{path.parent} has been kept by {_holder(path.parent / WRITER)} for {_PATIENCE:.0f} seconds; "
                    "see whether that process hangs"
                ) from None
            time.sleep(0.001)
        except OSError:
            return  # a file system without locks: a writer cannot lock there either


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _holder(path: Path) -> str:
    """Who wrote a file of WriterLock."""
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
