"""The tables made of what a run has found."""

import statistics

from tests.load.results import Run, middle, names, of
from tests.load.table import Table, figure
from tests.load.targets import FASTAPI, GO, RUST


def tables(run: Run) -> list[Table]:
    """Every table that the run has figures for."""
    made = (_closed_loop, _ceilings, _open_loop, _stages, _baselines, _scale, _remote_peaks, _remote_waits, _flood)
    return [table for make in made if (table := make(run)).rows]


def _closed_loop(run: Run) -> Table:
    rows: list[list[str]] = []
    for operation in names(run.closed_loop, "operation"):
        for target in names(run.closed_loop, "target"):
            samples = of(run, target, operation)
            rps = middle(samples, "rps")
            if rps is None:
                continue
            rivals = [middle(of(run, peer, operation), "rps") for peer in (RUST, GO, FASTAPI)]
            shares = [rps / rival if rival else None for rival in rivals]
            every = [sample.rps for sample in samples]
            rows.append(
                [
                    *(operation, target, figure(rps), f"{min(every):,.0f} to {max(every):,.0f}"),
                    *(figure(share, 2) for share in shares),
                    *(figure(middle(samples, name), 1) for name in ("p50", "p90", "p99", "p999")),
                    *(
                        figure(middle(samples, name))
                        for name in ("service_us", "postgres_us", "largest_mb", "together_mb")
                    ),
                    figure(middle(samples, "group_size"), 1),
                ]
            )
    return Table(
        "Peak: closed loop",
        f"wrk keeps {run.options.get('connections')} requests in flight. Interleaved runs: the median, then the least "
        "and the most. Latencies in ms. CPU in µs a request, of the target's processes and of PostgreSQL's. Resident "
        "memory in MB, of the largest process and of all together. Writes a commit: of the service, from its /metrics.",
        [
            *("", "", "requests/s", "least to most", "of Rust", "of Go", "of FastAPI", "p50", "p90", "p99", "p99.9"),
            *("CPU µs", "PG µs", "largest MB", "all MB", "writes a commit"),
        ],
        rows,
        texts=2,
    )


def _ceilings(run: Run) -> Table:
    rows: list[list[str]] = []
    for operation in names(run.ceilings, "operation"):
        single, piped = (
            next(one for one in run.ceilings if (one.operation, one.pipelined) == (operation, pipelined))
            for pipelined in (False, True)
        )
        rows.append(
            [operation, figure(single.rps), figure(single.postgres_us), figure(piped.rps), figure(piped.postgres_us)]
        )
    return Table(
        "PostgreSQL's own ceiling",
        "pgbench runs the same statements with as many connections and no service: one at a time on each, and "
        "pipelined, each statement its own transaction.",
        ["", "statements/s", "PG µs", "pipelined/s", "PG µs"],
        rows,
    )


def _open_loop(run: Run) -> Table:
    return Table(
        "Latency against rate: open loop",
        "Requests come at a fixed rate, whether or not those before are answered; each latency (ms) counts from the "
        "moment the request was due. `lag` is the generator's own lateness at its 99th percentile, `busy` its share of "
        "a core.",
        ["", "", "requests/s due", "answered/s", "p50", "p90", "p99", "p99.9", "lag", "busy"],
        [
            [
                *(one.operation, one.target, figure(one.rate), figure(one.answered)),
                *(figure(value, 2) for value in (one.p50, one.p90, one.p99, one.p999, one.lag_ms, one.busy)),
            ]
            for one in run.open_loop
        ],
        texts=2,
    )


STAGES = {
    "http": "HTTP server",
    "application": "application",
    "lane": "lane",
    "rows": "rows → structs",
    "encode": "encode",
    "unexplained": "unexplained",
    "service": "the service",
    "postgres": "PostgreSQL",
}


def _stages(run: Run) -> Table:
    return Table(
        "What a request costs, stage by stage",
        "µs of CPU, one worker. Each stage is the difference of two measurements that differ in it, so `unexplained` "
        "is what the whole costs beyond the sum of its parts.",
        ["", *STAGES.values()],
        [[one.operation, *(figure(getattr(one, name), 1) for name in STAGES)] for one in run.stages],
    )


def _baselines(run: Run) -> Table:
    return Table(
        "Baselines",
        "A constant answer of a task's size, one worker.",
        ["", "requests/s", "CPU µs"],
        [[one.name, figure(one.rps), figure(one.us, 1)] for one in run.baselines],
    )


def _scale(run: Run) -> Table:
    return Table(
        "As work grows",
        "The service alone. The median, then the least and the most; p99 in ms, CPU in µs a request.",
        ["", "", "", "requests/s", "least to most", "p99", "CPU µs", "PG µs"],
        [
            [
                *(one.operation, one.axis, f"{one.value:,}", figure(one.rps), f"{one.least:,.0f} to {one.most:,.0f}"),
                *(figure(one.p99, 1), figure(one.service_us), figure(one.postgres_us)),
            ]
            for one in run.scale
        ],
        texts=3,
    )


def _remote_peaks(run: Run) -> Table:
    peaks = run.remote.peaks if run.remote else []
    rows: list[list[str]] = []
    for operation in names(peaks, "operation"):
        for target in names(peaks, "target"):
            samples = [one for one in peaks if (one.target, one.operation) == (target, operation)]
            rps = [one.rps for one in samples]
            rivals = [
                middle([one for one in peaks if (one.target, one.operation) == (peer, operation)], "rps")
                for peer in (RUST, GO)
            ]
            rows.append(
                [
                    *(operation, target, figure(statistics.median(rps)), f"{min(rps):,.0f} to {max(rps):,.0f}"),
                    *(figure(statistics.median(rps) / rival if rival else None, 2) for rival in rivals),
                    *(figure(middle(samples, "p50"), 1), figure(middle(samples, "p99"), 1)),
                    *(figure(middle(samples, "service_us")), figure(middle(samples, "group_size"), 1)),
                ]
            )
    return Table(
        "Remote database",
        "A round trip of 1 ms and commits of 3 ms, 64 clients; as many database connections for each target.",
        ["", "", "requests/s", "least to most", "of Rust", "of Go", "p50", "p99", "CPU µs", "writes a commit"],
        rows,
        texts=2,
    )


def _remote_waits(run: Run) -> Table:
    waits = run.remote.waits if run.remote else []
    rows: list[list[str]] = []
    for target in names(waits, "target"):
        for disturbance in names(waits, "disturbance"):
            found = [one for one in waits if (one.target, one.disturbance) == (target, disturbance)]
            quiet = [one for one in waits if (one.target, one.disturbance) == (target, "none")]
            rows.append([target, disturbance])
            for operation in ("gets", "creates"):
                p50, p99 = (middle([getattr(one, operation) for one in found], name) for name in ("p50", "p99"))
                calm = middle([getattr(one, operation) for one in quiet], "p99")
                rows[-1] += [figure(p50, 1), figure(p99, 1), figure(p99 / calm if p99 and calm else None, 2)]
            rows[-1].append(figure(middle(found, "creates_per_s")))
    return Table(
        "Remote database, disturbed",
        "Latencies (ms) of other users' gets and creates at a fixed rate (open loop, 4 gets to 1 create): undisturbed, "
        "while ten writers wait for a row that another session holds locked, and with a statement of 300 ms every "
        "second. Then other users' creates a second in a closed loop.",
        [
            *("", "disturbance", "get p50", "get p99", "of undisturbed"),
            *("create p50", "create p99", "of undisturbed", "creates/s"),
        ],
        rows,
        texts=2,
    )


def _flood(run: Run) -> Table:
    return Table(
        "One user floods",
        "p99 (ms) of another user's gets at a fixed rate: without a flood, with one of another process of the service, "
        "with one of the same process; and errors of these gets. The flood is a closed loop of gets, or of batches of "
        "8 MiB.",
        ["connections", "of", "flood/s", "not served", "without", "elsewhere", "with", "ratio", "errors"],
        [
            [
                *(str(one.connections), "batches" if one.batches else "gets"),
                *(figure(one.flood_rps, int(one.batches)), figure(one.flood_rejected)),
                *(figure(one.quiet_p99, 1), figure(one.elsewhere_p99, 1), figure(one.flooded_p99, 1)),
                figure(one.ratio, 2),
                figure(sum(one.errors.values())),
            ]
            for one in run.flood
        ],
        texts=2,
    )
