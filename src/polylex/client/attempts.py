"""Attempts: whether and when a call is sent again, and what comes of the last one. No network in here, and no clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

from httpx2 import ConnectError, ConnectTimeout, PoolTimeout, RequestError, Response, TimeoutException

from polylex.client.calls import Call
from polylex.client.problems import BUSY, problem
from polylex.errors import BadInput, ServerError, ServerUnreachable

T = TypeVar("T")
Outcome: TypeAlias = "Response | RequestError"

_NOTHING_SENT = (ConnectError, ConnectTimeout, PoolTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often, and after how long, a call is sent again.

    A server that is busy (429, 502, 503) or cannot be reached is asked again, and so is one that broke the connection.
    One that is too slow is not: asking again would make it slower. Waits grow twofold, are drawn at random below that,
    and are never shorter than the server's Retry-After.

    attempts    int    how often a call is sent at most; 1: never again
    first_s     float  seconds, upper bound of the first wait
    longest_s   float  seconds, upper bound of every wait; a Retry-After beyond it is an error at once
    all_calls   bool   repeat `add` as well, which may then fail with DuplicateId although it was done; without this
                       it is repeated only where no connection came about
    """

    attempts: int = 4
    first_s: float = 0.25
    longest_s: float = 10.0
    all_calls: bool = False

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise BadInput(f"attempts counts the first one too, so it must be at least 1, got {self.attempts}")
        if not 0 <= self.first_s <= self.longest_s:
            raise BadInput(f"0 <= first_s <= longest_s must hold, got {self.first_s} and {self.longest_s} seconds")


class Attempts:
    """One call on its way through its attempts."""

    def __init__(self, retries: Retries, *, repeatable: bool, chance: Callable[[], float] = random.random) -> None:
        self._retries = retries
        self._repeatable = repeatable or retries.all_calls
        self._chance = chance
        self._made = 0

    def pause_after(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next attempt; None where there is to be none."""
        self._made += 1
        if self._made >= self._retries.attempts or not self._may_repeat(outcome):
            return None
        wished = retry_after(outcome) if isinstance(outcome, Response) else 0.0
        if wished > self._retries.longest_s:
            return None
        bound = min(self._retries.longest_s - wished, self._retries.first_s * 2.0 ** (self._made - 1))
        return wished + self._chance() * bound

    def _may_repeat(self, outcome: Outcome) -> bool:
        if isinstance(outcome, Response):
            return self._repeatable and outcome.status_code in BUSY
        if isinstance(outcome, _NOTHING_SENT):
            return True
        return self._repeatable and not isinstance(outcome, TimeoutException)


def retry_after(response: Response) -> float:
    """Seconds that a server asks to wait, from now; 0 where it does not, or not readably."""
    wish = response.headers.get("retry-after", "").strip()
    if wish.isascii() and wish.isdigit():
        return float(wish)
    try:
        then = parsedate_to_datetime(wish)
    except ValueError:
        return 0.0
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    return max(0.0, (then - datetime.now(timezone.utc)).total_seconds())


def result(call: Call[T], outcome: Outcome, address: str) -> T:
    """What the call returns. Raises the error that the server, or the connection to it, means."""
    if isinstance(outcome, RequestError):
        what = "did not answer in time" if isinstance(outcome, TimeoutException) else "cannot be reached"
        reason = str(outcome) or type(outcome).__name__
        raise ServerUnreachable(
            f"{address} {what}: {reason}. Is a server running there (`polylex serve`), and is `timeout_s` long enough?"
        ) from outcome
    if not outcome.is_success:
        raise problem(outcome, call, address, retry_after(outcome))
    try:
        return call.read(outcome.json())
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise ServerError(
            f"{address}{call.path} answered with what is no answer of a Polylex server of this release "
            f"({type(fault).__name__}: {fault}); check the address and the versions of both",
            outcome.status_code,
        ) from fault
