"""One user floods the service from many connections in a closed loop, while another reads at a fixed rate.

The flood takes a core for its generator and PostgreSQL's time, from everybody. What that alone does to the other user
is measured, too: by the same flood of another process of the service, which has the same database.
"""

from concurrent.futures import ThreadPoolExecutor

import msgspec

from tests.load import closed_loop
from tests.load.generator import job as generator
from tests.load.generator.job import Job, Result, percentile
from tests.load.targets import Target
from tests.load.workload import Account, Workload, weights

SPARE_S = 2  # the flood begins before the measurement and ends after it


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

    @property
    def ratio(self) -> float:
        """By how much the flood moves the other user's p99, apart from what it does to the machine."""
        return self.flooded_p99 / max(self.quiet_p99, self.elsewhere_p99, 0.001)

    def line(self) -> str:
        return (
            f"{self.connections} connections flood at {self.flood_rps:,.0f}/s: the other user's p99 is "
            f"{self.flooded_p99:.1f} ms ({self.quiet_p99:.1f} without, {self.elsewhere_p99:.1f} if another process is "
            f"flooded), errors {self.errors or 'none'}"
        )


def measure(
    target: Target, elsewhere: Target, workload: Workload, *, connections: int, rate: float, seconds: float, seed: int
) -> Flood:
    """user-1 floods, and reads task 1; the measured reads are of user-2's tasks (tests/load/database.py)."""
    ids = list(range(2, workload.tasks + 1, workload.users))
    other = Job(target.url, weights("get"), Workload(accounts=[Account("user-2", ids=ids)]), seconds, rate, seed=seed)
    other.warm_up = SPARE_S / 2

    def flooded(which: Target) -> tuple[Result, closed_loop.Sample]:
        with ThreadPoolExecutor(1) as pool:
            flood = pool.submit(
                closed_loop.measure,
                *(which, "get", Workload(1, 1), None),
                connections=connections,
                seconds=seconds + SPARE_S,
                seed=seed,
            )
            return generator.run(other), flood.result()

    quiet = generator.run(other)
    with_flood_elsewhere, _ = flooded(elsewhere)
    with_flood, flood = flooded(target)
    quiet_p99, elsewhere_p99, flooded_p99 = (
        percentile(result.histogram(), 99) or 0.0 for result in (quiet, with_flood_elsewhere, with_flood)
    )
    return Flood(
        connections=connections,
        quiet_p99=quiet_p99,
        elsewhere_p99=elsewhere_p99,
        flooded_p99=flooded_p99,
        errors={outcome: count for outcome, count in with_flood.outcomes.items() if outcome != "200"},
        flood_rps=flood.rps,
        flood_rejected=flood.errors["status"],
    )
