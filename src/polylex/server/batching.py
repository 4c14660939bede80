"""Batcher: texts of many requests, encoded together on a few threads, with a limit to how many may wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from polylex.server.problems import busy
from polylex.server.settings import Limits
from polylex.vectors import SparseVectors

Kind = str  # "query" or "document"
Encode = Callable[[list[str], Kind, bool], SparseVectors]
OnBatch = Callable[[int, float, int], None]

_SMOOTHING = 0.1  # of the mean time of a text: how much the last batch counts


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    text: str
    kind: Kind
    truncate: bool
    done: asyncio.Future[SparseVectors]
    since: float

    @property
    def group(self) -> tuple[Kind, bool]:
        return self.kind, self.truncate


class Batcher:
    """Encodes on `lanes` threads. A free lane takes its share of the texts that wait, at most `limits.batch`.

    Queries and documents wait in two queues and take turns, so that a large upload does not keep searches waiting.
    Use it from one event loop.
    """

    def __init__(self, encode: Encode, lanes: int, limits: Limits, on_batch: OnBatch | None = None) -> None:
        """Take a function that encodes texts: (texts, kind, truncate) -> vectors, one row a text.

        on_batch  is told of each batch its texts, its seconds, and how many texts wait
        """
        self._encode = encode
        self._limits = limits
        self._on_batch = on_batch
        self._lanes = self._idle = lanes
        self._pool = ThreadPoolExecutor(lanes, "polylex-encode")
        self._waiting: dict[Kind, deque[_Job]] = {"query": deque(), "document": deque()}
        self._last: Kind = "document"
        self._seconds = 0.01  # of a text, about
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def __len__(self) -> int:
        """Texts that wait."""
        return sum(map(len, self._waiting.values()))

    async def encode(self, texts: Sequence[str], kind: Kind, *, truncate: bool = False) -> SparseVectors:
        """Vectors of some texts, one row each. Raises a Problem (503) where too many wait."""
        if self._closing:
            raise busy("The server is stopping.", 5)
        if len(self) + len(texts) > self._limits.waiting:
            raise busy("Too many texts wait to be encoded.", self._seconds * len(self) / self._lanes)
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        jobs = [_Job(text, kind, truncate, loop.create_future(), now) for text in texts]
        self._waiting[kind].extend(jobs)
        self._dispatch()
        try:
            return SparseVectors.concat([await job.done for job in jobs])
        finally:
            for job in jobs:
                job.done.cancel()  # those nobody waits for any more are not encoded

    def _dispatch(self) -> None:
        """Give free lanes what waits."""
        while self._idle and (batch := self._take()):
            self._idle -= 1
            future = asyncio.get_running_loop().run_in_executor(self._pool, self._run, batch)
            future.add_done_callback(lambda done, batch=batch: self._finish(done, batch))  # type: ignore[misc]

    def _take(self) -> list[_Job]:
        """The next batch for a lane; empty where none is due."""
        kinds = sorted(self._waiting, key=lambda kind: kind == self._last)  # the other one first
        for kind in kinds:
            queue = self._waiting[kind]
            while queue and queue[0].done.done():
                queue.popleft()
            if queue and self._is_due(queue):
                self._last = kind
                group, share = queue[0].group, min(self._limits.batch, math.ceil(len(queue) / self._idle))
                batch = [queue.popleft()]
                while queue and len(batch) < share and queue[0].group == group:
                    job = queue.popleft()
                    if not job.done.done():
                        batch.append(job)
                return batch
        return []

    def _is_due(self, queue: deque[_Job]) -> bool:
        """Whether a batch is full or has waited long enough; else we come back when it has."""
        left = self._limits.batch_wait_ms / 1e3 - (time.perf_counter() - queue[0].since)
        if left <= 0 or len(queue) >= self._limits.batch:
            return True
        if self._timer is None or self._timer.cancelled() or self._timer.when() <= asyncio.get_running_loop().time():
            self._timer = asyncio.get_running_loop().call_later(left, self._dispatch)
        return False

    def _run(self, batch: list[_Job]) -> tuple[list[SparseVectors | Exception], float]:
        started = time.perf_counter()
        outcomes = self._attempt(batch)
        return outcomes, time.perf_counter() - started

    def _attempt(self, batch: list[_Job]) -> list[SparseVectors | Exception]:
        """A vector of each text; where some text cannot be encoded, the others still are."""
        try:
            vectors = self._encode([job.text for job in batch], batch[0].kind, batch[0].truncate)
        except Exception as fault:
            return [fault] if len(batch) == 1 else [outcome for job in batch for outcome in self._attempt([job])]
        return [vectors.take([row]) for row in range(len(batch))]

    def _finish(self, done: asyncio.Future[tuple[list[SparseVectors | Exception], float]], batch: list[_Job]) -> None:
        outcomes, seconds = done.result()
        self._idle += 1
        self._seconds += _SMOOTHING * (seconds / len(batch) - self._seconds)
        if self._on_batch is not None:
            self._on_batch(len(batch), seconds, len(self))
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.done.done():
                continue
            if isinstance(outcome, Exception):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)
        self._dispatch()

    def close(self) -> None:
        """Take no more texts, and wait for those on the threads."""
        self._closing = True
        self._pool.shutdown()
