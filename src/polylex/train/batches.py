"""From token caches to padded batches: seeded sampling over strata, length bucketing, background building.

Everything that is drawn is a pure function of (seed, window, row): a run that continues from a position sees exactly
what it would have seen. A *window* is `bucket_rows` rows, drawn together, sorted by length and cut into batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polylex.errors import BadInput
from polylex.model.tokens import TokenBatch
from polylex.train.data import TokenCache

Rows = NDArray[np.int64]

# Padded lengths are multiples of this, so that tensor cores and kernels see few, even shapes.
_ROUND = 8


# -- sampling ----------------------------------------------------------------------------------------


def stratum_weights(
    sizes: Sequence[int],
    strata: Sequence[tuple[str, str]],
    *,
    language_temperature: float = 1.0,
    source_temperature: float = 1.0,
    source_weights: Mapping[str, float] | None = None,
) -> NDArray[np.float64]:
    """Share of the samples that each stratum (language, source) gets; they sum to 1.

    A language gets a share in proportion to n ** (1 / language_temperature), n its rows; in it a source gets one in
    proportion to n ** (1 / source_temperature), times its factor in `source_weights`. A row counts in n as much as its
    factor says, so that at temperature 1 a source of factor 2 is drawn twice as often in every language.
    """
    factors = source_weights or {}
    unknown = factors.keys() - {source for _, source in strata}
    if unknown:
        raise BadInput(f"source_weights names {sorted(unknown)[0]!r}, no source of this data; check the spelling")
    wanted = np.array([factors.get(source, 1.0) for _, source in strata])
    counts = np.array(sizes, np.float64) * (wanted > 0)
    within = counts ** (1 / source_temperature) * wanted * (counts > 0)
    languages = {language for language, _ in strata}
    weights = np.zeros(len(strata))
    for language in sorted(languages):
        mine = np.array([name == language for name, _ in strata])
        if within[mine].sum() > 0:
            share = (counts * wanted)[mine].sum() ** (1 / language_temperature)
            weights[mine] = share * within[mine] / within[mine].sum()
    if not weights.sum() > 0:
        raise BadInput("source_weights leaves no row to train on; give at least one source a factor above 0")
    return np.asarray(weights / weights.sum())


class Sampler:
    """An endless stream of rows. Each stratum is walked in a seeded order, without repeats until it is used up.

    Strata take turns in proportion to their weights: after n rows a stratum has had its share of n, give or take one.
    """

    def __init__(self, stratum: NDArray[np.uint32], weights: NDArray[np.float64], seed: int) -> None:
        order = np.argsort(stratum, kind="stable")
        bounds = np.searchsorted(stratum[order], np.arange(len(weights) + 1))
        self._rows = [order[a:b] for a, b in pairwise(bounds)]
        self._weights, self._seed = weights, seed
        self._phase = np.random.default_rng([seed, 1]).random(len(weights))
        self._walks: dict[int, tuple[int, Rows]] = {}

    def window(self, number: int, size: int) -> Rows:
        """Rows of window `number`, about `size`, grouped by stratum: a function of the arguments and the seed alone."""
        start = np.floor(number * size * self._weights + self._phase).astype(np.int64)
        stop = np.floor((number + 1) * size * self._weights + self._phase).astype(np.int64)
        parts = [self._walk(int(s), int(start[s]), int(stop[s])) for s in np.flatnonzero(stop > start)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _walk(self, stratum: int, start: int, stop: int) -> Rows:
        """Steps start..stop of the endless walk through a stratum: one permutation after the other."""
        rows = self._rows[stratum]
        taken = []
        while start < stop:
            epoch, at = divmod(start, len(rows))
            count = min(stop - start, len(rows) - at)
            taken.append(rows[self._permutation(stratum, epoch)[at : at + count]])
            start += count
        return np.concatenate(taken)

    def _permutation(self, stratum: int, epoch: int) -> Rows:
        known = self._walks.get(stratum)
        if known is None or known[0] != epoch:
            rng = np.random.default_rng([self._seed, 2, stratum, epoch])
            known = self._walks[stratum] = (epoch, rng.permutation(len(self._rows[stratum])))
        return known[1]


def cut_by_tokens(lengths: Rows, tokens: int, most: int, world: int) -> list[tuple[int, int]]:
    """Cut rows, sorted by length, into batches [start, stop).

    lengths  int64 [N]  padded tokens a row would cost alone, in a batch of its own length
    tokens   of a batch, all ranks together: rows x longest stays at or under it, except where `world` rows are over it
             already; 0 = no limit
    most     rows of a batch, all ranks together
    world    every batch has a multiple of so many rows; rows that are left over at the end are dropped

    Lengths may rise or fall. Every batch has a row for every rank.
    """
    batches = []
    start = 0
    while start + world <= len(lengths):
        stop = start + world
        longest = int(lengths[start:stop].max())
        while stop + world <= len(lengths) and stop + world - start <= most:
            wider = max(longest, int(lengths[stop : stop + world].max()))
            if tokens and wider * (stop + world - start) > tokens:
                break
            longest, stop = wider, stop + world
        batches.append((start, stop))
        start = stop
    return batches


# -- padding -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Texts:
    """Token ids of some texts: ids uint32 [tokens], lengths int64 [texts]; no special tokens."""

    ids: NDArray[np.uint32]
    lengths: Rows

    def __len__(self) -> int:
        return len(self.lengths)


def slices(cache: TokenCache, first: Rows, last: Rows, longest: int) -> Texts:
    """Text i = the tokens of cached texts first[i]..last[i] - 1, one after the other, at most `longest` of them."""
    starts = cache.offsets[first]
    lengths = np.minimum(cache.offsets[last] - starts, longest)
    ends = np.cumsum(lengths)
    index = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)
    return Texts(cache.ids[index], lengths)


def joined(*parts: Texts) -> Texts:
    """The texts of all parts, in order."""
    return Texts(np.concatenate([p.ids for p in parts]), np.concatenate([p.lengths for p in parts]))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts of like length that go through the model together.

    batch  TokenBatch [b, L]
    rows   int64 [b]  which texts of the whole batch they are
    """

    batch: TokenBatch
    rows: Tensor

    def to(self, device: torch.device) -> Chunk:
        """The same on another device; from pinned memory without waiting."""
        ids, real, content = (
            t.to(device, non_blocking=True) for t in (self.batch.ids, self.batch.real, self.batch.content)
        )
        return Chunk(TokenBatch(ids, real, content), self.rows.to(device, non_blocking=True))


def ready(device: torch.device, tensor: Tensor) -> Tensor:
    """A tensor as the copy to `device` wants it: in pinned memory for a GPU, so that nobody waits."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def ready_chunks(device: torch.device, chunks: list[Chunk]) -> list[Chunk]:
    """`ready` for all tensors of the chunks."""
    return [
        Chunk(
            TokenBatch(ready(device, c.batch.ids), ready(device, c.batch.real), ready(device, c.batch.content)),
            ready(device, c.rows),
        )
        for c in chunks
    ]


class Frame(NamedTuple):
    """Special tokens around a text, and the padding token."""

    head: tuple[int, ...]
    tail: tuple[int, ...]
    pad: int

    @property
    def size(self) -> int:
        """Special tokens of a text."""
        return len(self.head) + len(self.tail)


def chunked(texts: Texts, frame: Frame, tokens: int) -> list[Chunk]:
    """Sort texts by length and pad them in chunks of at most `tokens` padded tokens each (one text may exceed it)."""
    starts = np.concatenate([[0], np.cumsum(texts.lengths)])
    order = np.argsort(-texts.lengths, kind="stable")
    framed = texts.lengths[order] + frame.size
    return [_padded(texts.ids, starts[order[a:b]], texts.lengths[order[a:b]], order[a:b], frame)
            for a, b in _chunk_bounds(framed, tokens)]  # fmt: skip


def _chunk_bounds(lengths: Rows, tokens: int) -> Iterator[tuple[int, int]]:
    """Cut falling lengths: where a chunk is full, or where it is a quarter full and padding would waste 40 %."""
    start = 0
    while start < len(lengths):
        longest = _rounded(int(lengths[start]))
        most = max(1, tokens // longest)
        some = max(1, most // 4)
        stop = min(start + most, len(lengths))
        short = np.flatnonzero(lengths[start + some : stop] < 0.6 * longest)
        if len(short):
            stop = start + some + int(short[0])
        yield start, stop
        start = stop


def _padded(ids: NDArray[np.uint32], starts: Rows, lengths: Rows, rows: Rows, frame: Frame) -> Chunk:
    head, tail = len(frame.head), len(frame.tail)
    width = _rounded(int(lengths.max()) + frame.size)
    column = np.arange(width)
    content = (column >= head) & (column < head + lengths[:, None])
    real = column < head + lengths[:, None] + tail
    padded = np.full((len(lengths), width), frame.pad, np.int64)
    padded[:, :head] = frame.head
    padded[content] = ids[np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))]
    for offset, token in enumerate(frame.tail):
        padded[np.arange(len(lengths)), head + lengths + offset] = token
    return Chunk(
        TokenBatch(torch.from_numpy(padded), torch.from_numpy(real), torch.from_numpy(content)),
        torch.from_numpy(rows.astype(np.int64)),
    )


def _rounded(length: int) -> int:
    return -(-length // _ROUND) * _ROUND


# -- background --------------------------------------------------------------------------------------

Plan = TypeVar("Plan")
Built = TypeVar("Built")


class Position(NamedTuple):
    """Where the data stands: the next batch is number `batch` of window `window`."""

    window: int = 0
    batch: int = 0


class Feed(Generic[Plan, Built]):
    """Batches in order from a position on, built ahead by threads. Iterates over (position after it, batch)."""

    def __init__(
        self,
        plan: Callable[[int], Sequence[Plan]],
        build: Callable[[Plan], Built],
        position: Position,
        threads: int,
        start_thread: Callable[[], None] = lambda: None,
    ) -> None:
        """Take `plan`, which gives the batches of a window as something small, and `build`, which makes one of them.

        start_thread  called in every thread before its work
        """
        self._plan, self._build, self._position, self._threads = plan, build, position, threads
        self._start_thread = start_thread

    def __iter__(self) -> Iterator[tuple[Position, Built]]:
        pool = ThreadPoolExecutor(self._threads, "polylex-batches", self._start_thread)
        waiting: deque[tuple[Position, Future[Built]]] = deque()
        plans = self._plans(pool)
        try:
            while True:
                while len(waiting) <= 2 * self._threads:
                    after, item = next(plans)
                    waiting.append((after, pool.submit(self._build, item)))
                after, future = waiting.popleft()
                yield after, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _plans(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Position, Plan]]:
        window, skip = self._position
        barren = 0
        coming = pool.submit(self._plan, window)
        while True:
            planned = coming.result()
            coming = pool.submit(self._plan, window + 1)
            barren = 0 if len(planned) else barren + 1
            if barren > 8:
                raise BadInput("the data gives no batch: fewer rows than processes; add data or use fewer GPUs")
            for index in range(skip, len(planned)):
                last = index + 1 == len(planned)
                yield Position(window + 1, 0) if last else Position(window, index + 1), planned[index]
            window, skip = window + 1, 0
