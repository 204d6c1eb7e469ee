"""When the supervisor starts a worker in place of one that died, and when it tells them to finish. No processes."""

import signal
import socket
import time

import pytest

from service import signals
from service.server import workers
from service.settings import load


class FakeWorker:
    """A worker that serves. The first ends in its second turn, the later ones in their first. When `many` were
    started, a signal comes.
    """

    started: list[float]
    many: int

    def __init__(self, *_: object) -> None:
        self.started.append(time.monotonic())
        if len(self.started) == self.many:
            signals.stop.number = 15
        self.began = time.monotonic()
        self.control, theirs = socket.socketpair()
        theirs.close()  # so it is readable
        self.serves = True
        self.process = self
        self.pid = 1
        self._lives = len(self.started) == 1

    def receive(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        self.control.close()

    def poll(self) -> int | None:
        lives, self._lives = self._lives, False
        return None if lives else 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    monkeypatch.setattr(signals, "stop", signals.Stop())
    monkeypatch.setattr(workers, "_Worker", FakeWorker)
    monkeypatch.setattr(workers, "raise_descriptor_limit", lambda: None)
    FakeWorker.started = []
    return FakeWorker


SETTINGS = load({"DATABASE_URL": "host=/nonexistent", "AUTH_MODE": "none", "WORKERS": "1"}, None)


def test_workers_that_die_soon_after_they_served_are_replaced_after_a_growing_pause(
    fake: type[FakeWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RETRY_S", 0.1)
    monkeypatch.setattr(workers, "MAX_RETRY_S", 0.3)
    fake.many = 5
    workers.serve(SETTINGS, [], lambda: None)
    pauses = [later - sooner for sooner, later in zip(fake.started, fake.started[1:], strict=False)]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.3, 0.3), strict=True)] == [True] * 4, pauses


def test_a_worker_that_served_for_long_is_replaced_at_once(
    fake: type[FakeWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RETRY_S", 1000.0)
    monkeypatch.setattr(workers, "STEADY_S", 0.0)
    fake.many = 5
    workers.serve(SETTINGS, [], lambda: None)
    assert len(fake.started) == 5


def test_workers_are_told_to_finish_after_the_supervisor_has_closed_its_listeners(
    fake: type[FakeWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last to close a listener resets what was connected and not accepted, and the supervisor accepts nothing."""
    fake.many = 0
    open_then: list[bool] = []
    listener = socket.create_server(("127.0.0.1", 0))

    class Told(FakeWorker):
        def send(self, message: bytes) -> None:
            open_then.append(listener.fileno() >= 0)
            self.control.close()

        def poll(self) -> int | None:
            return 0 if open_then else None

    monkeypatch.setattr(workers, "_Worker", Told)
    workers.serve(SETTINGS, [listener], lambda: signals.stop.handle(signal.SIGTERM))
    assert open_then == [False]
