"""One run of the harness on its own database: the options that all commands share, the result, and how it is shown."""

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click
import httpx
import msgspec
import psutil
import psycopg

from service.operations.embedded import Embedded, EmbeddedError
from tests.load import closed_loop, comparison, database, remote, report, results, tables, targets
from tests.load.numbers import Number
from tests.load.results import Run
from tests.load.targets import NEEDED, SERVICE, Plan
from tests.load.workload import Workload

RESULTS = Path(__file__).parent / "results"
BUSY_PERCENT = 10


class RunFile(click.Path):
    """The Run of a run.json."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, exists=True, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return results.read(cast(Path, super().convert(value, param, ctx)))
        except msgspec.DecodeError as error:
            self.fail(f"{value} is no run of this harness: {error}", param, ctx)


class Options(msgspec.Struct):
    users: int
    tasks: int
    seconds: float
    repeats: int
    connections: int
    db_connections: int
    workers: int
    results: Path
    compare: Run | None


OPTIONS = [
    click.option("--users", type=click.IntRange(1), default=1000, show_default=True, help="Users in the data."),
    click.option("--tasks", type=click.IntRange(1), default=100_000, show_default=True, help="Tasks in the data."),
    click.option("--seconds", type=Number(1), default=2.0, show_default=True, help="Of each measurement."),
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
    click.option("--compare", type=RunFile(), help="A run.json to compare with."),
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


class _Shown(logging.Handler):
    """Shows what the harness is doing."""

    def __init__(self) -> None:
        super().__init__()
        self._begin = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{time.monotonic() - self._begin:5.0f} s  {record.getMessage()}", err=True)


class Bench:
    """Entered for the time of a run. At its end the results are written and shown, also those of a run that fails."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.workload = Workload(options.users, options.tasks)
        given = msgspec.structs.asdict(options)
        del given["compare"]
        self.run: Run = results.new({name: str(value) for name, value in given.items()})
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        self._stack.enter_context(_reported())
        self._stack.enter_context(_logged())
        self._stack.push(self._finish)
        busy = psutil.cpu_percent(1)
        self.run.machine["busy before"] = f"{busy:.0f} %"
        if busy > BUSY_PERCENT:
            self.say(
                f"The machine is {busy:.0f} % busy with other things. CPU per request can still be compared, requests "
                "per second cannot: more processes get a greater share."
            )
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.__exit__(*details)  # pyright: ignore[reportArgumentType]

    def database(self, **settings: str) -> Embedded:
        """The database, with the data in it, until the end of the run."""
        cluster = self._stack.enter_context(database.cluster(**settings))
        database.migrate(cluster.url)
        database.load(cluster.url, self.workload.users, self.workload.tasks)
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
        click.echo(text)

    def said(self, sample: closed_loop.Sample | remote.Wait) -> None:
        """Shows a sample as it comes. Any error fails the run."""
        if isinstance(sample, remote.Wait):
            self.say(
                f"{sample.target:28} {sample.disturbance:6} gets p99 {sample.gets.p99:8.1f} ms  "
                f"creates p99 {sample.creates.p99:8.1f} ms  {sample.creates_per_s:8,.0f} creates/s"
            )
            return
        cost = "" if sample.service_us is None else f"  CPU {sample.service_us:5.0f} µs"
        cost += "" if sample.postgres_us is None else f"  PG {sample.postgres_us:4.0f} µs"
        cost += "" if sample.group_size is None else f"  {sample.group_size:.1f} writes a commit"
        self.say(
            f"{sample.target:28} {sample.operation:6} {sample.connections:4} clients {sample.rps:9,.0f}/s"
            f"  p99 {sample.p99:7.1f} ms{cost}"
        )
        if sample.failed:
            raise RuntimeError(f"{sample.target} answered {sample.operation} with errors: {sample.errors}")

    def _finish(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Writes and shows the results."""
        if not results.has_any(self.run):
            return
        if kind is not None:
            self.run.failure = str(error) or kind.__name__
        folder = self.options.results / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder.mkdir(parents=True)
        results.write(self.run, folder)
        compared = comparison.compared(self.options.compare, self.run) if self.options.compare else None
        written = report.write(self.run, folder, compared)
        for table in ([compared] if compared else []) + tables.tables(self.run):
            self.say(f"\n{table.text()}")
        self.say(f"\n{written}\n{written.with_name('run.json')}")


@contextlib.contextmanager
def _logged() -> Generator[None]:
    logger, handler = logging.getLogger("tests.load"), _Shown()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _reported() -> Generator[None]:
    """What went wrong, in a line. SIGTERM ends a run as Ctrl-C does: what was started is ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (RuntimeError, EmbeddedError, OSError, psycopg.Error, httpx.HTTPError) as error:
        raise click.ClickException(str(error)) from error
