"""What one caller may ask of a gateway: how many uploads, how often, how much, for how long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lakehouse.catalog import work_limit
from lakehouse.catalog.errors import BadRequestError, ResourceExhaustedError
from lakehouse.catalog.settings import Settings

# A caller who paused may catch up on so many seconds.
BURST_S = 10.0
# Callers that were quiet this long have a full bucket again, and are forgotten.
_FORGET_AFTER_S = BURST_S
_FORGET_EVERY = 1000
_T = TypeVar("_T")


class TooManyCallsError(ResourceExhaustedError):
    """A caller exceeds its rate.

    Attributes:
        retry_after_s: When the next call will be answered, seconds from now.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many calls with this API key; try again in {retry_after_s:.2f} s")
        self.retry_after_s = retry_after_s


class RateLimit:
    """A token bucket per caller.

    Args:
        calls_per_second: On average; 0 for no limit.
        clock: Seconds.
    """

    def __init__(self, calls_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = calls_per_second
        self._burst = max(1.0, calls_per_second * BURST_S)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        self._taken = 0

    def take(self, caller: str) -> None:
        """Count one call.

        Raises:
            TooManyCallsError: If it is one too many; it is not counted then.
        """
        if not self._rate:
            return
        now = self._clock()
        with self._lock:
            tokens, since = self._buckets.get(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            if tokens < 1:
                raise TooManyCallsError((1 - tokens) / self._rate)
            self._buckets[caller] = (tokens - 1, now)
            self._taken += 1
            if self._taken % _FORGET_EVERY == 0:
                quiet = [each for each, (_, last) in self._buckets.items() if now - last > _FORGET_AFTER_S]
                for each in quiet:
                    del self._buckets[each]


class RequestLimits:
    """The limits of one gateway, from its settings."""

    def __init__(self, settings: Settings) -> None:
        self.rate = RateLimit(settings.key_rate_limit)
        self._max_uploads = settings.max_open_uploads
        self._max_body = settings.max_request_body
        self._query_seconds = float(settings.query_time_limit or "inf")
        self._uploads = 0
        self._lock = threading.Lock()

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Take part in the number of open uploads.

        Raises:
            ResourceExhaustedError: If there are too many.
        """
        with self._lock:
            if self._uploads >= self._max_uploads:
                raise ResourceExhaustedError(
                    f"this server has {self._uploads} uploads open, which is its limit; finish some of them first"
                )
            self._uploads += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploads -= 1

    def check_body(self, body_size: int) -> None:
        """Refuse what would not fit into memory once it is parsed.

        Raises:
            BadRequestError: If it is too large.
        """
        if body_size > self._max_body:
            raise BadRequestError(f"the request holds {body_size:,} bytes; at most {self._max_body:,} are accepted")

    def timed(self, work: Callable[[], _T]) -> _T:
        """Do a piece of work within the time limit of queries.

        Raises:
            ResourceExhaustedError: If it takes too long.
        """
        with work_limit.limited(self._query_seconds):
            return work()

    def timed_results(self, results: Iterator[_T]) -> Iterator[_T]:
        """Results as they come; the time that the client takes to fetch them does not count.

        Raises:
            ResourceExhaustedError: If making them takes too long.
        """
        remaining = self._query_seconds
        while True:
            started = time.monotonic()
            with work_limit.limited(remaining):
                try:
                    result = next(results)
                except StopIteration:
                    return
            remaining -= time.monotonic() - started
            yield result


def retry_hint(error: TooManyCallsError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata that tells clients when to come again, as gRPC's retry policy reads it (gRFC A6)."""
    return (("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000) + 1)),)
