"""One user floods the service while another reads at a fixed rate: with gets from many connections in a closed loop, or
with batches of 8 MiB, one after the other.

The flood takes a core for its generator and PostgreSQL's time, from everybody. What that alone does to the other user
is measured, too: by the same flood of another process of the service, which has the same database.
"""

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import msgspec

from tests.load import closed_loop
from tests.load.generator import job as generator
from tests.load.generator.job import Job, Result, percentile
from tests.load.targets import Target
from tests.load.workload import Account, Workload, weights

MAX_RATIO = 2.0  # by which gets may move another user's p99
MAX_MORE_MS = 20.0  # by which batches may
SPARE_S = 2  # the flood begins before the measurement and ends after it
# Nearly as many bytes as a batch may have, not ASCII, so that nothing is simple about it.
BATCH = json.dumps([{"title": "Large", "description": "é" * 3900}] * 1000, ensure_ascii=False).encode()


class Flood(msgspec.Struct):
    """The other user's gets: p99 (ms) without a flood, with one of another process of the service, and with one of the
    same process; and errors. The flood's requests a second, and how many of them were rejected.
    """

    connections: int
    quiet_p99: float
    elsewhere_p99: float
    flooded_p99: float
    errors: dict[str, int]
    flood_rps: float
    flood_rejected: int
    batches: bool = False  # the flood was of those, on one connection

    @property
    def ratio(self) -> float:
        """By how much the flood moves the other user's p99, what it does to the machine included."""
        return self.flooded_p99 / max(self.quiet_p99, 0.001)

    @property
    def too_much(self) -> bool:
        """Whether the other user's p99 is moved by more than it may."""
        return self.flooded_p99 - self.quiet_p99 > MAX_MORE_MS if self.batches else self.ratio > MAX_RATIO

    def line(self) -> str:
        flood = f"{self.connections} connections flood at {self.flood_rps:,.0f}/s"
        if self.batches:
            flood = f"{self.flood_rps:.1f} batches of 8 MiB a second"
        return (
            f"{flood}: the other user's p99 is "
            f"{self.flooded_p99:.1f} ms ({self.quiet_p99:.1f} without, {self.elsewhere_p99:.1f} if another process is "
            f"flooded), errors {self.errors or 'none'}"
        )


def measure(
    target: Target,
    elsewhere: Target,
    workload: Workload,
    *,
    connections: int,
    batches: bool,
    rate: float,
    seconds: float,
    seed: int,
) -> Flood:
    """user-1 floods, with gets of task 1 or with batches; the measured reads are of user-2's tasks
    (tests/load/database.py).
    """
    ids = list(range(2, workload.tasks + 1, workload.users))
    other = Job(target.url, weights("get"), Workload(accounts=[Account("user-2", ids=ids)]), seconds, rate, seed=seed)
    other.warm_up = SPARE_S / 2

    def flooded(which: Target) -> tuple[Result, float, int]:
        with ThreadPoolExecutor(1) as pool:
            if batches:
                flood = pool.submit(_batches, which, seconds + SPARE_S)
            else:
                flood = pool.submit(_gets, which, connections, seconds + SPARE_S, seed)
            return generator.run(other), *flood.result()

    quiet = generator.run(other)
    with_flood_elsewhere, *_ = flooded(elsewhere)
    with_flood, flood_rps, flood_rejected = flooded(target)
    quiet_p99, elsewhere_p99, flooded_p99 = (
        percentile(result.histogram(), 99) or 0.0 for result in (quiet, with_flood_elsewhere, with_flood)
    )
    return Flood(
        connections=1 if batches else connections,
        quiet_p99=quiet_p99,
        elsewhere_p99=elsewhere_p99,
        flooded_p99=flooded_p99,
        errors={outcome: count for outcome, count in with_flood.outcomes.items() if outcome != "200"},
        flood_rps=flood_rps,
        flood_rejected=flood_rejected,
        batches=batches,
    )


def _gets(target: Target, connections: int, seconds: float, seed: int) -> tuple[float, int]:
    sample = closed_loop.measure(
        target, "get", Workload(1, 1), None, connections=connections, seconds=seconds, seed=seed
    )
    return sample.rps, sample.errors["status"]


def _batches(target: Target, seconds: float) -> tuple[float, int]:
    statuses: list[int] = []
    begin = time.monotonic()
    with closing(http.client.HTTPConnection(urlsplit(target.url).netloc)) as connection:
        while time.monotonic() - begin < seconds:
            connection.request("POST", "/api/user-1/tasks/batch", BATCH, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    return len(statuses) / (time.monotonic() - begin), len(statuses) - statuses.count(201)
