"""The signals that end a process, and when they may interrupt what it does.

A signal reaches a service more than once: systemd, dumb-init and terminals send it to every process of a group, and a
supervisor may relay it as well. Signals that come within `ECHO_S` of the first count as one. A later one means "at
once".

Raising an exception at an arbitrary instruction can lose a process that was just started. So an exception is only
raised where the code allows it: everywhere in a command that reads and prints, and inside `interruptible()` where
something has to be cleaned up afterwards (`deferred()`). It is raised once: what cleans up is not interrupted again.

Must not import anything of the service: it is installed before everything else is imported.
"""

import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
ECHO_S = 0.25


class Interrupted(SystemExit):
    """A signal ended the command. Its code is the one that shells give: 128 and the signal's number."""


class Stop:
    """What the operator asked for by signals so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = 0.0
        self._raises = True
        self._listener: Callable[[], None] | None = None
        self.number = 0  # the first signal's; 0: none came
        self.at_once = False

    @property
    def asked(self) -> bool:
        return self.number != 0

    def install(self) -> None:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        if not self.asked:
            self.number = number
            self._first = self._clock()
        elif self._clock() - self._first > ECHO_S and not self.at_once:
            self.at_once = True
        else:
            return
        if self._raises:
            self._raises = False
            raise Interrupted(128 + self.number)
        if self._listener is not None:
            self._listener()

    @contextmanager
    def deferred(self) -> Generator[None]:
        """Signals only take effect inside `interruptible()`, and at the end of this block."""
        before, self._raises = self._raises, False
        try:
            yield
        finally:
            self._raises = before and not self.asked
        if before and self.asked:
            raise Interrupted(128 + self.number)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """A signal ends this block by raising Interrupted; one that came before does at its start. Main thread only."""
        if self.asked:
            raise Interrupted(128 + self.number)
        before, self._raises = self._raises, True
        try:
            yield
        finally:
            self._raises = before and not self.asked

    @contextmanager
    def calls(self, listener: Callable[[], None]) -> Generator[None]:
        """Calls `listener` at the first signal and at the one that means "at once"; now, if one came before."""
        before, self._raises, self._listener = self._raises, False, listener
        if self.asked:
            listener()
        try:
            yield
        finally:
            self._raises, self._listener = before and not self.asked, None


stop = Stop()  # of this process
