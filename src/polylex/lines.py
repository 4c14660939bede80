"""Lines of a byte stream: bounded, decoded, numbered, and going on after a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase

from polylex.compression import READ_ERRORS
from polylex.errors import BadRecord, RecordTooLong
from polylex.text import REPLACEMENT

_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class Lines:
    """Lines of a UTF-8 stream with their ends, as an iterator that survives a bad line.

    `next` raises BadRecord for a line that is not UTF-8 or too long, and goes on behind it when asked again. A byte
    order mark at the start is dropped. `number` is the 1-based number of the line that came last.
    """

    def __init__(self, stream: BufferedIOBase, source: str, limit: int) -> None:
        self.source, self.number = source, 0
        self._stream, self._limit, self._ended = stream, limit, False

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        self.number += 1
        try:
            raw = self._stream.readline(self._limit + 1)
            whole = self._skip_rest(raw)
        except READ_ERRORS as error:
            self._ended = True
            raise BadRecord(self.source, self.number, unreadable(error)) from error
        if not raw:
            self._ended = True
            raise StopIteration
        if not whole:
            reason = f"line of more than {self._limit:,} bytes; split it into records"
            raise RecordTooLong(self.source, self.number, reason)
        return decode(raw, self.source, self.number)

    def surviving(self) -> Iterator[str | BadRecord]:
        """All lines, with the fault in the place of a bad one."""
        while True:
            try:
                yield next(self)
            except StopIteration:
                return
            except BadRecord as fault:
                yield fault

    def _skip_rest(self, raw: bytes) -> bool:
        """Read up to the end of the line that begins with `raw`; False if that was over the limit."""
        whole = len(raw) <= self._limit
        while raw and not whole and not raw.endswith(b"\n"):
            raw = self._stream.readline(min(self._limit + 1, 1 << 16))
        return whole


def decode(raw: bytes, source: str, line: int) -> str:
    """UTF-8 as text, without a byte order mark at the start of the file, NULs as U+FFFD.

    `line` 0 means that `raw` is the whole file. Raises BadRecord that names the first bad byte.
    """
    if line <= 1:
        raw = raw.removeprefix(_UTF8_MARK)
    try:
        return raw.decode("utf-8").replace("\0", REPLACEMENT)
    except UnicodeDecodeError as error:
        kind = "UTF-16" if raw.startswith(_UTF16_MARKS) else "ISO-8859-1"
        raise BadRecord(
            source,
            line,
            f"invalid UTF-8 at byte {error.start + 1} of the {'line' if line else 'file'} "
            f"(0x{raw[error.start]:02x}); convert the file, e.g. iconv -f {kind} -t UTF-8",
        ) from None


def unreadable(error: BaseException) -> str:
    """Reason of a BadRecord for one of READ_ERRORS."""
    return f"cannot be read: {error}. Check the file; if it is truncated or damaged, fetch or write it again"
