"""Guard: what stands between the network and the application: limits of size and time, headers, a line in the log.

Whatever happens inside, a client gets an answer that is complete, honest about what to do next, and says nothing of
how the server is made.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.exceptions import HTTPException

from polylex.errors import PolylexError
from polylex.server.journal import note
from polylex.server.metrics import Metrics
from polylex.server.problems import MEDIA_TYPE, Problem, busy, problem_of
from polylex.server.settings import Settings

Scope = MutableMapping[str, Any]
ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_DEFAULTS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_HSTS = "max-age=31536000"
_UNLIMITED = ("/health", "/health/live", "/health/ready", "/metrics")  # a busy server must still say that it is


@dataclass(slots=True)
class _Exchange:
    """A request and what became of it so far."""

    scope: Scope
    id: str
    started: float = field(default_factory=time.perf_counter)
    received: int = 0
    status: int = 0
    begun: bool = False

    @property
    def route(self) -> str:
        return str(self.scope.get("route_name", "other"))


class Guard:
    """Wraps an ASGI application."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._limits = settings.limits
        self._names = settings.names
        self._metrics = metrics
        self._hidden = (os.path.realpath(settings.index), os.path.abspath(settings.index), settings.index)
        self._under_way = self._reading = 0
        self._always = dict(_SECURITY)
        if settings.tls_cert is not None:
            self._always["strict-transport-security"] = _HSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, _request_id(scope))
        answer = self._answering(exchange, send)
        self._under_way += 1
        self._metrics.in_flight.set(self._under_way)
        try:
            await self._attempt(exchange, receive, answer)
        finally:
            self._under_way -= 1
            self._metrics.in_flight.set(self._under_way)
            self._record(exchange)

    async def _attempt(self, exchange: _Exchange, receive: Receive, send: Send) -> None:
        try:
            self._admit(exchange)
            with anyio.fail_after(self._limits.request_seconds):
                await self._app(exchange.scope, self._receiving(exchange, receive), send)
            return
        except Problem as found:
            problem = found
        except PolylexError as error:
            problem = problem_of(error, self._hidden)
            if problem.status >= 500:
                note("error", level=logging.ERROR, error=error, request=exchange.id, route=exchange.route)
        except HTTPException as error:
            problem = Problem(error.status_code, _SAID.get(error.status_code, error.detail), headers=error.headers)
        except TimeoutError:
            self._metrics.refused.labels("time").inc()
            problem = busy(f"No answer within {self._limits.request_seconds:g} seconds.", 2)
        except _Gone:
            return
        except Exception as error:  # whatever it is: the client gets an answer, the log gets the trace
            note("error", level=logging.ERROR, error=error, request=exchange.id, route=exchange.route)
            problem = Problem(500, "The server could not do this; its log says why.")
        if not exchange.begun:
            await self._refuse(exchange, problem, send)

    # -- before ----------------------------------------------------------------------------------

    def _admit(self, exchange: _Exchange) -> None:
        """Raise a Problem for a request that is not even looked at."""
        scope = exchange.scope
        if self._under_way - self._reading > self._limits.requests and scope["path"] not in _UNLIMITED:
            self._metrics.refused.labels("requests").inc()
            raise busy("The server is busy.", 1)
        if self._names is not None and _host(scope) not in self._names:
            raise Problem(421, "The server is not called that; allow the name with --host-name.")
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> Problem:
        self._metrics.refused.labels("body").inc()
        return Problem(
            413, f"The body is larger than {self._limits.body_bytes:,} bytes.", headers={"Connection": "close"}
        )

    def _receiving(self, exchange: _Exchange, receive: Receive) -> Receive:
        end = exchange.started + self._limits.read_seconds
        complete = False

        async def limited() -> ASGIMessage:
            nonlocal complete
            if complete:  # what comes now is the end of the connection, for which one may wait
                return await receive()
            self._reading += 1  # those who are slow to send keep nobody else out
            try:
                with anyio.fail_after(max(0.001, end - time.perf_counter())):
                    message = await receive()
            except TimeoutError:
                self._metrics.refused.labels("slow").inc()
                raise Problem(
                    408,
                    f"The body did not arrive within {self._limits.read_seconds:g} seconds.",
                    headers={"Connection": "close"},
                ) from None
            finally:
                self._reading -= 1
            if message["type"] == "http.disconnect":
                raise _Gone
            exchange.received += len(message.get("body", b""))
            if exchange.received > self._limits.body_bytes:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        return limited

    # -- after -----------------------------------------------------------------------------------

    def _answering(self, exchange: _Exchange, send: Send) -> Send:
        async def complete(message: ASGIMessage) -> None:
            if message["type"] == "http.response.start":
                exchange.begun, exchange.status = True, message["status"]
                message["headers"] = self._headers(exchange, message.get("headers", []))
            try:
                await send(message)
            except (RuntimeError, OSError):  # the connection was closed meanwhile; event loops say so in two ways
                raise _Gone from None

        return complete

    def _headers(self, exchange: _Exchange, own: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in own}
        more = {**self._always, **{name: value for name, value in _DEFAULTS.items() if name.encode() not in given}}
        more["x-request-id"] = exchange.id
        return [*own, *((name.encode(), value.encode()) for name, value in more.items())]

    async def _refuse(self, exchange: _Exchange, problem: Problem, send: Send) -> None:
        body = problem.body()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
        start = {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})

    def _record(self, exchange: _Exchange) -> None:
        seconds, method = time.perf_counter() - exchange.started, str(exchange.scope["method"])
        known = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self._metrics.requests.labels(exchange.route, known, str(exchange.status)).inc()
        self._metrics.seconds.labels(exchange.route).observe(seconds)
        client = exchange.scope.get("client")
        note(
            "request",
            request=exchange.id,
            method=known,
            route=exchange.route,
            status=exchange.status,
            ms=round(seconds * 1e3, 2),
            bytes_in=exchange.received,
            client=client[0] if client else None,
            key=exchange.scope.get("key_name"),
        )


class _Gone(Exception):
    """The client has left."""


_SAID = {404: "There is nothing here.", 405: "This address does not know that method."}


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (lower case)."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _host(scope: Scope) -> str:
    """The name under which we are called, without its port."""
    host = header(scope, b"host") or ""
    return re.sub(r":\d*$", "", host).lower()


def _request_id(scope: Scope) -> str:
    """What the client calls the request, if that can stand in a header and in a log; else a name of our own."""
    given = header(scope, b"x-request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
