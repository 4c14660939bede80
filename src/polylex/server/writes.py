"""Writes: changes of many requests, made durable together by one thread, one transaction at a time.

An answer goes out when its change is on disk. Other processes, workers of this server among them, write too: the lock
of the index decides whose turn it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polylex.errors import IndexLocked, PolylexError
from polylex.server.problems import busy
from polylex.vectors import SparseVectors
from polylex.writer import IndexWriter

_PAUSE = 0.02  # seconds between two looks at a lock
_TOGETHER = 64  # requests of one transaction


@dataclass(frozen=True, slots=True)
class Put:
    """Documents to add, or with `replace` to put in the place of others; the outcome is how many were replaced."""

    ids: Sequence[str]
    fields: Sequence[Mapping[str, Any]]
    vectors: SparseVectors
    replace: bool

    def apply(self, writer: IndexWriter) -> int:
        """Make the change."""
        if self.replace:
            return writer.upsert(self.ids, self.fields, self.vectors)
        writer.add(self.ids, self.fields, self.vectors)
        return 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Documents to delete; the outcome is how many there were."""

    ids: Sequence[str]
    missing_ok: bool = True

    def apply(self, writer: IndexWriter) -> int:
        """Make the change."""
        return writer.delete(self.ids, missing_ok=self.missing_ok)


Change = Put | Delete
Outcome = int | Exception


@dataclass(eq=False)
class _Job:
    change: Change
    done: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Writes:
    """Takes changes from one event loop; what is refused leaves the others as they are."""

    def __init__(
        self, path: Path, lock_seconds: float, waiting: int, on_commit: Callable[[float], None] | None = None
    ) -> None:
        """Name the folder of the index.

        lock_seconds  to wait for other writers
        waiting       changes that wait at most; more are refused
        on_commit     is told the seconds that each transaction took
        """
        self._path = path
        self._patience = lock_seconds
        self._limit = waiting
        self._on_commit = on_commit
        self._waiting: list[_Job] = []
        self._pool = ThreadPoolExecutor(1, "polylex-write")
        self._task: asyncio.Task[None] | None = None

    async def make(self, change: Change) -> int:
        """Make a change and return its outcome when it is durable.

        Raises as IndexWriter does, and a Problem (503) where too many changes wait.
        """
        if len(self._waiting) >= self._limit:
            raise busy("Too many changes wait to be written.", 2)
        job = _Job(change)
        self._waiting.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await job.done

    async def _work(self) -> None:
        while self._waiting:
            jobs, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            loop = asyncio.get_running_loop()
            try:
                outcomes = await loop.run_in_executor(self._pool, self._commit, [job.change for job in jobs])
            except Exception as fault:  # a commit that fails concerns all of them
                outcomes = [fault] * len(jobs)
            for job, outcome in zip(jobs, outcomes, strict=True):
                if job.done.done():
                    continue
                if isinstance(outcome, Exception):
                    job.done.set_exception(outcome)
                else:
                    job.done.set_result(outcome)

    def _commit(self, changes: list[Change]) -> list[Outcome]:
        """Make changes durable, all that can be made."""
        writer = self._writer()
        started = time.perf_counter()
        try:
            outcomes = [_outcome(change, writer) for change in changes]
            writer.commit()
        finally:
            writer.close()
        if self._on_commit is not None:
            self._on_commit(time.perf_counter() - started)
        return outcomes

    def _writer(self) -> IndexWriter:
        end = time.monotonic() + self._patience
        while True:
            try:
                return IndexWriter(self._path)
            except IndexLocked:
                if time.monotonic() > end:
                    raise
                time.sleep(_PAUSE)

    async def close(self) -> None:
        """Wait for all changes that were taken."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown()


def _outcome(change: Change, writer: IndexWriter) -> Outcome:
    try:
        return change.apply(writer)
    except PolylexError as fault:
        return fault
