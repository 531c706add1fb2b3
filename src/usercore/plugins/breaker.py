"""A circuit breaker: a vendor that does not answer is left alone for a while, then one call tries."""

import time
from collections.abc import Callable


class Breaker:
    """Opens after so many failures in a row. In each pause afterwards one call, the probe, may go on.

    What calls that began before it opened have to say does not count any more.
    """

    def __init__(
        self,
        failures: int,
        pause_s: float,
        changed: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed` is told when it opens (true) and closes."""
        self._limit = failures
        self._pause_s = pause_s
        self._changed = changed
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._probe: Pass | None = None

    def enter(self) -> "Pass | float":
        """A pass for one call, or in how many seconds to come again."""
        if self._open_until is None:
            return Pass(self)
        wait = self._open_until - self._clock()
        if wait > 0 or self._probe is not None:
            return max(wait, 0.0) or self._pause_s
        self._probe = Pass(self)
        return self._probe

    def _answered(self, call: "Pass") -> None:
        if self._open_until is None:
            self._failures = 0
        elif call is self._probe:
            self._failures, self._open_until, self._probe = 0, None, None
            self._changed(False)

    def _failed(self, call: "Pass") -> None:
        if self._open_until is None:
            self._failures += 1
            if self._failures >= self._limit:
                self._open_until = self._clock() + self._pause_s
                self._changed(True)
        elif call is self._probe:
            self._open_until, self._probe = self._clock() + self._pause_s, None

    def _left(self, call: "Pass") -> None:
        if call is self._probe:
            self._probe = None


class Pass:
    """One call that was let through. It says what became of it, or leaves."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def answered(self) -> None:
        """The vendor is there, whatever it said."""
        self._breaker._answered(self)  # pyright: ignore[reportPrivateUsage]  the two are one thing

    def failed(self) -> None:
        """It did not answer, or cannot work."""
        self._breaker._failed(self)  # pyright: ignore[reportPrivateUsage]

    def leave(self) -> None:
        """Nothing is known: a probe that was given up lets another one try. After an answer this does nothing."""
        self._breaker._left(self)  # pyright: ignore[reportPrivateUsage]
