"""CIFF, the Common Index File Format: postings as protobuf messages, read by PISA, Anserini, BMP and others.

A file is a sequence of messages, each behind its length as a varint: one Header, a PostingsList for each term in the
order of their names (UTF-8), a DocRecord for each document. https://github.com/osirrc/ciff

The encoder is written by hand: the four messages need varints only, NumPy encodes all postings at one time, and the
package `ciff-toolkit`, with which the tests compare, wants a protobuf of years ago.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polylex.compression import READ_ERRORS, open_bytes
from polylex.errors import BadInput, BadVectors
from polylex.names import TermNames
from polylex.profiles import PROFILES
from polylex.storage import Written, write_file
from polylex.stream import Stream
from polylex.vectors import SparseVectors

PROFILE = PROFILES["ciff"]
_DESCRIPTION = "Polylex; term frequencies are weights times 100, rounded"
_LIMIT = 1 << 31  # of whole numbers in a posting


# -- writing -----------------------------------------------------------------------------------------


def write_ciff(path: Path, stream: Stream, names: TermNames) -> Written:
    """Write postings and documents: whole or not at all. Holds all postings in memory, some 40 bytes each.

    Raises BadInput for a weight that no int32 holds, StorageFull.
    """
    ids: list[str] = []
    lengths: list[NDArray[np.int64]] = []
    parts: list[tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]] = []
    for batch in stream:
        vectors = batch.vectors
        counts = np.rint(vectors.weights.astype(np.float64) * 100)
        if (counts >= _LIMIT).any():
            raise BadInput(f"a weight of {vectors.weights.max()} is too heavy for CIFF, which has int32")
        numbers = counts.astype(np.int64)
        documents = np.repeat(np.arange(len(vectors)), np.diff(vectors.indptr))
        kept = numbers > 0
        lengths.append(np.bincount(documents, numbers, len(vectors)).astype(np.int64))
        parts.append((vectors.terms[kept], documents[kept] + len(ids), numbers[kept]))
        ids += batch.ids
    parts.append((np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.int64)))
    terms = np.concatenate([part[0] for part in parts])
    documents, numbers = (np.concatenate([part[column] for part in parts]) for column in (1, 2))
    order = np.argsort(terms, kind="stable")
    postings = (terms[order], documents[order], numbers[order])
    messages = _messages(postings, names, ids, np.concatenate([np.zeros(0, np.int64), *lengths]))
    return write_file(path.parent, lambda _: path.name, messages)


def _messages(
    postings: tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]],
    names: TermNames,
    ids: list[str],
    lengths: NDArray[np.int64],
) -> Iterator[bytes]:
    terms, documents, numbers = postings
    used, starts = np.unique(terms, return_index=True)
    ends = np.append(starts[1:], len(terms))
    total = int(lengths.sum())
    yield _delimited(
        b"".join(_number(field, value) for field, value in enumerate([1, len(used), len(ids), len(used), len(ids)], 1))
        + _number(6, total)
        + (b"\x39" + struct.pack("<d", total / len(ids)) if total else b"")
        + _bytes(8, _DESCRIPTION.encode("ascii"))
    )
    called = [name.encode("utf-8") for name in names.of(used)]
    for at in sorted(range(len(used)), key=called.__getitem__):
        span = slice(starts[at], ends[at])
        frequency = int(ends[at] - starts[at])
        head = _bytes(1, called[at]) + _number(2, frequency) + _number(3, int(numbers[span].sum()))
        yield _delimited(head + _postings(documents[span], numbers[span]))
    for row, (id, length) in enumerate(zip(ids, lengths.tolist(), strict=True)):
        yield _delimited(_number(1, row) + _bytes(2, id.encode("utf-8")) + _number(3, length))


def _postings(documents: NDArray[np.int64], numbers: NDArray[np.int64]) -> bytes:
    """The repeated field 4 of a PostingsList: gaps between documents, and term frequencies."""
    gaps = np.diff(documents, prepend=0)
    gap_bytes, number_bytes = _sizes(gaps), _sizes(numbers)
    sizes = 4 + gap_bytes + number_bytes  # two tags, the tag and the length of the message
    at = np.concatenate([[0], np.cumsum(sizes)])
    found = np.zeros(int(at[-1]), np.uint8)
    starts = at[:-1]
    found[starts], found[starts + 1] = 0x22, sizes - 2
    found[starts + 2] = 0x08
    _put(found, starts + 3, gaps, gap_bytes)
    found[starts + 3 + gap_bytes] = 0x10
    _put(found, starts + 4 + gap_bytes, numbers, number_bytes)
    return found.tobytes()


def _sizes(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of the varint of each value in [0, 2**31)."""
    found: NDArray[np.int64] = np.searchsorted([1 << 7, 1 << 14, 1 << 21, 1 << 28], values, side="right") + 1
    return found


def _put(into: NDArray[np.uint8], at: NDArray[np.int64], values: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
    """Write varints, seven bits a byte, the lowest first; all but the last have the highest bit set."""
    for byte in range(int(sizes.max(initial=0))):
        here = sizes > byte
        more = (sizes[here] > byte + 1) * 0x80
        into[at[here] + byte] = values[here] >> 7 * byte & 0x7F | more


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(value)


def _delimited(message: bytes) -> bytes:
    return _varint(len(message)) + message


# -- reading -----------------------------------------------------------------------------------------


def read_ciff(path: Path, names: TermNames) -> tuple[SparseVectors, list[str]]:
    """Vectors and ids of a CIFF file, its term frequencies divided by 100. Raises BadVectors, naming the file."""
    try:
        with open_bytes(path) as stream:
            data = stream.read()
        return _parse(memoryview(data), names)
    except READ_ERRORS as fault:
        raise BadVectors(f"{path} cannot be read ({fault})") from None
    except (IndexError, ValueError, KeyError, struct.error, UnicodeDecodeError) as fault:
        raise BadVectors(f"{path} is damaged or no CIFF file ({fault})") from None


def _parse(data: memoryview, names: TermNames) -> tuple[SparseVectors, list[str]]:
    header, at = _message(data, 0)
    lists, documents = (int(header.get(field, [0])[0]) for field in (2, 3))
    parts = [np.zeros((3, 0), np.int64)]
    for _ in range(lists):
        message, at = _message(data, at)
        term = names.id(bytes(message[1][0]).decode("utf-8"))
        postings = [_fields(posting) for posting in message.get(4, [])]
        gaps, numbers = (np.array([posting.get(field, [0])[0] for posting in postings], np.int64) for field in (1, 2))
        parts.append(np.stack([np.cumsum(gaps), np.full(len(gaps), term), numbers]))
    ids = [""] * documents
    for _ in range(documents):
        message, at = _message(data, at)
        row = int(message.get(1, [0])[0])
        if ids[row]:
            raise ValueError(f"two records of document {row}")
        ids[row] = bytes(message[2][0]).decode("utf-8")
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes too many")
    rows, terms, numbers = np.concatenate(parts, axis=1)
    if len(rows) and rows.max() >= documents:
        raise ValueError(f"a posting of document {rows.max()}, there are {documents}")
    order = np.lexsort((terms, rows))
    indptr = np.searchsorted(rows[order], np.arange(documents + 1))
    weights = (numbers[order] / 100).astype(np.float32)
    return SparseVectors(indptr, terms[order].astype(np.uint32), weights, names.vocab.fingerprint), ids


def _message(data: memoryview, at: int) -> tuple[dict[int, list[int | memoryview]], int]:
    """The message behind its length, and where the next begins."""
    length, at = _read_varint(data, at)
    if at + length > len(data):
        raise ValueError("it ends in the middle of a message")
    return _fields(data[at : at + length]), at + length


def _fields(data: memoryview | int) -> dict[int, list[int | memoryview]]:
    """Values of a message by field number: whole numbers, and bytes."""
    if isinstance(data, int):
        raise ValueError("a number where a message was expected")
    found: dict[int, list[int | memoryview]] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value: int | memoryview
        if tag & 7 == 0:
            value, at = _read_varint(data, at)
        else:
            size, at = (8, at) if tag & 7 == 1 else (4, at) if tag & 7 == 5 else _read_varint(data, at)
            value, at = data[at : at + size], at + size
            if len(value) != size or tag & 7 not in (1, 2, 5):
                raise ValueError("it ends in the middle of a value, or has one of an unknown kind")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")
