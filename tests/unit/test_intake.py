"""What is read in one turn of the event loop, and in which order."""

from collections.abc import Callable
from time import perf_counter

import pytest

from service.http import intake
from service.http.intake import BUSY_S, MAX_READ, Intake


class Loop:
    """An event loop whose turns the test makes."""

    def __init__(self) -> None:
        self.now = 1.0
        self.ready: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.ready.append(callback)

    def turn(self) -> None:
        self.now += 0.001
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()


class Clients:
    def __init__(self) -> None:
        self.loop = Loop()
        self.intake = Intake(self.loop)
        self.read: list[str] = []

    def send(self, group: str, count: int = 1) -> int:
        """So many requests of this group. Returns how many are read at once."""
        return sum(self.intake.admits(_Reader(group, self.read)) for _ in range(count))

    def turn(self) -> list[str]:
        """The groups of what is read in the next turn."""
        self.read.clear()
        self.loop.turn()
        return list(self.read)


class _Reader:
    def __init__(self, group: str, read: list[str]) -> None:
        self.queue_key = group
        self._read = read

    def abort(self) -> None:
        self._read.append("aborted")

    def read_on(self) -> None:
        if self.queue_key == "broken":
            raise RuntimeError
        self._read.append(self.queue_key)
        if self.queue_key == "costly":
            end = perf_counter() + 2 * BUSY_S
            while perf_counter() < end:
                pass


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else keeps the machine busy."""
    monkeypatch.setattr(intake, "BUSY_S", 60.0)


@pytest.mark.usefixtures("unhurried")
def test_one_turn_reads_no_more_than_its_share() -> None:
    clients = Clients()
    assert clients.send("a", MAX_READ * 3) == MAX_READ
    assert [len(clients.turn()) for _ in range(3)] == [MAX_READ, MAX_READ, 0]
    assert clients.send("a") == 1


@pytest.mark.usefixtures("unhurried")
def test_another_group_does_not_wait_behind_all_of_one() -> None:
    clients = Clients()
    clients.send("a", MAX_READ * 10)
    assert clients.send("b", 2) == 0
    assert clients.turn().count("b") == 2


@pytest.mark.usefixtures("unhurried")
def test_while_one_group_waits_others_are_read_at_once() -> None:
    clients = Clients()
    clients.send("a", MAX_READ * 10)
    clients.turn()
    assert clients.send("b") == 1
    assert clients.send("a") == 0


def test_of_requests_that_take_long_to_read_one_is_read_in_a_turn() -> None:
    clients = Clients()
    clients.send("a", MAX_READ)
    clients.send("costly", 3)
    assert [clients.turn() for _ in range(4)] == [["costly"], ["costly"], ["costly"], []]


@pytest.mark.usefixtures("unhurried")
def test_a_connection_that_fails_does_not_end_the_turns_of_others(caplog: pytest.LogCaptureFixture) -> None:
    clients = Clients()
    clients.send("a", MAX_READ)
    clients.send("broken", 2)
    clients.send("a", 2 * MAX_READ)
    assert clients.turn().count("aborted") == 2
    assert [len(clients.turn()) for _ in range(3)] == [MAX_READ, 2, 0]
    assert "RuntimeError" in caplog.text
