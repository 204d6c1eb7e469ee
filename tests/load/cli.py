"""The commands: `python -m tests.load --help`."""

import asyncio
from pathlib import Path

import click

from tests.load import closed_loop, comparison, flood, measurements, remote, report, soak, tables, targets
from tests.load.bench import Bench, Options, RunFile, with_options
from tests.load.measurements import PEERS, ROWS
from tests.load.numbers import RATE, Number
from tests.load.results import Run
from tests.load.running.command import run
from tests.load.targets import BUN, GO, RUST, SERVICE
from tests.load.workload import OPERATIONS

MANY_ROWS = 10_000_000


class Commands(click.Group):
    """`all` is the command where none is given. Says where options belong: the group has none, since those before a
    command would not reach it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args or ["all"])
        except click.NoSuchOption as error:
            command = self._with_option(error.option_name, args)
            if command is None:
                raise
            raise click.UsageError(
                f"{error.option_name}: options come after a command, as in `python -m tests.load {command} "
                f"{error.option_name} …`",
                ctx,
            ) from None

    def _with_option(self, option: str, args: list[str]) -> str | None:
        """The command that is likely to be meant: one that is named, or that `--url` points to, or else the first of
        these that have the option.
        """
        likely = [arg for arg in args if arg in self.commands]
        likely += ["run"] * any(arg.partition("=")[0] == "--url" for arg in args)
        for name in (*likely, "all", "run", *self.commands):
            if any(option in parameter.opts for parameter in self.commands[name].params):
                return name
        return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """How fast the service is, what a request costs, and how it compares with its peers.

    For a service that runs already: `run`. All other commands start a database, the service and its peers, and end
    them. Without a command: `all`.
    """


cli.add_command(run)


@cli.command(name="all")
@with_options
def all_(options: Options) -> None:
    """Everything but `remote`, `flood`, `soak` and `run`, in about ten minutes."""
    with Bench(options) as bench:
        measurements.everything(bench)


@cli.command()
@with_options
@click.option("--only", multiple=True, help="A peer to compare with, as its name begins; all where not given.")
@click.option("--operation", "operations", multiple=True, type=click.Choice(OPERATIONS), help="All where not given.")
def compare(options: Options, only: tuple[str, ...], operations: tuple[str, ...]) -> None:
    """The closed loop alone: the service and its peers."""
    chosen = tuple(name.lower() for name in only)
    peers = [name for name in PEERS if not chosen or name.lower().startswith(chosen)]
    if not peers:
        raise click.UsageError(f"no peer is called {', '.join(only)}: there are {', '.join(PEERS)}")
    with Bench(options) as bench:
        cluster = bench.database()
        with targets.running(bench.plans(SERVICE, *peers), cluster.url) as up:
            measurements.peaks(bench, up, operations or OPERATIONS, bench.workload, cluster.pid)


@cli.command()
@with_options
def batch(options: Options) -> None:
    """The closed loop of batches of 1000, and of single creates."""
    with Bench(options) as bench:
        cluster = bench.database()
        with targets.running(bench.plans(SERVICE), cluster.url) as up:
            measurements.peaks(bench, up, ("create", closed_loop.CREATE_MANY), bench.workload, cluster.pid)


@cli.command()
@with_options
def stages(options: Options) -> None:
    """The cost of a request, stage by stage, and the baselines."""
    with Bench(options) as bench:
        measurements.costs(bench, bench.database())


@cli.command()
@with_options
def ceiling(options: Options) -> None:
    """PostgreSQL alone: pgbench with the service's statements."""
    with Bench(options) as bench:
        measurements.ceilings(bench, bench.database())


@cli.command()
@with_options
@click.option("--operation", type=click.Choice(OPERATIONS), default="mixed", show_default=True)
@click.option(
    *("--rate", "rates"),
    multiple=True,
    type=RATE,
    help="Requests a second; repeatable.  [default: shares of the service's peak, which is measured first]",
)
def curve(options: Options, operation: str, rates: tuple[float, ...]) -> None:
    """Latency against rate (open loop), up to and past saturation."""
    with Bench(options) as bench:
        cluster = bench.database()
        with targets.running(bench.plans(SERVICE, GO), cluster.url) as up:
            measurements.peaks(bench, up, (operation,), bench.workload, cluster.pid)
            measurements.curve(bench, up, bench.workload, operation, rates)


@cli.command()
@with_options
@click.option("--many-rows", is_flag=True, help=f"Measure {MANY_ROWS:,} rows too: loading them takes minutes.")
@click.option("--together", is_flag=True, help="Load each user's tasks side by side, not spread over the table.")
def scale(options: Options, many_rows: bool, together: bool) -> None:
    """How the cost grows with rows, connections and workers."""
    with Bench(options) as bench:
        rows = (*ROWS, MANY_ROWS) if many_rows else ROWS
        measurements.growth(bench, bench.database(), rows, together=together)


@cli.command(name="remote")
@with_options
@click.option("--rate", type=RATE, default=1000.0, show_default=True, help="Requests a second during disturbances.")
def remote_(options: Options, rate: float) -> None:
    """A database 1 ms away that takes 3 ms to commit, a locked row, a slow statement."""
    with Bench(options) as bench:
        cluster = bench.database(**remote.COMMIT)
        bench.run.remote = remote.measure(
            *(bench.plans(SERVICE, RUST, GO, BUN), cluster, bench.workload),
            rate=rate,
            seconds=options.seconds,
            repeats=options.repeats,
            said=bench.said,
        )


@cli.command(name="flood")
@with_options
@click.option(
    "--flooding", type=click.IntRange(1), default=1000, show_default=True, help="Connections of the user that floods."
)
@click.option("--batches", is_flag=True, help="The flood is of batches of 8 MiB, one after the other, not of gets.")
@click.option("--rate", type=RATE, default=200.0, show_default=True, help="Of the other user's gets.")
def flood_(options: Options, flooding: int, batches: bool, rate: float) -> None:
    """What one user's flood does to another user's latency."""
    if options.users < 2 or options.tasks < 2:
        raise click.UsageError("--users and --tasks have to be at least 2")
    with Bench(options) as bench:
        cluster = bench.database()
        with targets.running([*bench.plans(SERVICE), *bench.plans(SERVICE)], cluster.url) as [target, elsewhere]:
            for turn in range(options.repeats):
                found = flood.measure(
                    *(target, elsewhere, bench.workload),
                    connections=flooding,
                    batches=batches,
                    rate=rate,
                    seconds=options.seconds,
                    seed=turn,
                )
                bench.say(found.line())
                bench.run.flood.append(found)
    too_much = [one.too_much for one in bench.run.flood]
    if any(one.errors for one in bench.run.flood) or too_much.count(True) > too_much.count(False):
        raise click.ClickException("the other user had errors, or in most runs a p99 that was moved too much")


@cli.command(name="soak")
@click.option("--minutes", type=Number(0.1), default=10.0, show_default=True, help="Of load.")
@click.option("--every", type=Number(5), default=30.0, show_default=True, help="Seconds between two faults.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what the clients ask for.")
def soak_(minutes: float, every: float, seed: int) -> None:
    """Mixed load, a fault every half minute, and a ledger that has to balance."""
    if not asyncio.run(soak.run(minutes, every, seed, click.echo)):
        raise click.ClickException("see above")


@cli.command(name="report")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--compare", type=RunFile(), help="A run.json to compare with.")
def report_(file: Path, compare: Run | None) -> None:
    """Writes the report of a run.json anew, compared with another."""
    found: Run = RunFile().convert(file, None, None)
    compared = comparison.compared(compare, found) if compare else None
    click.echo(report.write(found, file.parent, compared))
    for table in ([compared] if compared else []) + tables.tables(found):
        click.echo(f"\n{table.text()}")
