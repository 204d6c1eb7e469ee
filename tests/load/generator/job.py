"""What a generator is asked for, what it reports, and the process that it runs in.

A separate process, so that its CPU time can be told from that of what it measures, and so that no other thread delays
a request.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from tests.load.environment import surroundings
from tests.load.workload import Workload

LONGEST_US = 3_600_000_000
MAX_RATE = 100_000  # a second: several times what one process sends, and what it can keep in memory while they wait
STOP_GRACE_S = 2.0  # for responses after a stop: nobody waits for --timeout after Ctrl-C
KILL_S = 5.0  # after that, a generator that has not ended is killed
# Outcomes of requests that had no response, besides the connection's own.
NOT_SENT, NO_RESPONSE = "not sent: no connection was free", "no response by the end"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Job(msgspec.Struct):
    """`rate` requests a second at random operations of `mix` (operation → weight): an open loop; without a rate, each
    connection sends as soon as it has a response: a closed loop. Times in seconds.
    """

    url: str
    mix: dict[str, float]
    workload: Workload
    seconds: float
    rate: float | None = None
    connections: int = 64
    seed: int = 1
    warm_up: float = 0.0  # not measured
    timeout: float = 10.0  # of a request, once it is sent
    grace: float = 2.0  # for responses to what was sent before the end
    insecure: bool = False  # certificates are not checked

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate is not None and not 0 < self.rate <= MAX_RATE:
            raise ValueError(f"the rate has to be above 0 and at most {MAX_RATE:,.0f} a second")


class Tick(msgspec.Struct, tag=True):
    """The last second."""

    second: int
    requests: int
    errors: int
    p99: float | None


class Second(msgspec.Struct, rename={name: f"{name}_ms" for name in ("p50", "p90", "p99", "max")}):
    """One second of one operation, by when the responses came: from `second` to the next one after the start. Latencies
    in ms, None where nothing was timed.
    """

    second: int
    operation: str
    requests: int
    errors: int
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class Operation(msgspec.Struct):
    """One operation. `outcomes` counts statuses and failures. The histogram (HdrHistogram's encoding, µs) holds
    successes and requests that waited in vain; a fast error response must not improve the percentiles.
    """

    operation: str
    outcomes: dict[str, int]
    mean_ms: float | None
    histogram: str
    max_ms: float | None = None  # to the µs; the histogram has three digits
    in_time: int = 0  # successes between start and end, whenever they were sent

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if not succeeded(outcome))


class Result(msgspec.Struct, tag=True):
    """`lag_us` is how late the generator itself was with 99 % of the requests for which a connection was free: None in
    a closed loop, where no request is due. `busy` is the share of a core that it used, `starved` the share of the time
    in which it could have run and got no core, where the kernel tells.
    """

    seconds: float
    operations: list[Operation]
    over_time: list[Second]
    lag_us: int | None
    busy: float
    stopped: bool = False  # before its time
    starved: float | None = None
    warm_up: dict[str, int] = {}  # outcomes of requests of the warm-up, which count nowhere else
    received_bytes: int = 0  # of responses that were measured, with their heads

    @property
    def outcomes(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for one in self.operations:
            total.update(one.outcomes)
        return total

    @property
    def requests(self) -> int:
        return sum(one.requests for one in self.operations)

    @property
    def responses(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome.isdecimal())

    @property
    def errors(self) -> int:
        return sum(one.errors for one in self.operations)

    @property
    def failed(self) -> int:
        """Errors but for those of a rate that was too high: a request that is late is no error of the service."""
        return self.errors - self.outcomes[NOT_SENT] - self.outcomes[NO_RESPONSE]

    def histogram(self, operation: str | None = None) -> HdrHistogram:
        """Of one operation, or of all."""
        total = HdrHistogram(1, LONGEST_US, 3)
        for one in self.operations:
            if operation in (None, one.operation):
                total.add(HdrHistogram.decode(one.histogram))
        return total

    def rps(self, operation: str | None = None) -> float:
        """Successes a second, those between start and end. Requests that were sent in time have some of their responses
        later: counting these would make a service that falls behind look as fast as the rate.
        """
        return sum(one.in_time for one in self.operations if operation in (None, one.operation)) / self.seconds

    def max_ms(self, operation: str | None = None) -> float | None:
        """Of one operation, or of all. None where nothing was timed."""
        chosen = [one for one in self.operations if operation in (None, one.operation)]
        return max((one.max_ms for one in chosen if one.max_ms is not None), default=None)

    def mean_ms(self, operation: str | None = None) -> float | None:
        histogram = self.histogram(operation)
        return histogram.get_mean_value() / 1e3 if histogram.get_total_count() else None

    def percentiles(self, shares: Iterable[float], operation: str | None = None) -> list[float | None]:
        """In ms, none above the longest. None where nothing was timed."""
        histogram, longest = self.histogram(operation), self.max_ms(operation)
        found = [percentile(histogram, share) for share in shares]
        return [value if value is None or longest is None else min(value, longest) for value in found]


def succeeded(outcome: str) -> bool:
    """Whether an outcome is a status that says so."""
    return len(outcome) == 3 and outcome[0] == "2"


def percentile(histogram: HdrHistogram, share: float) -> float | None:
    """In ms. None where nothing was timed."""
    return histogram.get_value_at_percentile(share) / 1e3 if histogram.get_total_count() else None


class EndedEarly(RuntimeError):
    """The generator was stopped before it could begin, or did not stop: there is no result."""


class Running:
    """A generator that has been started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._killer: threading.Timer | None = None

    def stop(self) -> None:
        """Ends the sending early, and the process where that does not."""
        if self._process.poll() is None:
            self._process.terminate()
            self._killer = threading.Timer(STOP_GRACE_S + KILL_S, self._process.kill)
            self._killer.daemon = True
            self._killer.start()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._killer is not None:
            self._killer.cancel()

    def wait(self, tick: Callable[[Tick], None] = lambda _: None) -> Result:
        """Returns at the end. Raises EndedEarly, or RuntimeError where the generator failed."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = msgspec.json.decode(line, type=Tick | Result)
            if isinstance(message, Result):
                self._process.wait()
                return message
            tick(message)
        status = self._process.wait()
        if status == -signal.SIGTERM:
            raise EndedEarly("the load generator was stopped before it began")
        if self._killer is not None and status == -signal.SIGKILL:
            raise EndedEarly("the load generator did not stop, and was killed")
        raise RuntimeError(f"the load generator failed with status {status}")


@contextmanager
def started(job: Job) -> Generator[Running]:
    """The job in a process that does not get the terminal's Ctrl-C, and does not outlive the block."""
    certificates = {name: os.environ[name] for name in CERTIFICATES if name in os.environ}
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-m", "tests.load.generator"],
        **surroundings(**certificates),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    running = Running(process)
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        yield running
    finally:
        running.close()
        process.stdout.close()


def run(job: Job) -> Result:
    """The job, from start to end."""
    with started(job) as running:
        return running.wait()
