"""Files read as bytes, whatever they were packed with: gzip, xz, bzip2 and Zstandard are told by their first bytes.

The contents decide, not the name: a `.jsonl.gz` that a browser has unpacked on the way reads as well as one that
it has not. Works on pipes: nothing is sought.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any

from polylex.errors import MissingExtra

SUFFIXES = (".gz", ".xz", ".bz2", ".zst")
READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what a damaged file can raise while it is read

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # from byte 4 on; "BZh9" alone could begin an ordinary text
_HEAD = 10  # bytes that tell all four
_STEP = 4096  # packed bytes unpacked at a time: at most 128 MiB, even for a malicious Zstandard file


@contextmanager
def open_bytes(path: str | PathLike[str]) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading, unpacked; `-` is standard input, which stays open afterwards.

    Reading raises one of READ_ERRORS where the file is truncated or damaged. Opening raises OSError as `open` does,
    MissingExtra for Zstandard without the package zstandard (Python 3.14 needs none).
    """
    with ExitStack() as stack:
        packed = sys.stdin.buffer if str(path) == "-" else stack.enter_context(Path(path).open("rb"))
        head = packed.read(_HEAD)
        if not head and Path(path).suffix.lower() in SUFFIXES:
            raise EOFError("the file is empty, which no packed file is")
        stream = stack.enter_context(io.BufferedReader(_Rejoined(head, packed), 1 << 18))
        yield stack.enter_context(_unpacked(head, stream))


def _unpacked(head: bytes, stream: io.BufferedReader[_Rejoined]) -> io.BufferedIOBase:
    if head.startswith(_GZIP):
        return gzip.GzipFile(fileobj=stream, mode="rb")
    if head.startswith(_XZ):
        return lzma.LZMAFile(stream)
    if head.startswith(b"BZh") and head[4:] in _BZIP2:
        return bz2.BZ2File(stream)
    if head.startswith(_ZSTD):
        return io.BufferedReader(_Zstandard(stream), 1 << 18)
    return stream


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already; closing it leaves the stream open."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 (a writable buffer has no type before Python 3.12)
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Zstandard(io.RawIOBase):
    """The contents of all frames of a Zstandard file.

    Both packages' own readers will not do: zstandard's takes a truncated file for a complete one.
    """

    def __init__(self, packed: io.BufferedReader[_Rejoined]) -> None:
        self._new_frame, self._error = _zstandard()
        self._packed, self._frame = packed, self._new_frame()
        self._waiting, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        while not self._ready and self._unpack():
            pass
        data, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def _unpack(self) -> bool:
        """Unpack the next bytes into `_ready`; False at the end of the file."""
        data = self._waiting or self._packed.read(_STEP)
        self._waiting = b""
        if not data:
            if not self._frame.eof:
                raise EOFError("Zstandard data ended in the middle of a frame")
            return False
        if self._frame.eof:
            self._frame = self._new_frame()
        try:
            self._ready = self._frame.decompress(data)
        except self._error as error:
            raise OSError(f"damaged Zstandard data: {error}") from error
        if self._frame.eof:
            self._waiting = self._frame.unused_data
        return True


def _zstandard() -> tuple[Callable[[], Any], type[Exception]]:
    """A maker of decompressors of one frame, and what they raise; from the standard library where it has one."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdDecompressor, zstd.ZstdError
    try:
        import zstandard
    except ImportError:
        raise MissingExtra("zstandard", "zstd", "Reading Zstandard files (.zst)") from None
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
