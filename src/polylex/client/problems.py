"""Problems: what a server refuses (RFC 9457), as the errors that the library raises for the same mistake."""

from __future__ import annotations

from typing import Any

from httpx2 import Response

from polylex.client.calls import Call
from polylex.errors import (
    AccessDenied,
    BadFilter,
    BadInput,
    DocumentNotFound,
    DuplicateId,
    PolylexError,
    ServerBusy,
    ServerError,
    StorageFull,
)

MEDIA_TYPE = "application/problem+json"
BUSY = frozenset({429, 502, 503})  # said before the call is begun; by a proxy also where its server went away

_FILTER = "The filter cannot be read: "
_ERRORS: dict[int, type[PolylexError]] = {
    400: BadInput,
    401: AccessDenied,
    403: AccessDenied,
    409: DuplicateId,
    413: BadInput,
    422: BadInput,
    507: StorageFull,
}


def problem(response: Response, call: Call[Any], address: str, retry_after: float) -> PolylexError:
    """The error that an answer with a status of 300 or more means."""
    told = _told(response)
    status, detail = response.status_code, str(told.get("detail") or response.reason_phrase or "no reason given")
    message = f"{address} refused {call.method} {call.path} ({status}): {detail}"
    if status == 422 and isinstance(at := told.get("at"), int):
        return BadFilter(detail.removeprefix(_FILTER).removesuffix("."), call.where, at)
    if status == 404 and told and call.id is not None:
        return DocumentNotFound(f"no document with id {call.id!r} at {address}; ids are compared exactly")
    if status in BUSY:
        return ServerBusy(f"{message} Asked to wait {retry_after:.0f} s.", status, retry_after)
    if status in _ERRORS:
        return _ERRORS[status](message)
    return ServerError(message, status)


def _told(response: Response) -> dict[str, Any]:
    """The members of a problem; none where the answer is something else, such as the page of a proxy."""
    if not response.headers.get("content-type", "").startswith(MEDIA_TYPE):
        return {}
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
