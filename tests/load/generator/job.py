"""What a generator is asked for, what it reports, and the process that it runs in.

A separate process, so that its CPU time can be told from that of what it measures, and so that no other thread delays
a request.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from tests.load.environment import surroundings
from tests.load.workload import Workload

LONGEST_US = 3_600_000_000
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


class Tick(msgspec.Struct, tag=True):
    """The last second."""

    second: int
    requests: int
    errors: int
    p99: float | None


class Second(msgspec.Struct):
    """One second of one operation, by when the responses came. Latencies in ms, None where nothing was timed."""

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

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if not succeeded(outcome))


class Result(msgspec.Struct, tag=True):
    """`lag_us` is how late the generator itself was with 99 % of the requests for which a connection was free; `busy`
    the share of a core that it used.
    """

    seconds: float
    operations: list[Operation]
    over_time: list[Second]
    lag_us: int
    busy: float
    stopped: bool = False  # before its time

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


def succeeded(outcome: str) -> bool:
    """Whether an outcome is a status that says so."""
    return len(outcome) == 3 and outcome[0] == "2"


def percentile(histogram: HdrHistogram, share: float) -> float | None:
    """In ms. None where nothing was timed."""
    return histogram.get_value_at_percentile(share) / 1e3 if histogram.get_total_count() else None


class EndedEarly(RuntimeError):
    """The generator was stopped before it could begin: there is no result."""


class Running:
    """A generator that has been started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def stop(self) -> None:
        """Ends the sending early."""
        if self._process.poll() is None:
            self._process.terminate()

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
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        yield Running(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def run(job: Job) -> Result:
    """The job, from start to end."""
    with started(job) as running:
        return running.wait()
