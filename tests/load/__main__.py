"""The command line of the harness: `python -m tests.load --help`."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import msgspec
import psutil
import psycopg
from hdrh.histogram import HdrHistogram
from rich.console import Console
from rich.progress import Progress

from service.operations.embedded import Embedded, EmbeddedError
from tests.load import (
    accounts,
    ceiling,
    closed_loop,
    database,
    open_loop,
    remote,
    report,
    results,
    scale,
    soak,
    stages,
    targets,
)
from tests.load.results import Run
from tests.load.targets import BUN, FASTAPI, GO, LITESTAR, NEEDED, RUST, SERVICE, Plan, Target
from tests.load.workload import OPERATIONS, Workload

RESULTS = Path(__file__).parent / "results"
ROWS = (10_000, 1_000_000)
MANY_ROWS = 10_000_000
SHARES = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.2)  # of the closed loop's peak
TURNS = 2  # of each rate, put together
BUSY_PERCENT = 10
PEERS = (RUST, GO, BUN, LITESTAR, FASTAPI)


class Options(msgspec.Struct):
    users: int
    tasks: int
    seconds: float
    repeats: int
    connections: int
    db_connections: int
    workers: int
    results: Path
    compare: Path | None


OPTIONS = [
    click.option("--users", type=click.IntRange(1), default=1000, show_default=True, help="Users in the data."),
    click.option("--tasks", type=click.IntRange(1), default=100_000, show_default=True, help="Tasks in the data."),
    click.option("--seconds", type=click.FloatRange(1), default=2.0, show_default=True, help="Of each measurement."),
    click.option("--repeats", type=click.IntRange(1), default=4, show_default=True, help="Of each, interleaved."),
    click.option("--connections", type=click.IntRange(1), default=32, show_default=True, help="Of the closed loop."),
    click.option(
        *("--db-connections",),
        type=click.IntRange(2),
        default=16,
        show_default=True,
        help="To the database, of all of a target's processes together.",
    ),
    click.option(
        "--workers", type=click.IntRange(1), default=2, show_default=True, help="Of the service and the peers."
    ),
    click.option(
        "--results", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Folder for them."
    ),
    click.option(
        "--compare", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A run.json to compare with."
    ),
]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options that all share, as one struct."""

    @wraps(command)
    def wrapped(**given: Any) -> None:
        shared = {field: given.pop(field) for field in Options.__struct_fields__}
        command(Options(**shared), **given)

    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped


class Bench:
    """One run: what it is to measure, what it has found, and how it says so."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.workload = Workload(options.users, options.tasks)
        self.console = Console()
        self.run: Run = results.new({name: str(value) for name, value in msgspec.structs.asdict(options).items()})
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        self.progress = self._stack.enter_context(Progress(console=self.console, transient=True))
        busy = psutil.cpu_percent(1)
        self.run.machine["busy before"] = f"{busy:.0f} %"
        if busy > BUSY_PERCENT:
            self.say(
                f"The machine is {busy:.0f} % busy with other things: CPU a request will tell something, requests a "
                "second will not, since more processes get a greater share"
            )
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.__exit__(*details)  # pyright: ignore[reportArgumentType]

    def database(self) -> Embedded:
        """The database, with the data in it, until the end of the run."""
        cluster = self._stack.enter_context(database.cluster())
        database.migrate(cluster.url)
        database.load(cluster.url, self.workload.users, self.workload.tasks, self.progress)
        self.run.postgres = database.described(cluster.url)
        return cluster

    def plans(self, *wanted: str) -> list[Plan]:
        """The service and its peers, except those whose tools are missing."""
        options = self.options
        found: list[Plan] = []
        for name in wanted:
            if name == SERVICE:
                plan = targets.service(options.db_connections, options.workers)
            elif name in NEEDED:
                plan = targets.compiled(name, options.db_connections, options.workers)
            else:
                plan = targets.peer(name, options.db_connections, options.workers)
            if plan is None:
                self.say(f"{name} is left out: it needs {NEEDED[name]}")
            else:
                found.append(plan)
        return found

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def said(self, sample: closed_loop.Sample | remote.Wait) -> None:
        """Shows a sample as it comes. Any error fails the run."""
        if isinstance(sample, remote.Wait):
            waits = f"gets p99 {sample.p99:8.1f} ms  creates {sample.creates:8,.0f}/s"
            self.say(f"{sample.target:24} {sample.disturbance:6} {waits}")
            return
        cost = "" if sample.service_us is None else f"  CPU {sample.service_us:5.0f} µs"
        cost += "" if sample.postgres_us is None else f"  PG {sample.postgres_us:4.0f} µs"
        self.say(
            f"{sample.target:24} {sample.operation:6} {sample.connections:4} clients {sample.rps:9,.0f}/s"
            f"  p99 {sample.p99:7.1f} ms{cost}"
        )
        if sample.failed:
            raise RuntimeError(f"{sample.target} answered {sample.operation} with errors: {sample.errors}")

    def finish(self) -> None:
        """Writes and shows the results."""
        folder = self.options.results / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder.mkdir(parents=True)
        comparison = results.compared(results.read(self.options.compare), self.run) if self.options.compare else None
        results.write(self.run, folder)
        written = report.write(self.run, folder, comparison)
        for table in ([comparison] if comparison else []) + results.tables(self.run):
            self.say(f"\n{table.text()}")
        self.say(f"\n{written}\n{written.with_name('run.json')}")


def measure_peaks(
    bench: Bench, up: list[Target], operations: tuple[str, ...], workload: Workload, postgres: int | None
) -> None:
    options = bench.options
    for target in up:  # warm: connections, prepared statements, caches
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


def measure_ceiling(bench: Bench, cluster: Embedded) -> None:
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
                f"{'pgbench':24} {operation:6} {way:12} {found.rps:9,.0f}/s{'PG':>34} {found.postgres_us:4.0f} µs"
            )


def measure_curve(bench: Bench, up: list[Target], workload: Workload, operation: str) -> None:
    """Latency against rate, at shares of the service's peak, the targets interleaved."""
    peak = results.middle(results.of(bench.run, SERVICE, operation), "rps") or 0
    for share in SHARES:
        wanted = max(1, round(peak * share, -2))
        for target in up:
            found = [
                open_loop.run(open_loop.Job(target.url, operation, workload, wanted, bench.options.seconds, seed=turn))
                for turn in range(TURNS)
            ]
            rated = merged(target.name, operation, wanted, found)
            bench.run.open_loop.append(rated)
            bench.say(
                f"{target.name:24} {operation:6} {wanted:6,.0f}/s due {rated.answered:9,.0f}/s  p50 {rated.p50:7.1f}"
                f"  p99 {rated.p99:7.1f} ms"
            )


def merged(target: str, operation: str, wanted: float, found: list[open_loop.Found]) -> results.Rated:
    """Several runs at one rate as one. Raises RuntimeError where there was an error."""
    if errors := sum(one.errors for one in found):
        raise RuntimeError(f"{target} answered {errors} errors to {operation} at {wanted:,.0f} requests a second")
    latencies = HdrHistogram.decode(found[0].histogram)
    for one in found[1:]:
        latencies.decode_and_add(one.histogram)
    p50, p90, p99, p999 = (latencies.get_value_at_percentile(share) / 1e3 for share in (50, 90, 99, 99.9))
    return results.Rated(
        *(target, operation, wanted, sum(one.answered for one in found) / sum(one.seconds for one in found)),
        *(p50, p90, p99, p999),
        lag_ms=max(one.lag_us for one in found) / 1e3,
        busy=max(one.busy for one in found),
        histogram=latencies.encode().decode(),
    )


def measure_stages(bench: Bench, cluster: Embedded) -> None:
    options = bench.options
    bench.run.stages, bench.run.baselines = stages.measure(
        *(cluster.url, cluster.pid or 0, bench.workload),
        connections=options.connections,
        database_connections=options.db_connections,
        seconds=options.seconds,
        repeats=options.repeats,
        said=bench.said,
    )


def measure_scale(bench: Bench, cluster: Embedded, rows: tuple[int, ...], *, together: bool = False) -> None:
    options = bench.options
    shared: Any = {
        "database_connections": options.db_connections,
        "seconds": options.seconds,
        "repeats": options.repeats,
        "said": bench.said,
    }
    clients = options.connections
    bench.run.scale += scale.rows(cluster, rows, bench.progress, connections=clients, together=together, **shared)
    bench.run.scale += scale.connections(cluster, bench.workload, **shared)
    bench.run.scale += scale.workers(cluster, bench.workload, connections=clients, **shared)


@contextlib.contextmanager
def reported() -> Generator[None]:
    """What went wrong, in a line. SIGTERM ends a run as Ctrl-C does: what was started is ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (RuntimeError, EmbeddedError, OSError, psycopg.Error, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@with_options
@click.option(
    "--url", help="A service that runs already, instead of one of the harness's own. Only its requests are measured."
)
@click.option(
    "--token",
    envvar="LOAD_TOKEN",
    default="",
    help="The bearer token to show it, or LOAD_TOKEN in the environment. Its `sub` is the user whose tasks are used.",
)
@click.option("--user", default="load-test", show_default=True, help="The user, where there is no token.")
@click.option("--elsewhere", is_flag=True, help="Allow a --url that is not on this machine.")
@click.pass_context
def cli(context: click.Context, options: Options, url: str | None, token: str, user: str, elsewhere: bool) -> None:
    """How fast the service is, what a request costs, and how it compares with its peers.

    Without a command: everything but `remote` and `soak`, in less than ten minutes.
    """
    if context.invoked_subcommand is not None:
        return
    with reported(), Bench(options) as bench:
        if url is None:
            measure_everything(bench)
        else:
            measure_running(bench, url, token, user, elsewhere)
        bench.finish()


def measure_everything(bench: Bench) -> None:
    options = bench.options
    cluster = bench.database()
    with targets.running(bench.plans(SERVICE, *PEERS), cluster.url) as up:
        measure_peaks(bench, up, OPERATIONS, bench.workload, cluster.pid)
        measure_curve(bench, [target for target in up if target.name in (SERVICE, GO)], bench.workload, "mixed")
    options.repeats = min(options.repeats, 2)  # what is told by CPU rather than by time needs less of it
    measure_ceiling(bench, cluster)
    measure_stages(bench, cluster)
    measure_scale(bench, cluster, ROWS)


def measure_running(bench: Bench, url: str, token: str, user: str, elsewhere: bool) -> None:
    if urlsplit(url).hostname not in accounts.LOOPBACK and not elsewhere:
        raise click.UsageError(f"{url} is not on this machine: load may hurt others. --elsewhere says that you mean it")
    user = accounts.user_of(token) if token else user
    with accounts.using(url, token, user, bench.options.tasks, bench.progress) as (target, workload):
        measure_peaks(bench, [target], OPERATIONS, workload, None)
        measure_curve(bench, [target], workload, "mixed")


@cli.command()
@with_options
@click.option("--only", multiple=True, help="A peer to compare with, as its name begins; all where not given.")
@click.option("--operation", "operations", multiple=True, type=click.Choice(OPERATIONS), help="All where not given.")
def compare(options: Options, only: tuple[str, ...], operations: tuple[str, ...]) -> None:
    """The closed loop alone: the service and its peers."""
    with reported(), Bench(options) as bench:
        cluster = bench.database()
        peers = [name for name in PEERS if not only or name.lower().startswith(only)]
        with targets.running(bench.plans(SERVICE, *peers), cluster.url) as up:
            measure_peaks(bench, up, operations or OPERATIONS, bench.workload, cluster.pid)
        bench.finish()


@cli.command()
@with_options
def batch(options: Options) -> None:
    """The closed loop of batches of 1000, and of single creates."""
    with reported(), Bench(options) as bench:
        cluster = bench.database()
        with targets.running(bench.plans(SERVICE), cluster.url) as up:
            measure_peaks(bench, up, ("create", closed_loop.CREATE_MANY), bench.workload, cluster.pid)
        bench.finish()


@cli.command(name="stages")
@with_options
def stages_(options: Options) -> None:
    """What a request costs, stage by stage, and the baselines under it."""
    with reported(), Bench(options) as bench:
        measure_stages(bench, bench.database())
        bench.finish()


@cli.command(name="ceiling")
@with_options
def ceiling_(options: Options) -> None:
    """What PostgreSQL gives with no service in between."""
    with reported(), Bench(options) as bench:
        measure_ceiling(bench, bench.database())
        bench.finish()


@cli.command()
@with_options
@click.option("--operation", type=click.Choice(OPERATIONS), default="mixed", show_default=True)
def curve(options: Options, operation: str) -> None:
    """Latency against rate, up to and past saturation."""
    with reported(), Bench(options) as bench:
        cluster = bench.database()
        with targets.running(bench.plans(SERVICE, GO), cluster.url) as up:
            measure_peaks(bench, up, (operation,), bench.workload, cluster.pid)
            measure_curve(bench, up, bench.workload, operation)
        bench.finish()


@cli.command(name="scale")
@with_options
@click.option("--many-rows", is_flag=True, help=f"Measure {MANY_ROWS:,} rows too: loading them takes minutes.")
@click.option("--together", is_flag=True, help="Load each user's tasks side by side, not spread over the table.")
def scale_(options: Options, many_rows: bool, together: bool) -> None:
    """How the cost grows with rows, connections and workers."""
    with reported(), Bench(options) as bench:
        rows = (*ROWS, MANY_ROWS) if many_rows else ROWS
        measure_scale(bench, bench.database(), rows, together=together)
        bench.finish()


@cli.command(name="remote")
@with_options
@click.option(
    "--gets", type=click.IntRange(1), default=1000, show_default=True, help="Gets a second during the disturbances."
)
def remote_(options: Options, gets: int) -> None:
    """A database 1 ms away that takes 3 ms to commit, a locked row, a slow statement."""
    with reported(), Bench(options) as bench:
        bench.run.remote = remote.measure(
            *(bench.plans(SERVICE, GO), bench.workload, bench.progress),
            gets=gets,
            seconds=options.seconds,
            repeats=options.repeats,
            said=bench.said,
        )
        bench.finish()


@cli.command(name="soak")
@click.option("--minutes", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Of load.")
@click.option("--every", type=click.FloatRange(5), default=30.0, show_default=True, help="Seconds between two faults.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what the clients ask for.")
def soak_command(minutes: float, every: float, seed: int) -> None:
    """Mixed load, a fault every half minute, and a ledger that has to balance."""
    if not asyncio.run(soak.run(minutes, every, seed, click.echo)):
        raise click.ClickException("see above")


@cli.command(name="report")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--compare", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A run.json to compare with."
)
def report_(file: Path, compare: Path | None) -> None:
    """Writes the report of a run.json anew, compared with another."""
    run = results.read(file)
    comparison = results.compared(results.read(compare), run) if compare else None
    click.echo(report.write(run, file.parent, comparison))
    for table in ([comparison] if comparison else []) + results.tables(run):
        click.echo(f"\n{table.text()}")


if __name__ == "__main__":
    cli(prog_name="python -m tests.load")
