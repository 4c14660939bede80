"""The MCP server over HTTP (streamable HTTP, at /mcp), for assistants on other machines.

Every request stands for itself: there are no sessions to keep, so a proxy may spread requests over several servers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.responses import JSONResponse

from polylex.errors import BadInput
from polylex.server.keys import KeyRing
from polylex.server.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/mcp"
_BODY_BYTES = 1 << 20
_CONNECTIONS = 64


class KeyGuard:
    """Lets pass only requests with a key: `Authorization: Bearer KEY`, or `X-API-Key: KEY`."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http" and self._keys.find(_secret(scope)) is None:
            refused = JSONResponse({"error": "give an API key"}, 401, headers={"WWW-Authenticate": "Bearer"})
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _secret(scope: Scope) -> str:
    headers: dict[bytes, str] = {name: value.decode("latin-1") for name, value in scope["headers"]}
    scheme, _, secret = headers.get(b"authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else headers.get(b"x-api-key", "")


def application(server: MCPServer, host: str = "127.0.0.1", keys: KeyRing | None = None) -> ASGIApp:
    """The ASGI application. On loopback it answers only calls under names of this machine. Raises BadInput.

    Beyond this machine keys are asked for.
    """
    if keys is None and not is_loopback(host):
        raise BadInput(
            f"listening on {host} lets others on the network read this index, and there are no API keys. "
            "Make some with `polylex keys add` and give --keys FILE"
        )
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=True,
        max_request_body_size=_BODY_BYTES,
        host=host,
    )
    return app if keys is None else KeyGuard(app, keys)


def run(
    server: MCPServer, host: str, port: int, keys: KeyRing | None, on_listening: Callable[[int], None] | None = None
) -> None:
    """Serve until Ctrl-C or SIGTERM; `on_listening` is told the port. Raises BadInput for an address not to be had."""
    app = application(server, host, keys)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=_CONNECTIONS, server_header=False)
    with _listen(host, port) as listener:  # connections wait there until the server takes them
        if on_listening is not None:
            on_listening(listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as fault:
        raise BadInput(
            f"cannot listen on {host} port {port} ({fault.strerror or fault}); give another --port or --host"
        ) from None
