"""What a request costs, stage by stage: µs of CPU, each stage the difference of two measurements that differ in it."""

import statistics
import subprocess
import sys
from collections.abc import Callable

import msgspec

from tests.load import baselines, closed_loop, targets
from tests.load.environment import surroundings
from tests.load.targets import Plan
from tests.load.workload import Workload

OPERATIONS = ("get", "list", "create", "toggle")
OWN = 1 + len(
    baselines.APPLICATIONS
)  # the service and what is subtracted from it; the others are measured by `get` only


class Stages(msgspec.Struct):
    """µs of CPU a request of one operation, in the service but for the last."""

    operation: str
    http: float  # uvicorn: the socket, parsing, ASGI
    application: float  # load shedding, metrics, routing, the caller, the path, the body, the response
    lane: float  # the statement's way to the database and back, the caller's waiting and waking
    rows: float  # from PostgreSQL's bytes to structs
    encode: float  # from structs to JSON
    service: float  # all of it, measured
    postgres: float

    @property
    def unexplained(self) -> float:
        """What the whole costs beyond its parts: less when stages share a turn of the loop, more for colder caches."""
        return self.service - (self.http + self.application + self.lane + self.rows + self.encode)


class Baseline(msgspec.Struct):
    """A constant answer of a task's size."""

    name: str
    rps: float
    us: float


def plans(connections: int) -> list[Plan]:
    """What is subtracted from what."""
    service = targets.service(connections)
    own = [sys.executable, "-m", "tests.load.baselines"]
    return [
        service,
        *(Plan(name, [*own, name], service.environment) for name in baselines.APPLICATIONS),
        Plan("uvicorn", [*targets.UVICORN, "tests.load.baselines:answer"], {}),
        Plan("uvicorn + Litestar", [*targets.UVICORN, "tests.load.baselines:framework"], {}),
    ]


def measure(
    url: str,
    postgres: int,
    workload: Workload,
    *,
    connections: int,
    database_connections: int,
    seconds: float,
    repeats: int,
    said: Callable[[closed_loop.Sample], None],
) -> tuple[list[Stages], list[Baseline]]:
    """Interleaved, medians of `repeats`."""
    stages: list[Stages] = []
    with targets.running(plans(database_connections), url) as all_of_them:
        samples: dict[tuple[str, str], list[closed_loop.Sample]] = {}
        for turn in range(repeats):
            for operation in OPERATIONS:
                for target in all_of_them[: None if operation == "get" else OWN]:
                    sample = closed_loop.measure(
                        target, operation, workload, postgres, connections=connections, seconds=seconds, seed=turn
                    )
                    said(sample)
                    samples.setdefault((operation, target.name), []).append(sample)

    def us(operation: str, name: str) -> float:
        return statistics.median(sample.service_us or 0 for sample in samples[operation, name])

    for operation in OPERATIONS:
        costs = _costs(url, database_connections, operation, workload, seconds)
        stages.append(
            Stages(
                operation,
                http=us(operation, "constant"),
                application=us(operation, "remembered") - us(operation, "constant") - costs.encode_us,
                lane=costs.call_us - costs.rows_us,
                rows=costs.rows_us,
                encode=costs.encode_us,
                service=us(operation, targets.SERVICE),
                postgres=statistics.median(sample.postgres_us or 0 for sample in samples[operation, targets.SERVICE]),
            )
        )
    bare = [
        Baseline(target.name, statistics.median(one.rps for one in samples["get", target.name]), us("get", target.name))
        for target in all_of_them[OWN:]
    ]
    return stages, bare


def _costs(url: str, connections: int, operation: str, workload: Workload, seconds: float) -> baselines.Costs:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.load.baselines",
            "calls",
            operation,
            str(workload.users),
            str(workload.tasks),
            str(seconds),
        ],
        **surroundings(DATABASE_URL=url, DB_CONNECTIONS=str(connections)),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the calls failed: {done.stderr.strip()}")
    return msgspec.json.decode(done.stdout, type=baselines.Costs)
