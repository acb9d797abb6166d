"""How long to wait between the tries of one operation, and when to give up."""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable
from typing import TypeVar

from attrs import frozen

from datastore.errors import Cancelled, ConfigError, DeadlineExceeded, StoreError, Throttled
from datastore.metric_names import Operation, RetryReason
from datastore.protocol import Reference
from datastore.wrappers.base import as_reference

__all__ = ["Backoff", "RetryEvent", "RetryPolicy"]

T = TypeVar("T")


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently to try; all times in seconds.

    The wait before try ``n + 1`` is random between zero and ``base_delay * factor ** (n - 1)``, at most ``max_delay``,
    so that clients which failed together do not come back together.  A server's own wish (Retry-After) is the least
    that is waited, up to ``max_delay``.  No new try begins once ``max_elapsed`` would have passed since the first
    failure (None: only ``attempts`` counts).
    """

    attempts: int = 5
    base_delay: float = 0.1
    factor: float = 2.0
    max_delay: float = 10.0
    max_elapsed: float | None = 60.0

    def __attrs_post_init__(self) -> None:
        for name, least in (("attempts", 1), ("base_delay", 0), ("factor", 1), ("max_delay", 0), ("max_elapsed", 0)):
            value = getattr(self, name)
            if not (value is None and name == "max_elapsed") and not value >= least:
                raise ConfigError(f"a retry policy's {name} is at least {least}, not {value!r}")

    def delay(self, failures: int, retry_after: float | None, jitter: float) -> float:
        """Seconds to wait after so many failures; ``jitter`` is a random number between 0 and 1."""
        # The exponent is bounded: a float overflows at 2 ** 1024.
        ceiling = min(self.max_delay, self.base_delay * self.factor ** min(failures - 1, 64))
        return max(jitter * ceiling, min(retry_after or 0.0, self.max_delay))


@frozen(kw_only=True)
class RetryEvent:
    """A failure after which an operation is tried again in ``delay`` seconds; ``attempt`` counts the tries so far."""

    operation: Operation
    reference: Reference
    attempt: int
    delay: float
    error: StoreError

    @property
    def reason(self) -> RetryReason:
        """What kind of failure it was."""
        if isinstance(self.error, Throttled):
            return RetryReason.THROTTLED
        if isinstance(self.error, TimeoutError) or isinstance(self.error.__cause__, TimeoutError):
            return RetryReason.TIMEOUT
        return RetryReason.CONNECTION if self.error.http_status is None else RetryReason.SERVER


class Backoff:
    """The failures of one operation, and the waits between its tries; used by one thread."""

    __slots__ = ("_failures", "_on_retry", "_operation", "_policy", "_random", "_reference", "_sleep", "_until")

    def __init__(
        self,
        policy: RetryPolicy,
        operation: Operation,
        reference: Reference,
        on_retry: Callable[[RetryEvent], None] | None,
        sleep: Callable[[float], None],
        random: Callable[[], float] | None,
    ) -> None:
        self._policy = policy
        self._operation = operation
        self._reference = reference
        self._on_retry = on_retry
        self._sleep = sleep
        self._random = random or _random.random
        self._failures = 0
        self._until: float | None = None

    def run(self, error: StoreError, call: Callable[[], T]) -> T:
        """Waits and calls until it succeeds, fails for good, or the policy gives up."""
        while self.wait(error):
            try:
                return call()
            except StoreError as failure:
                error = failure
        raise error

    def wait(self, error: StoreError) -> bool:
        """Waits before the next try; False when there is to be none.

        Raises:
            DeadlineExceeded, Cancelled: the context ends before the wait would; from ``error``.
        """
        if not error.retryable:
            return False
        self._failures += 1
        policy, now = self._policy, time.monotonic()
        if self._until is None and policy.max_elapsed is not None:
            self._until = now + policy.max_elapsed
        delay = policy.delay(self._failures, error.retry_after, self._random())
        if self._failures >= policy.attempts or (self._until is not None and now + delay > self._until):
            if policy.attempts > 1:
                error.hint = error.hint or f"given up after {self._failures} tries"
            return False
        if self._on_retry is not None:
            self._on_retry(
                RetryEvent(
                    operation=self._operation,
                    reference=self._reference,
                    attempt=self._failures,
                    delay=delay,
                    error=error,
                )
            )
        try:
            self._sleep(delay)
        except (DeadlineExceeded, Cancelled) as over:
            over.hint = over.hint or f"before that: {error.message}"
            raise over.about(self._operation.value, as_reference(self._reference)) from error
        return True
