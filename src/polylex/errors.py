"""Every error Polylex raises on purpose, importable by name.

    PolylexError
    ├── BadInput (ValueError)            a record, text, file or argument that cannot be used
    │   ├── BadRecord                    one line or row of an input; carries `source`, `line` and `reason`
    │   ├── BadFilter                    an expression over fields that cannot be read; points at the place
    │   ├── TextTooLong                  a text over the caller's limit of characters
    │   │   └── RecordTooLong            the same, of a line or row; a BadRecord too
    │   ├── OutOfReach                   a target that no pruning meets; says what is possible
    │   └── DuplicateId                  two documents with one id
    │       └── DuplicateRecord          the same, of a line or row; a BadRecord too
    ├── BadVectors (ValueError)          arrays that break the contract of SparseVectors
    ├── VocabMismatch (ValueError)       two things were encoded in different term spaces
    ├── ModelMismatch (ValueError)       same term space, but weights of another model
    ├── ModelNotFound (LookupError)      no such bundled model, folder or hub id
    ├── BadModel (ValueError)            a model folder that is incomplete, inconsistent or too new
    ├── IndexNotFound (LookupError)      no index at that path
    ├── IndexExists (FileExistsError)    refusing to overwrite
    ├── UnfinishedBuild (FileExistsError) a build with other settings was interrupted there
    ├── IndexLocked (RuntimeError)       another process is writing; names it
    ├── CorruptIndex (ValueError)        a file is missing, short or fails its checksum; names the file
    ├── UnknownFormat (ValueError)       a format version this release cannot read
    ├── DocumentNotFound (LookupError)   no document with that id
    ├── StorageFull (OSError)            the disk is full; nothing was half-written
    ├── Unfit (ValueError)               vectors that an engine would refuse, or change without saying so
    ├── EngineError (RuntimeError)       a search engine said no; what it said is in the message
    │   └── EngineUnreachable            it is not there, too slow or overloaded: trying again may help
    ├── MissingExtra (ImportError)       an optional dependency; names the pip line
    ├── AccessDenied (PermissionError)   a server that wants a key, or another one, or is not to be changed
    ├── ServerError (RuntimeError)       a server that answered with a fault of its own, or with no answer of ours
    │   ├── ServerBusy                   it says: later; carries `retry_after`
    │   └── ServerUnreachable (ConnectionError)  no connection, a broken one, or no answer in time
    └── RunStopped (RuntimeError)        a training run that must not go on
        ├── DivergedRun                  its loss or gradient is no number any more
        └── CollapsedRun                 its sparse space no longer means the texts; see polylex.train.monitor

Each message gives the value, what was expected, and what to do next.
"""

from __future__ import annotations

import re
from unicodedata import east_asian_width


class PolylexError(Exception):
    """Base of every error raised on purpose."""


class BadInput(PolylexError, ValueError):
    """A record, text, file or argument that cannot be used."""


class BadRecord(BadInput):
    """One line or row of an input file that cannot be used.

    source  str  name of the file, or "<stdin>"
    line    int  1-based line (or row) number; 0 where the fault is the whole file
    reason  str  what is wrong and what was expected
    """

    def __init__(self, source: str, line: int, reason: str) -> None:
        super().__init__(f"{source}:{line}: {reason}" if line else f"{source}: {reason}")
        self.source, self.line, self.reason = source, line, reason


class BadFilter(BadInput):
    """An expression over document fields that cannot be read.

    reason  str  what is wrong and what was expected
    text    str  the expression; "" where it does not matter
    at      int  character of `text` at which it went wrong, from 0
    """

    def __init__(self, reason: str, text: str, at: int) -> None:
        before, after = (re.sub(r"\s", " ", part) for part in (text[max(0, at - 30) : at], text[at : at + 30]))
        # As wide as what stands above it, where Chinese characters take two columns.
        blank = "".join("\u3000" if east_asian_width(char) in "WF" else " " for char in before)
        place = f"\n  {before}{after}\n  {blank}^" if text else ""
        super().__init__(f"the filter cannot be read at character {at + 1}: {reason}{place}")
        self.reason, self.text, self.at = reason, text, at


class TextTooLong(BadInput):
    """A text with more characters than the caller allows."""


class OutOfReach(BadInput):
    """A target of size, latency or quality that no pruning meets."""


class DuplicateId(BadInput):
    """Two documents with one id."""


class RecordTooLong(BadRecord, TextTooLong):
    """A line, row or file that is longer than the caller allows."""


class DuplicateRecord(BadRecord, DuplicateId):
    """A line or row with an id that an earlier one has."""


class BadVectors(PolylexError, ValueError):
    """Arrays that break the contract of SparseVectors."""


class VocabMismatch(PolylexError, ValueError):
    """Two things were encoded in different term spaces."""


class ModelMismatch(PolylexError, ValueError):
    """Same term space, but the weights come from another model."""


class ModelNotFound(PolylexError, LookupError):
    """No bundled model, folder or hub repository of that name."""


class BadModel(PolylexError, ValueError):
    """A model folder that is incomplete, inconsistent or written by a newer release."""


class IndexNotFound(PolylexError, LookupError):
    """No index at that path."""


class IndexExists(PolylexError, FileExistsError):
    """An index is already there and overwriting was not asked for."""


class UnfinishedBuild(PolylexError, FileExistsError):
    """An interrupted build with other settings waits there to be continued."""


class IndexLocked(PolylexError, RuntimeError):
    """Another process is writing to the index."""


class CorruptIndex(PolylexError, ValueError):
    """A file of the index is missing, truncated or fails its checksum."""


class UnknownFormat(PolylexError, ValueError):
    """A format version that this release cannot read."""


class DocumentNotFound(PolylexError, LookupError):
    """No document with that id."""


class StorageFull(PolylexError, OSError):
    """The disk is full; what was there before is untouched."""


class Unfit(PolylexError, ValueError):
    """Vectors that an engine or format would refuse, or change without saying so."""


class EngineError(PolylexError, RuntimeError):
    """A search engine refused what was asked; what it said is in the message."""


class EngineUnreachable(EngineError):
    """A search engine is not there, answers too slowly or is overloaded: trying again may help."""


class MissingExtra(PolylexError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {package}, which is not installed. Run: pip install "polylex[{extra}]"')


class AccessDenied(PolylexError, PermissionError):
    """A server that wants an API key, or one with more rights, or that is not writable."""


class ServerError(PolylexError, RuntimeError):
    """A server that could not do what was asked, or whose answer is not one of a Polylex server.

    status  int  of HTTP; 0 where there was no answer
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ServerBusy(ServerError):
    """A server that has too much to do, is starting or is stopping; asked as often as the caller's Retries allow.

    retry_after  float  seconds that it asks to wait, 0 where it does not say
    """

    def __init__(self, message: str, status: int, retry_after: float) -> None:
        super().__init__(message, status)
        self.retry_after = retry_after


class ServerUnreachable(ServerError, ConnectionError):
    """A server that no connection led to, that broke it, or that did not answer in time."""


class RunStopped(PolylexError, RuntimeError):
    """A training run that must not go on; its last checkpoint is untouched."""


class DivergedRun(RunStopped):
    """The loss or the gradient is infinite or not a number."""


class CollapsedRun(RunStopped):
    """The monitor found empty, endless, or ungrounded vectors."""
