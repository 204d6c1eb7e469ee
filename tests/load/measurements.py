"""What the commands measure, on a database and targets that are up."""

from typing import Any

from service.operations.embedded import Embedded
from tests.load import ceiling, closed_loop, open_loop, results, scale, stages, targets
from tests.load.bench import Bench
from tests.load.targets import BUN, FASTAPI, GO, LITESTAR, RUST, SERVICE, Target
from tests.load.workload import OPERATIONS, Workload

ROWS = (10_000, 1_000_000)
SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.2)  # of the closed loop's peak
PEERS = (RUST, GO, BUN, LITESTAR, FASTAPI)


def everything(bench: Bench) -> None:
    options = bench.options
    cluster = bench.database()
    with targets.running(bench.plans(SERVICE, *PEERS), cluster.url) as up:
        peaks(bench, up, OPERATIONS, bench.workload, cluster.pid)
        curve(bench, [target for target in up if target.name in (SERVICE, GO)], bench.workload, "mixed")
    options.repeats = min(options.repeats, 2)  # CPU differs less between repeats than rates do
    ceilings(bench, cluster)
    costs(bench, cluster)
    growth(bench, cluster, ROWS)


def peaks(
    bench: Bench, up: list[Target], operations: tuple[str, ...], workload: Workload, postgres: int | None
) -> None:
    """The closed loop, interleaved."""
    options = bench.options
    for target in up:  # connections, prepared statements, caches
        closed_loop.measure(target, "mixed", workload, None, connections=options.connections, seconds=1)
    for operation in operations:
        for turn in range(options.repeats):
            for target in up:
                sample = closed_loop.measure(
                    *(target, operation, workload, postgres),
                    connections=options.connections,
                    seconds=options.seconds,
                    seed=turn + 1,
                )
                bench.said(sample)
                bench.run.closed_loop.append(sample)


def curve(bench: Bench, up: list[Target], workload: Workload, operation: str, rates: tuple[float, ...] = ()) -> None:
    """Latency at these rates, or at shares of the service's peak; the targets interleaved."""
    peak = results.middle(results.of(bench.run, SERVICE, operation), "rps") or 0
    for wanted in rates or [max(1, round(peak * share, -2)) for share in SHARES]:
        for target in up:
            rated = open_loop.measure(target.name, target.url, operation, workload, wanted, bench.options.seconds)
            bench.run.open_loop.append(rated)
            bench.say(
                f"{target.name:28} {operation:6} {wanted:6,.0f}/s due {rated.answered:9,.0f}/s  p50 {rated.p50:7.1f}"
                f"  p99 {rated.p99:7.1f} ms"
            )


def ceilings(bench: Bench, cluster: Embedded) -> None:
    options = bench.options
    for operation in ceiling.OPERATIONS:
        for pipelined in (False, True):
            found = ceiling.measure(
                *(cluster.url, cluster.pid or 0, operation, bench.workload),
                pipelined=pipelined,
                connections=options.db_connections,
                seconds=options.seconds,
            )
            bench.run.ceilings.append(found)
            way = "pipelined" if pipelined else ""
            bench.say(
                f"{'pgbench':28} {operation:6} {way:12} {found.rps:9,.0f}/s{'PG':>34} {found.postgres_us:4.0f} µs"
            )


def costs(bench: Bench, cluster: Embedded) -> None:
    options = bench.options
    bench.run.stages, bench.run.baselines = stages.measure(
        *(cluster.url, cluster.pid or 0, bench.workload),
        connections=options.connections,
        database_connections=options.db_connections,
        seconds=options.seconds,
        repeats=options.repeats,
        said=bench.said,
    )


def growth(bench: Bench, cluster: Embedded, rows: tuple[int, ...], *, together: bool = False) -> None:
    options = bench.options
    shared: Any = {
        "database_connections": options.db_connections,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "said": bench.said,
    }
    clients = options.connections
    bench.run.scale += scale.rows(cluster, rows, connections=clients, together=together, **shared)
    bench.run.scale += scale.connections(cluster, bench.workload, **shared)
    bench.run.scale += scale.workers(cluster, bench.workload, connections=clients, **shared)
