"""Process: run the server, as one process or as several that share a socket and an index."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable

import uvicorn
from uvicorn.supervisors import Multiprocess

from polylex.errors import BadInput
from polylex.server.settings import Settings

_SETTINGS, _LEVEL = "POLYLEX_SERVE", "POLYLEX_SERVE_LOG"  # what a worker process is told
_METRICS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks at it when it is imported
_BACKLOG = 512


def serve(settings: Settings, *, log_level: str = "info", on_listening: Callable[[int], None] | None = None) -> None:
    """Serve until a signal (INT, TERM) comes; then requests under way end first.

    on_listening  is told the port, once there is one; connections wait until the index is open

    Raises BadInput for an address that cannot be had.
    """
    listening = _listen(settings)
    try:
        if on_listening is not None:
            on_listening(listening.getsockname()[1])
        os.environ[_SETTINGS], os.environ[_LEVEL] = settings.to_json(), log_level
        config = _config(settings, log_level)
        if settings.workers > 1:
            with tempfile.TemporaryDirectory(prefix="polylex-metrics-") as folder:
                os.environ[_METRICS] = folder
                Multiprocess(config, [listening]).run()
        else:
            # uvicorn sends itself the signal again when it is done; to be told to end is no failure
            signal.signal(signal.SIGTERM, lambda *_: None)
            uvicorn.Server(config).run([listening])
    finally:
        listening.close()


def worker() -> Callable[..., object]:
    """The application in a process of its own, made from what the environment says."""
    from polylex.server import journal
    from polylex.server.app import application
    from polylex.server.metrics import bury
    from polylex.server.protocol import GuardedProtocol

    settings = Settings.from_json(os.environ[_SETTINGS])
    journal.begin(os.environ[_LEVEL])
    GuardedProtocol.seconds = settings.limits.read_seconds
    GuardedProtocol.connections_limit = settings.limits.connections
    bury()
    return application(settings)


def _config(settings: Settings, log_level: str) -> uvicorn.Config:
    from polylex.server.protocol import GuardedProtocol

    return uvicorn.Config(
        "polylex.server.process:worker",
        factory=True,
        http=GuardedProtocol,
        ws="none",
        lifespan="on",
        workers=settings.workers,
        log_config=None,
        log_level=log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.limits.idle_seconds,
        timeout_graceful_shutdown=settings.limits.shutdown_seconds,
        timeout_worker_healthcheck=60,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _listen(settings: Settings) -> socket.socket:
    try:
        ((family, kind, _, _, address), *_) = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as fault:
        raise BadInput(
            f"cannot listen on {settings.host} port {settings.port} ({fault.strerror or fault}); "
            "give another --port or --host"
        ) from None
    listening.set_inheritable(True)
    return listening
