"""Rates: how many requests a second each caller may make."""

from __future__ import annotations

import time
from collections import OrderedDict

from polylex.server.problems import busy

_BURST = 2.0  # seconds of requests that may come at one time
_CALLERS = 10_000  # remembered; those who came longest ago start anew


class Rates:
    """A bucket of tokens a caller, filled at `rate` a second. 0: no limit. Of one worker, from one thread."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._full = max(1.0, rate * _BURST)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, caller: str, *, now: float | None = None) -> None:
        """Count a request. Raises a Problem (429) where there were too many."""
        if self._rate == 0:
            return
        now = time.monotonic() if now is None else now
        tokens, since = self._buckets.pop(caller, (self._full, now))
        tokens = min(self._full, tokens + (now - since) * self._rate)
        self._buckets[caller] = (tokens - 1 if tokens >= 1 else tokens), now
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise busy(f"At most {self._rate:g} requests a second.", (1 - tokens) / self._rate, status=429)
