"""The open loop: requests come at a fixed rate, whether or not the ones before them are answered, as users do.

Each latency counts from the moment its request was due, not from when a connection was free to send it: what a slow
answer makes others wait is part of theirs (wrk2 does the same; leaving it out is called coordinated omission).
Latencies go into an HdrHistogram. A process of its own, so that what it uses can be told from what it measures:
`python -m tests.load.open_loop` reads a Job as JSON from standard input and writes a Found to standard output.

Not `autocannon -R`, measured beside it on one target: it sends in bursts (a median of 9 ms at 1000 a second, where this
one finds 0.4) and says 9 ms still at four times what the target can take, where requests have waited for seconds.

One thread and one epoll, waited for with select(), because asyncio's timers, uvloop's too, know only milliseconds.
"""

import random
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from hdrh.histogram import HdrHistogram

from tests.load.database import surroundings
from tests.load.workload import Workload, request_maker

LONGEST_US = 60_000_000


class Job(msgspec.Struct):
    url: str
    operation: str
    workload: Workload
    rate: float  # requests a second
    seconds: float
    connections: int = 64
    seed: int = 1
    grace_s: float = 2.0  # for the answers to what was sent before the end


class Found(msgspec.Struct):
    """`lag_us` is how late the generator itself was with 99 % of the requests for which a connection was free;
    `busy` the share of a core it used. Requests that were never answered are in the histogram with the time they had
    waited when the run ended.
    """

    due: int
    answered: int
    errors: int
    seconds: float
    lag_us: int
    busy: float
    histogram: str  # HdrHistogram's own encoding, of µs


class _Connection:
    __slots__ = ("due", "received", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = b""
        self.due = 0.0


def complete(answer: bytes) -> bool | None:
    """Whether an HTTP answer is whole: None where not yet, else whether it is a success. Raises ValueError for one
    whose length is not given.
    """
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = answer[:end].lower()
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        raise ValueError(f"an answer without Content-Length: {head!r}")
    length = int(head[start + 17 :].split(b"\r\n", 1)[0])
    if len(answer) < end + 4 + length:
        return None
    return answer[9:10] == b"2"


def generate(job: Job, make: Callable[[], bytes]) -> Found:
    """Sends what `make` makes, at the job's rate for the job's time."""
    parts = urlsplit(job.url)
    address = (parts.hostname or "", parts.port or 80)
    free = [_Connection(address) for _ in range(job.connections)]
    ready = select.epoll()
    by_number = {connection.socket.fileno(): connection for connection in free}
    for number in by_number:
        ready.register(number, select.EPOLLIN)
    latencies = HdrHistogram(1, LONGEST_US, 3)
    lags = HdrHistogram(1, LONGEST_US, 3)
    waiting: deque[float] = deque()  # when the requests were due that wait for a connection
    total = round(job.rate * job.seconds)
    made = answered = errors = under_way = 0
    clock = time.perf_counter
    begun, cpu = clock(), time.process_time()
    end = begun + job.seconds + job.grace_s
    while True:
        now = clock()
        while made < total and (due := begun + made / job.rate) <= now:
            made += 1
            if free:
                lags.record_value(int((now - due) * 1e6) + 1)
            waiting.append(due)
        while free and waiting:
            connection = free.pop()
            connection.due = waiting.popleft()
            connection.socket.send(make())
            under_way += 1
        if now >= end or (made == total and not under_way):
            break
        pause = (begun + made / job.rate if made < total else end) - clock()
        if pause > 0:
            select.select([ready], [], [], pause)
        for number, _ in ready.poll(0):
            connection = by_number[number]
            received = connection.socket.recv(262_144)
            if not received:
                raise ConnectionError("the target closed a connection")
            connection.received = connection.received + received if connection.received else received
            success = complete(connection.received)
            if success is None:
                continue
            connection.received = b""
            latencies.record_value(int((clock() - connection.due) * 1e6))
            answered += 1
            errors += not success
            under_way -= 1
            free.append(connection)
    finished = clock()
    idle = set(map(id, free))
    unanswered = [*waiting, *(one.due for one in by_number.values() if id(one) not in idle)]
    for due in unanswered:
        latencies.record_value(int((finished - due) * 1e6))
    for connection in by_number.values():
        connection.socket.close()
    return Found(
        due=made,
        answered=answered,
        errors=errors,
        seconds=finished - begun,
        lag_us=lags.get_value_at_percentile(99),
        busy=(time.process_time() - cpu) / (finished - begun),
        histogram=latencies.encode().decode(),
    )


def run(job: Job) -> Found:
    """The job, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.load.open_loop"],
        **surroundings(),
        input=msgspec.json.encode(job),
        capture_output=True,
    )
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr.decode(errors='replace').strip()}")
    return msgspec.json.decode(done.stdout, type=Found)


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    make = request_maker(job.operation, job.workload, urlsplit(job.url).netloc, random.Random(job.seed))
    sys.stdout.buffer.write(msgspec.json.encode(generate(job, make)))


if __name__ == "__main__":
    main()
