"""Metrics: what the server counts, in the text format of Prometheus."""

from __future__ import annotations

import os
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where several workers put their counts together
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counts of one worker; with several workers `text` adds all of them up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter("polylex_requests", "Requests answered.", ("route", "method", "status"), registry=own)
        self.seconds = Histogram(
            "polylex_request_seconds", "From header to answer.", ("route",), buckets=_SECONDS, registry=own
        )
        self.encode_seconds = Histogram(
            "polylex_encode_batch_seconds", "Encoding a batch of texts.", buckets=_SECONDS, registry=own
        )
        self.batch_texts = Histogram("polylex_encode_batch_texts", "Texts of a batch.", buckets=_TEXTS, registry=own)
        self.search_seconds = Histogram(
            "polylex_search_seconds", "Searching, without encoding.", buckets=_SECONDS, registry=own
        )
        self.commit_seconds = Histogram(
            "polylex_commit_seconds", "Making changes durable.", buckets=_SECONDS, registry=own
        )
        self.refused = Counter("polylex_refused", "Requests refused, by reason.", ("reason",), registry=own)
        self.waiting = Gauge(
            "polylex_waiting_texts", "Texts that wait to be encoded.", registry=own, multiprocess_mode="livesum"
        )
        self.in_flight = Gauge(
            "polylex_requests_in_flight", "Requests under way.", registry=own, multiprocess_mode="livesum"
        )
        self.documents = Gauge(
            "polylex_documents", "Documents in the index.", registry=own, multiprocess_mode="livemostrecent"
        )
        self.generation = Gauge(
            "polylex_index_generation", "Transactions of the index.", registry=own, multiprocess_mode="livemostrecent"
        )

    def on_batch(self, texts: int, seconds: float, waiting: int) -> None:
        """Count a batch of texts."""
        self.waiting.set(waiting)
        self.batch_texts.observe(texts)
        self.encode_seconds.observe(seconds)

    def text(self) -> bytes:
        """Everything."""
        if _FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def bury() -> None:
    """Forget what workers that are dead had under way; what they counted stays."""
    if _FOLDER not in os.environ:
        return
    for file in Path(os.environ[_FOLDER]).glob("gauge_*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found is not None and not _is_alive(int(found[1])):
            mark_process_dead(int(found[1]))  # type: ignore[no-untyped-call]


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where a signal 0 is none
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
