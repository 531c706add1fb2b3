"""The breaker opens, lets one call try, and closes or waits again."""

from usercore.plugins.breaker import Breaker, Pass


class Times:
    """A breaker on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes: list[bool] = []
        self.breaker = Breaker(3, 10.0, self.changes.append, lambda: self.now)

    def enter(self) -> Pass:
        entered = self.breaker.enter()
        assert isinstance(entered, Pass)
        return entered

    def open(self) -> None:
        for _ in range(3):
            self.enter().failed()


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    times = Times()
    for _ in range(5):
        times.enter().failed()
        times.enter().failed()
        times.enter().answered()
    assert times.changes == []
    times.open()
    assert times.changes == [True]
    assert times.breaker.enter() == 10.0
    times.now += 4
    assert times.breaker.enter() == 6.0


def test_one_probe_decides() -> None:
    times = Times()
    times.open()
    times.now += 10
    probe = times.enter()
    assert isinstance(times.breaker.enter(), float), "the others wait for the probe"
    probe.failed()
    assert times.breaker.enter() == 10.0
    times.now += 10
    times.enter().answered()
    assert times.changes == [True, False]
    times.enter().failed()
    times.enter().failed()
    assert times.changes == [True, False], "counts from the beginning"


def test_a_probe_that_is_given_up_lets_another_try() -> None:
    times = Times()
    times.open()
    times.now += 10
    times.enter().leave()
    times.enter().answered()
    assert times.changes == [True, False]


def test_calls_from_before_it_opened_do_not_count() -> None:
    times = Times()
    early = [times.enter() for _ in range(4)]
    times.open()
    times.now += 4
    early[0].answered()
    early[1].failed()
    assert times.changes == [True]
    assert times.breaker.enter() == 6.0
    times.now += 6
    probe = times.enter()
    early[2].answered()
    early[3].leave()
    assert isinstance(times.breaker.enter(), float)
    probe.answered()
    probe.leave()
    assert times.changes == [True, False]
