"""Sends requests at a fixed rate (open loop) or as fast as responses come (closed loop), as a Job says.

In the open loop each latency counts from the moment when its request was due, not from when a connection was free to
send it: the time that a slow response makes others wait is part of their latency. wrk2 does the same; leaving it out is
called coordinated omission.

Not `autocannon -R`, measured on the same target: it sends in bursts (a median of 9 ms at 1000 a second, where this one
finds 0.4) and still says 9 ms at four times what the target can serve, where requests have waited for seconds.
"""

import select
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.load.generator.connection import Connection, ConnectionFailed, State
from tests.load.generator.job import NO_RESPONSE, NOT_SENT, STOP_GRACE_S, Job, Result, Tick
from tests.load.generator.system import allow_files, located, waited_for_cpu
from tests.load.generator.tally import Tally

MAX_OPENING = 128  # connections at once: a backlog that overflows drops handshakes, which are repeated after a second
OPEN_S = 5.0  # to open all connections before the start
RETRY_S = 0.1  # until a connection that failed is opened again
SWEEP_S = 0.1
SPARE_FILES = 64
MAX_WAITING = 1_000_000  # requests that are due and have no connection, 32 MB

clock = time.perf_counter


class Engine:
    """`make` returns an operation's name and a request's bytes, or None when there are no more."""

    def __init__(
        self, job: Job, make: Callable[[], tuple[str, bytes] | None], tick: Callable[[Tick], None] = lambda _: None
    ) -> None:
        self._job = job
        self._make = make
        self._tick = tick
        self._tally = Tally(job.mix)
        # Made before any connection: its number has to be below 1024, since select() waits for it. epoll_wait and
        # asyncio's timers know whole milliseconds only. That makes the number of connections unlimited.
        self._epoll = select.epoll()
        allow_files(job.connections + SPARE_FILES)
        place = located(urlsplit(job.url), insecure=job.insecure)
        self._connections = [Connection(place) for _ in range(job.connections)]
        self._by_number: dict[int, Connection] = {}
        self._free: deque[Connection] = deque()
        self._waiting: deque[float] = deque()  # open loop: when the requests were due that have no connection yet
        self._in_flight = 0
        self._start = self._end = 0.0  # of what is measured
        self._sending = False
        self._stopped = False

    def stop(self) -> None:
        """Ends the sending; may be called by a signal handler."""
        self._stopped = True

    def run(self) -> Result:
        job = self._job
        self._connect_all()
        begun, cpu, waited = clock(), time.process_time(), waited_for_cpu()
        self._start = begun + job.warm_up
        self._end = self._start + job.seconds
        self._sending = True
        if job.rate is None:
            for _ in range(len(self._free)):
                self._send(self._free.popleft(), clock())
        total = round(job.rate * (job.warm_up + job.seconds)) if job.rate else 0
        made, second, next_sweep, grace, stopping = 0, 0, begun, job.grace, False
        while True:
            now = clock()
            if self._stopped and not stopping:
                stopping = True
                self._end = min(self._end, now)
                grace = min(grace, max(0.0, now - self._end) + STOP_GRACE_S)
            if job.rate and self._sending:  # once more when the end has passed, for what was due before it
                while made < total and (due := begun + made / job.rate) <= min(now, self._end):
                    made += 1
                    if self._free and due >= self._start:
                        self._tally.lag(now - due)
                    self._waiting.append(due)
                    if len(self._waiting) > MAX_WAITING:
                        self._not_sent(self._waiting.popleft(), now)
            if now >= self._end:
                self._sending = False
            while self._free and self._waiting:
                self._send(self._free.popleft(), self._waiting.popleft())
            while now >= self._start + second + 1:
                self._tick(self._tally.end_second(second))
                second += 1
            if now >= next_sweep:
                self._sweep(now)
                next_sweep = now + SWEEP_S
            if not self._sending and (now >= self._end + grace or not self._expecting()):
                break
            pause = min(next_sweep, begun + made / job.rate if job.rate and made < total else next_sweep) - clock()
            self._wait(pause)
        elapsed = clock() - begun
        used = time.process_time() - cpu
        starved = None if waited is None else ((waited_for_cpu() or waited) - waited) / elapsed
        return self._finish(second, used / elapsed, starved)

    def _expecting(self) -> bool:
        """Whether waiting after the end is of use: connections that are down are not opened again."""
        if self._in_flight or not self._waiting:
            return self._in_flight > 0
        return any(connection.state is not State.DOWN for connection in self._connections)

    def _finish(self, second: int, busy: float, starved: float | None) -> Result:
        now = clock()
        for due in self._waiting:
            self._not_sent(due, now)
        for connection in self._connections:
            if connection.state is State.BUSY:
                self._count(connection, NO_RESPONSE, now)
            connection.close()
        if self._tally.pending or not second:
            self._tally.end_second(second)
        self._epoll.close()
        return Result(
            seconds=max(0.001, self._end - self._start),
            operations=self._tally.operations(),
            over_time=self._tally.over_time,
            lag_us=None if self._job.rate is None else self._tally.lag_us,
            busy=busy,
            stopped=self._stopped,
            starved=starved,
            warm_up=dict(self._tally.warm_up),
            received_bytes=self._tally.received_bytes,
        )

    def _connect_all(self) -> None:
        """Opens the connections. What cannot be opened now is tried again during the run, and counts there."""
        ahead = deque(self._connections)
        end = clock() + OPEN_S
        opening: list[Connection] = []
        while (ahead or opening) and clock() < end and not self._stopped:
            while ahead and len(opening) < MAX_OPENING:
                opening.append(ahead.popleft())
                self._open(opening[-1])
            self._wait(0.05)
            opening = [one for one in opening if one.state in (State.CONNECTING, State.HANDSHAKE)]

    def _wait(self, seconds: float) -> None:
        """Waits for sockets, at most so long, and handles those that are ready."""
        if self._job.rate is None:  # nothing is due between two milliseconds: one system call is enough
            ready = self._epoll.poll(max(0.0, seconds))
        else:
            if seconds > 0:
                select.select([self._epoll], [], [], seconds)
            ready = self._epoll.poll(0)
        for number, events in ready:
            connection = self._by_number.get(number)
            if connection is None:
                continue
            try:
                self._handle(connection, events)
            except ConnectionFailed as error:
                self._fail(connection, str(error))

    def _handle(self, connection: Connection, events: int) -> None:
        if connection.state in (State.CONNECTING, State.HANDSHAKE):
            if connection.advance():
                self._ready(connection)
            self._watch(connection)
            return
        if connection.state is State.BUSY and connection.unsent and events & select.EPOLLOUT:
            connection.flush()
            self._watch(connection)
        if events & ~select.EPOLLOUT and connection.receive():
            self._responded(connection)

    def _responded(self, connection: Connection) -> None:
        now = clock()
        self._in_flight -= 1
        status = str(connection.status)
        success = status[0] == "2"
        self._count(connection, status, now, timed=success)
        if success and self._start <= now <= self._end:
            self._tally.in_time[connection.operation] += 1
        if connection.due >= self._start:
            self._tally.received_bytes += connection.size
        if connection.reusable:
            connection.state = State.IDLE
            self._ready(connection)
        else:
            self._close(connection)
            self._open(connection)

    def _ready(self, connection: Connection) -> None:
        """An idle connection takes the next request."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self._sending and self._job.rate is None and not self._stopped and (now := clock()) < self._end:
            self._send(connection, now)
        else:
            self._free.append(connection)

    def _send(self, connection: Connection, due: float) -> None:
        made = self._make()
        if made is None:
            self._sending = False
            self._end = min(self._end, clock())
            self._free.append(connection)
            return
        connection.operation, request = made
        connection.due, connection.since = due, clock()
        self._in_flight += 1
        try:
            connection.send(request)
            if connection.unsent:
                self._watch(connection)
        except ConnectionFailed as error:
            self._fail(connection, str(error))

    def _count(self, connection: Connection, outcome: str, now: float, *, timed: bool = True) -> None:
        if connection.due >= self._start:
            self._tally.count(connection.operation, outcome, now - connection.due if timed else None)
        else:
            self._tally.warm_up[outcome] += 1

    def _not_sent(self, due: float, now: float) -> None:
        if due >= self._start:
            self._tally.count(self._operation(), NOT_SENT, now - due)
        else:
            self._tally.warm_up[NOT_SENT] += 1

    def _fail(self, connection: Connection, outcome: str, *, timed: bool = False) -> None:
        """The connection is lost, and with it the request that it carried. One that could not be opened takes the
        request with it that has waited longest.
        """
        now = clock()
        was = connection.state
        if was is State.BUSY:
            self._in_flight -= 1
            self._count(connection, outcome, now, timed=timed)
        elif was in (State.CONNECTING, State.HANDSHAKE) and self._sending:
            due = self._waiting.popleft() if self._waiting else now if self._job.rate is None else None
            if due is not None and due >= self._start:
                self._tally.count(self._operation(), outcome, now - due if timed else None)
            elif due is not None:
                self._tally.warm_up[outcome] += 1
        elif was is State.IDLE and connection in self._free:
            self._free.remove(connection)
        self._close(connection)
        connection.since = now
        if was in (State.IDLE, State.BUSY):
            self._open(connection)

    def _operation(self) -> str:
        made = self._make()
        return made[0] if made else ""

    def _open(self, connection: Connection) -> None:
        connection.since = clock()
        try:
            connection.open()
        except ConnectionFailed as error:
            self._fail(connection, str(error))
            return
        assert connection.socket is not None
        self._by_number[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _watch(self, connection: Connection) -> None:
        if connection.socket is not None:
            events = select.EPOLLIN | (select.EPOLLOUT if connection.wants_to_write else 0)
            self._epoll.modify(connection.socket, events)

    def _close(self, connection: Connection) -> None:
        if connection.socket is not None:
            self._by_number.pop(connection.socket.fileno(), None)
        connection.close()

    def _sweep(self, now: float) -> None:
        """Ends what takes too long, and opens again what was closed a while ago."""
        for connection in self._connections:
            waited = now - connection.since
            if connection.state is State.DOWN and waited > RETRY_S and self._sending:
                self._open(connection)
            elif connection.state is State.BUSY and waited > self._job.timeout:
                self._fail(connection, f"no response within {self._job.timeout:g} s", timed=True)
            elif connection.state in (State.CONNECTING, State.HANDSHAKE) and waited > self._job.timeout:
                self._fail(connection, "connect timed out", timed=True)
