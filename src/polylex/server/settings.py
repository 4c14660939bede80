"""Settings: all that one server is told, in a form that its worker processes are told the same."""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from polylex.errors import BadInput

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may cost. Counts are of one worker.

    body_bytes       of a request
    query_chars      characters of a query
    document_chars   characters of a document's text, or of a text to encode
    texts            texts, documents or ids of one request
    hits             k of a search
    explained        hits of a search that are explained; each costs an encoding
    waiting          texts that wait to be encoded; more are refused with 503
    requests         requests under way; more are refused with 503
    connections      open connections; more are refused with 503, before anything is read
    rate             requests a second of one key, or of one address without keys; more are refused with 429; 0: any
    batch            texts encoded in one go
    batch_wait_ms    how long a text waits for others to join it
    request_seconds  until an answer must be there, else 503
    read_seconds     for the header, and for the body, to arrive; and for a client to take its answer
    idle_seconds     of a connection between two requests
    lock_seconds     that a write waits for the index while another process writes to it
    shutdown_seconds for requests under way to end
    cached_queries   queries whose vectors are kept
    preview_bytes    memory for searching as if the index had been pruned
    """

    body_bytes: int = 4 << 20
    query_chars: int = 4_000
    document_chars: int = 100_000
    texts: int = 100
    hits: int = 1_000
    explained: int = 20
    waiting: int = 512
    requests: int = 256
    connections: int = 1_024
    rate: float = 0.0
    batch: int = 4
    batch_wait_ms: float = 0.0
    request_seconds: float = 30.0
    read_seconds: float = 10.0
    idle_seconds: int = 30
    lock_seconds: float = 10.0
    shutdown_seconds: int = 20
    cached_queries: int = 4_096
    preview_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for each in fields(self):
            least = 0 if each.name in _MAY_BE_0 else 1 if each.type == "int" else 0.001
            if getattr(self, each.name) < least:
                raise BadInput(f"{each.name} must be at least {least}, got {getattr(self, each.name)}")


_MAY_BE_0 = ("rate", "batch_wait_ms", "cached_queries", "explained", "preview_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server.

    index              folder of the index
    model              what to encode with; None: the model that the index was made with
    host, port         where to listen
    workers            processes
    threads            texts that a worker encodes at one time; None: the cores, shared out among the workers
    writable           whether documents may be added and deleted
    keys               file of API keys (polylex.server.keys); None: no key is asked for
    public             whether to listen beyond this machine although there are no keys
    origins            origins that browsers may call from (CORS)
    hosts              names under which the server may be called, besides those of this machine; "*": any
    tls_cert, tls_key  PEM files; both or none
    """

    index: str
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    workers: int = 1
    threads: int | None = None
    writable: bool = False
    keys: str | None = None
    public: bool = False
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.keys is None and not self.public:
            raise BadInput(
                f"listening on {self.host} lets others on the network search this index, and there are no API keys. "
                "Make some with `polylex keys add` and give --keys FILE, or say --public if a proxy guards the server"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadInput("TLS needs a certificate and its key; give --tls-cert and --tls-key")
        if self.writable and self.workers > 1 and os.name == "nt":
            raise BadInput("on Windows only one worker may write; give --workers 1")

    @property
    def lanes(self) -> int:
        """Texts that a worker encodes at one time."""
        if self.threads is not None:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.workers)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names under which the server may be called; None: any.

        A web page elsewhere can make a name of its own mean this machine; a server without keys must not answer to it.
        """
        if "*" in self.hosts or (not is_loopback(self.host) and not self.hosts):
            return None
        own = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(name.lower() for name in (*self.hosts, own, *_LOOPBACK_NAMES))

    def to_json(self) -> str:
        """For `from_json`, in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """`to_json` backwards."""
        table: dict[str, Any] = json.loads(text)
        for name in ("origins", "hosts"):
            table[name] = tuple(table[name])
        return cls(**{**table, "limits": Limits(**table["limits"])})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
