"""Protocol: HTTP/1.1 as uvicorn reads it, for clients that are slow, greedy or too many."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from polylex.server.problems import MEDIA_TYPE, Problem, busy

HEADER_BYTES = 32_768


class GuardedProtocol(HttpToolsProtocol):
    """Ends a connection that is one too many, whose header comes too slowly or is too large, or that takes no answer.

    `polylex.server.process` sets the limits of its class.
    """

    seconds = 10.0
    connections_limit = 1024

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - as uvicorn has it
        super().__init__(*arguments, **named)
        self._header_bytes = 0
        self._in_header = True
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a header."""
        super().connection_made(transport)
        if len(self.connections) > self.connections_limit:
            self._end(busy("Too many connections."))
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    # -- header ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Count what comes before the end of a header."""
        if self.transport.is_closing():
            return
        if self._in_header:
            self._header_bytes += len(data)
            if self._patience is None:
                self._wait()
        super().data_received(data)
        if self._in_header and self._header_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._end(Problem(431, f"The header is larger than {HEADER_BYTES:,} bytes."))

    def on_headers_complete(self) -> None:
        """The header is here; what follows is the Guard's business."""
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > HEADER_BYTES:
            raise ValueError("header too large")  # the parser reports that, so that `send_400_response` is called
        self._in_header = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another header."""
        super().on_message_complete()
        self._in_header, self._header_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request."""
        self._end(Problem(400, "This is no request of HTTP/1.1, or its header is too large."))

    def _end(self, problem: Problem) -> None:
        """Answer without the application, and close."""
        body = problem.body()
        lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}", f"content-type: {MEDIA_TYPE}"]
        lines += [f"content-length: {len(body)}", "connection: close", "x-content-type-options: nosniff"]
        lines += [f"{name.lower()}: {value}" for name, value in problem.headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
        self.transport.close()

    # -- answer ----------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client takes its answer slowly: begin to wait."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """It took some."""
        super().resume_writing()
        self._stop_waiting()

    # -- patience --------------------------------------------------------------------------------

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(self.seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self.transport.abort()  # `close` would wait for what the client does not take
