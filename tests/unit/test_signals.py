"""What signals mean, on a clock that is moved by hand."""

import signal

import pytest

from service.signals import ECHO_S, Interrupted, Stop


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stop(clock: Clock) -> Stop:
    return Stop(clock)


def test_copies_of_a_signal_are_one_and_a_later_one_means_at_once(stop: Stop, clock: Clock) -> None:
    told: list[bool] = []
    with stop.calls(lambda: told.append(stop.at_once)):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            stop.handle(number)
            clock.now += ECHO_S / 5
        assert told == [False]
        clock.now += ECHO_S
        stop.handle(signal.SIGQUIT)
        stop.handle(signal.SIGQUIT)
    assert told == [False, True]
    assert stop.number == signal.SIGTERM


def test_a_command_that_reads_is_interrupted_anywhere_but_only_once(stop: Stop, clock: Clock) -> None:
    with pytest.raises(Interrupted) as interrupted:
        stop.handle(signal.SIGINT)
    assert interrupted.value.code == 130
    clock.now += 1
    stop.handle(signal.SIGINT)  # while it cleans up
    assert stop.at_once


def test_a_deferred_signal_takes_effect_at_the_end(stop: Stop) -> None:
    reached = False
    with pytest.raises(Interrupted), stop.deferred():
        stop.handle(signal.SIGTERM)
        reached = True
    assert reached


def test_a_deferred_signal_takes_effect_where_it_may(stop: Stop) -> None:
    reached: list[int] = []
    with pytest.raises(Interrupted), stop.deferred():
        try:
            with stop.interruptible():
                stop.handle(signal.SIGTERM)
                reached.append(1)
        finally:
            stop.handle(signal.SIGTERM)
            reached.append(2)
    assert reached == [2]


def test_what_may_be_interrupted_does_not_begin_after_a_signal(stop: Stop) -> None:
    with pytest.raises(Interrupted), stop.deferred():
        stop.handle(signal.SIGTERM)
        with stop.interruptible():
            pytest.fail("began")


def test_a_server_is_told_of_a_signal_that_came_before_it(stop: Stop) -> None:
    told: list[bool] = []
    with pytest.raises(Interrupted), stop.deferred():
        stop.handle(signal.SIGTERM)
        with stop.calls(lambda: told.append(stop.at_once)):
            pass
    assert told == [False]
