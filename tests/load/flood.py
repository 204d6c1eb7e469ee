"""One user floods the service from many connections in a closed loop, while another reads at a fixed rate."""

from concurrent.futures import ThreadPoolExecutor

import msgspec

from tests.load import closed_loop
from tests.load.generator import job as generator
from tests.load.generator.job import Job, percentile
from tests.load.targets import Target
from tests.load.workload import Account, Workload, weights

SPARE_S = 2  # the flood begins before the measurement and ends after it


class Flood(msgspec.Struct):
    """The other user's gets: p99 (ms) without and with the flood, and errors. The flood's requests a second, and how
    many of them were rejected.
    """

    connections: int
    quiet_p99: float
    flooded_p99: float
    errors: dict[str, int]
    flood_rps: float
    flood_rejected: int

    def line(self) -> str:
        return (
            f"{self.connections} connections flood at {self.flood_rps:,.0f}/s: the other user's p99 is "
            f"{self.flooded_p99:.1f} ms ({self.quiet_p99:.1f} without), errors {self.errors or 'none'}"
        )


def measure(target: Target, workload: Workload, *, connections: int, rate: float, seconds: float, seed: int) -> Flood:
    """Task 1 is user-1's, who floods; of the others' tasks, those of user-2 are read (tests/load/database.py)."""
    ids = list(range(2, workload.tasks + 1, workload.users))
    other = Job(target.url, weights("get"), Workload(accounts=[Account("user-2", ids=ids)]), seconds, rate, seed=seed)
    quiet = generator.run(other)
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(
            closed_loop.measure,
            *(target, "get", Workload(1, 1), None),
            connections=connections,
            seconds=seconds + SPARE_S,
            seed=seed,
        )
        other.warm_up = SPARE_S / 2
        flooded = generator.run(other)
        found = flood.result()
    return Flood(
        connections=connections,
        quiet_p99=percentile(quiet.histogram(), 99) or 0.0,
        flooded_p99=percentile(flooded.histogram(), 99) or 0.0,
        errors={outcome: count for outcome, count in flooded.outcomes.items() if outcome != "200"},
        flood_rps=found.rps,
        flood_rejected=found.errors["status"],
    )
