"""Problems: errors as clients see them (RFC 9457), without a path, a trace or anything else that is ours to know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from polylex.errors import (
    BadFilter,
    BadInput,
    BadVectors,
    DocumentNotFound,
    DuplicateId,
    IndexLocked,
    IndexNotFound,
    ModelMismatch,
    PolylexError,
    StorageFull,
    TextTooLong,
    VocabMismatch,
)

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error.

    status   int   of HTTP
    detail   str   one or more sentences for people: what was wrong, what was expected
    headers  dict  such as Retry-After
    more     dict  further members, such as `at`
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:  # noqa: ANN401
        super().__init__(detail)
        self.status, self.detail, self.more = status, detail, more
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """As application/problem+json."""
        table = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        return json.dumps({**table, "detail": self.detail, **self.more}, ensure_ascii=False).encode("utf-8", "replace")


def busy(detail: str, seconds: float = 1, *, status: int = 503) -> Problem:
    """A request that may be repeated after some seconds."""
    return Problem(status, detail, headers={"Retry-After": str(max(1, round(seconds)))})


def problem_of(error: PolylexError, hidden: Sequence[str] = ()) -> Problem:
    """An error of the library as a client may see it; 500 for what is not the client's fault.

    hidden  paths that are ours to know
    """
    if isinstance(error, BadFilter):
        return Problem(422, f"The filter cannot be read: {error.reason}.", at=error.at)
    if isinstance(error, DocumentNotFound):
        return Problem(404, "No document with that id; ids are compared exactly.")
    if isinstance(error, DuplicateId):
        return Problem(409, "A document with one of these ids is there already, or given twice; use mode 'upsert'.")
    if isinstance(error, IndexLocked):
        return busy("Another process is writing to the index.", 5)
    if isinstance(error, StorageFull):
        return Problem(507, "The disk is full; nothing was changed.")
    if isinstance(error, IndexNotFound):
        return busy("The index is not there.", 30)
    if isinstance(error, VocabMismatch | ModelMismatch):
        return busy("The index was replaced by one of another model; the server must be started again.", 30)
    if isinstance(error, TextTooLong):
        return Problem(413, _without(hidden, str(error)))
    if isinstance(error, BadInput | BadVectors):
        return Problem(422, _without(hidden, str(error)))
    return Problem(500, "The server could not do this; its log says why.")


def _without(hidden: Sequence[str], text: str) -> str:
    for path in hidden:
        text = text.replace(path, "the index")
    return text
