"""Exclusion: training texts that repeat a text of a test collection, found and named.

    exclusion = Exclusion.of(texts_of_the_test_collections)
    leaks = exclusion.leaks(training_texts)        # [texts] "", "exact" or "window"

Two texts overlap when they are equal after normalisation, or share any 50 neighbouring characters (20 where the script
is Chinese, Japanese or Korean, in which 20 characters say as much).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from polylex.errors import BadInput

WINDOW = 50
CJK_WINDOW = 20

Hashes = NDArray[np.uint64]

# Polynomial hashes modulo 2^64; the base is odd, so that it has an inverse there.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
# One bit per hash, to answer "not here" from the cache line instead of a binary search: 128 MiB.
_FILTER_BITS = 30
# Characters hashed at one time.
_BLOCK = 1 << 22
_SEPARATOR = "\n"


def normalise(text: str) -> str:
    """Letters, marks and digits in NFKC and case-folded; every run of anything else is one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() or _is_mark(char) else " " for char in folded).split())


class Exclusion:
    """The texts that training must not repeat.

    exact    uint64 [texts]    sorted hashes of whole normalised texts
    windows  uint64 [windows]  sorted hashes of every window of `window` characters, and of every CJK window
    """

    def __init__(self, exact: Hashes, windows: Hashes, *, window: int = WINDOW, cjk_window: int = CJK_WINDOW) -> None:
        self.window, self.cjk_window = window, cjk_window
        self._exact, self._windows = _Members(exact), _Members(windows)

    @classmethod
    def of(cls, texts: Iterable[str], *, window: int = WINDOW, cjk_window: int = CJK_WINDOW) -> Exclusion:
        """Read the texts of the test collections: documents and queries alike.

        window      characters (after normalisation) that make a leak when a training text holds the same ones in a row
        cjk_window  the same where more than half of them are Chinese, Japanese or Korean
        """
        if not 1 <= cjk_window <= window:
            raise BadInput(f"windows need 1 <= cjk_window <= window, got {cjk_window} and {window}")
        exact, windows = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for block in _blocks(texts):
            joined = _Joined(block)
            exact.append(joined.whole())
            windows.extend((joined.windows(window)[1], joined.windows(cjk_window, cjk=True)[1]))
        return cls(
            np.unique(np.concatenate(exact)), np.unique(np.concatenate(windows)), window=window, cjk_window=cjk_window
        )

    def __len__(self) -> int:
        return len(self._exact.sorted)

    def leaks(self, texts: Iterable[str]) -> list[str]:
        """Of every text how it repeats an excluded one: "exact", "window", or "" where it does not.

        A blank text is no leak.
        """
        found: list[str] = []
        for block in _blocks(texts):
            joined = _Joined(block)
            shares = np.zeros(len(block), bool)
            for length, cjk in ((self.window, False), (self.cjk_window, True)):
                owners, hashes = joined.windows(length, cjk=cjk)
                shares[owners[self._windows.has(hashes)]] = True
            equal = self._exact.has(joined.whole()) & np.array([bool(text) for text in joined.texts])
            found.extend(
                "exact" if same else "window" if part else "" for same, part in zip(equal, shares, strict=True)
            )
        return found


class _Members:
    """A set of hashes, asked many at a time."""

    def __init__(self, hashes: Hashes) -> None:
        self.sorted = hashes
        self._bits = np.zeros(1 << (_FILTER_BITS - 3), np.uint8) if len(hashes) else np.zeros(0, np.uint8)
        if len(hashes):
            byte, bit = _place(hashes)
            np.bitwise_or.at(self._bits, byte, bit)

    def has(self, hashes: Hashes) -> NDArray[np.bool_]:
        if not len(self.sorted):
            return np.zeros(len(hashes), bool)
        byte, bit = _place(hashes)
        maybe = np.flatnonzero(self._bits[byte] & bit)
        at = np.searchsorted(self.sorted, hashes[maybe])
        found = np.zeros(len(hashes), bool)
        found[maybe] = self.sorted[np.minimum(at, len(self.sorted) - 1)] == hashes[maybe]
        return found


class _Joined:
    """Some normalised texts as one array of code points, each hashed by prefix sums."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [normalise(text) for text in texts]
        self._lengths = np.array([len(text) for text in self.texts], np.int64)
        self._starts = np.cumsum(self._lengths + 1) - self._lengths - 1
        text = _SEPARATOR.join(self.texts) + _SEPARATOR
        self._codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        powers = _powers(_BASE, len(self._codes))
        self._sums = np.zeros(len(self._codes) + 1, np.uint64)
        np.cumsum((self._codes.astype(np.uint64) + np.uint64(1)) * powers, out=self._sums[1:])

    def whole(self) -> Hashes:
        """Hash of every text [texts]; its length is part of it."""
        return _mix(self._hashes(self._starts, self._lengths), self._lengths)

    def windows(self, length: int, *, cjk: bool = False) -> tuple[NDArray[np.int64], Hashes]:
        """(text, hash) of every window of `length` characters; with `cjk`, of those mostly in CJK scripts."""
        room = np.maximum(self._lengths - length + 1, 0)
        counts = np.concatenate([[0], np.cumsum(_is_cjk(self._codes))]) if cjk else None
        if counts is not None:
            room[2 * (counts[self._starts + self._lengths] - counts[self._starts]) <= length] = 0
        owners = np.repeat(np.arange(len(room)), room)
        first = np.arange(len(owners)) - np.repeat(np.cumsum(room) - room, room) + self._starts[owners]
        if counts is not None:
            mostly = 2 * (counts[first + length] - counts[first]) > length
            owners, first = owners[mostly], first[mostly]
        return owners, _mix(self._hashes(first, length), np.int64(length))

    def _hashes(self, first: NDArray[np.int64], length: NDArray[np.int64] | int) -> Hashes:
        inverse = _powers(_INVERSE, len(self._codes) + 1)
        hashes: Hashes = (self._sums[first + length] - self._sums[first]) * inverse[first]
        return hashes


def _powers(base: int, count: int) -> Hashes:
    """base^0 .. base^(count - 1) modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def _mix(hashes: Hashes, length: NDArray[np.int64] | np.int64) -> Hashes:
    """Spread a polynomial hash over all bits (murmur's finaliser): its low bits alone are weak."""
    mixed = hashes ^ (np.asarray(length).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93))
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(33)), np.uint64)


def _place(hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Byte and bit of the filter that stand for a hash."""
    slot = (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.int64)
    return slot >> 3, np.left_shift(1, slot & 7).astype(np.uint8)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _is_cjk(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Han, kana and hangul."""
    return (
        ((codes >= 0x3040) & (codes <= 0x30FF))
        | ((codes >= 0x3400) & (codes <= 0x9FFF))
        | ((codes >= 0xAC00) & (codes <= 0xD7AF))
        | ((codes >= 0xF900) & (codes <= 0xFAFF))
        | ((codes >= 0x20000) & (codes <= 0x323AF))
    )


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Runs of texts of some millions of characters together."""
    stream = iter(texts)
    while piece := list(islice(stream, 4096)):
        size = 0
        block: list[str] = []
        for text in piece:
            block.append(text)
            size += len(text)
            if size >= _BLOCK:
                yield block
                block, size = [], 0
        if block:
            yield block
