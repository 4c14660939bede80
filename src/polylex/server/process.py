"""Process: run the server, as one process or as several that share a socket and an index."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.supervisors import Multiprocess

from polylex.errors import BadInput
from polylex.server.settings import Settings

if TYPE_CHECKING:
    from polylex.server.guard import App
    from polylex.server.service import Service

_SETTINGS, _LEVEL = "POLYLEX_SERVE", "POLYLEX_SERVE_LOG"  # what a worker process is told
_METRICS = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks at it when it is imported
_BACKLOG = 512


def serve(settings: Settings, *, log_level: str = "info", on_listening: Callable[[int], None] | None = None) -> None:
    """Serve until a signal (INT, TERM) comes; then requests under way end first.

    on_listening  is told the port, once there is one; connections wait until the index is open

    Raises BadInput for an address that cannot be had or a certificate that cannot be used, and as Service.open.
    """
    _check_certificate(settings)
    service = _opened(settings)
    listening = _listen(settings)
    try:
        if on_listening is not None:
            on_listening(listening.getsockname()[1])
        if service is None:
            _serve_with_workers(settings, log_level, listening)
        else:
            # uvicorn sends itself the signal again when it is done; to be told to end is no failure
            signal.signal(signal.SIGTERM, lambda *_: None)
            uvicorn.Server(_config(_application(settings, log_level, service), settings, log_level)).run([listening])
    finally:
        listening.close()


def _opened(settings: Settings) -> Service | None:
    """For a single worker. Several open their own; here they are spared to find, one by one, that it cannot be."""
    from polylex.server.service import Service

    service = Service.open(settings)
    if settings.workers == 1:
        return service
    service.close()
    return None


def _serve_with_workers(settings: Settings, log_level: str, listening: socket.socket) -> None:
    os.environ[_SETTINGS], os.environ[_LEVEL] = settings.to_json(), log_level
    with tempfile.TemporaryDirectory(prefix="polylex-metrics-") as folder:
        os.environ[_METRICS] = folder
        config = _config("polylex.server.process:worker", settings, log_level, factory=True)
        Multiprocess(config, [listening]).run()


def worker() -> App:
    """The application in a process of its own, made from what the environment says."""
    from polylex.server.metrics import bury

    bury()
    return _application(Settings.from_json(os.environ[_SETTINGS]), os.environ[_LEVEL])


def _application(settings: Settings, log_level: str, service: Service | None = None) -> App:
    from polylex.server import journal
    from polylex.server.app import application
    from polylex.server.protocol import GuardedProtocol

    journal.begin(log_level)
    GuardedProtocol.seconds = settings.limits.read_seconds
    GuardedProtocol.connections_limit = settings.limits.connections
    return application(settings, service)


def _config(app: App | str, settings: Settings, log_level: str, *, factory: bool = False) -> uvicorn.Config:
    from polylex.server.protocol import GuardedProtocol

    return uvicorn.Config(
        app,
        factory=factory,
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


def _check_certificate(settings: Settings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as fault:  # what ssl raises, too
        raise BadInput(
            f"the certificate {settings.tls_cert} and the key {settings.tls_key} cannot be used "
            f"({fault.strerror or fault}); both are PEM files, and the key is the certificate's own"
        ) from None


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
