"""`python -m tests.load run`."""

import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.load.generator.job import MAX_RATE
from tests.load.numbers import Number
from tests.load.running import accounts, options, outcome, report, session, thresholds
from tests.load.running.accounts import ServiceError
from tests.load.running.options import Duration, Header, Mix, Url
from tests.load.running.session import Finished, Plan
from tests.load.running.thresholds import Threshold
from tests.load.workload import OPERATIONS, Account

RESULTS = Path(__file__).parents[1] / "results"
USER = "load-test"
CONNECTIONS, OPEN_CONNECTIONS = 10, 100
MAX_TASKS = 1_000_000  # in all
FAILED = 99  # as k6 has it

EXAMPLES = """\b
Examples:
  # ten seconds, ten connections, a mix of all operations
  python -m tests.load run --url http://127.0.0.1:8000
\b
  # like wrk -c 200 -d 30s: each connection sends when it has its response
  python -m tests.load run --url http://127.0.0.1:8000 --operation get --connections 200 --duration 30s
\b
  # like k6's constant-arrival-rate, wrk2 -R: 500 requests a second come, whatever the service does
  python -m tests.load run --url http://127.0.0.1:8000 --rate 500 --duration 1m --warm-up 10s
\b
  # in CI: exit status 99 where a threshold fails
  python -m tests.load run --url http://127.0.0.1:8000 --rate 200 \\
      --threshold 'p99<50ms' --threshold 'errors<1%' --threshold 'get:p95<20ms' --json run.json
\b
  # with authentication: one user, or one for each line of a file
  LOAD_TOKEN=eyJ… python -m tests.load run --url https://tasks.example.com --elsewhere
  python -m tests.load run --url https://tasks.example.com --elsewhere --tokens tokens.txt
\b
Exit status, the first that applies: 2, wrong options; 130 or 143, ended by Ctrl-C or SIGTERM (tasks are deleted all
the same); 1, the service cannot be used, no request succeeded, or tasks are left; 99, a threshold failed; 0, none of
these.


Durations: 30s, 2m, 1m30s, 500ms; a number without a unit is seconds.
Thresholds: a metric, one of < <= > >=, and a limit; OPERATION: in front of it for one operation.
  p50 … p99.9, mean, max   latency: us, ms or s
  errors                   a share, as in errors<1%, or a count, as in errors<5
  rps                      successes a second
Errors are all but 2xx, and requests without a response within --timeout.
"""


class ThresholdType(click.ParamType):
    name = "threshold"

    def convert(self, value: "str | Threshold", param: click.Parameter | None, ctx: click.Context | None) -> Threshold:
        try:
            return thresholds.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(epilog=EXAMPLES)
@click.option("--url", type=Url(), required=True, help="The service: what comes before /api, a path prefix included.")
@click.option("--elsewhere", is_flag=True, help="Allow a URL that is not on this machine.")
@click.option(
    "--users",
    type=click.IntRange(1, 100_000),
    help=f"Users {USER}-1 to -N, without tokens: many where the service limits each user.  [default: 1]",
)
@click.option("--token", envvar="LOAD_TOKEN", help="A bearer token; better in LOAD_TOKEN.")
@click.option("--user", help=f"Whose tasks: for a token that is no JWT, or without one.  [default: `sub`, or {USER}-1]")
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    help="A file: on each line a JWT, or a user and a token; # begins a comment.",
)
@click.option(
    "--tasks", type=click.IntRange(1, MAX_TASKS), default=100, show_default=True, help="Made for each user beforehand."
)
@click.option("--keep", is_flag=True, help="Leave the tasks, as with a service that has no DELETE.")
@click.option("--operation", type=click.Choice(OPERATIONS), help="Only this one.  [default: mixed]")
@click.option(
    "--mix",
    type=Mix(),
    help="Weights of get, list (the first 50), create and toggle: numbers from 0, of any sum.  [default: 70/20/5/5]",
)
@click.option("--rate", type=Number(0, MAX_RATE, min_open=True), help="Open loop: requests a second.")
@click.option(
    "--connections",
    type=click.IntRange(1, 100_000),
    help=f"Closed loop: requests in flight; with --rate at most so many.  [default: {CONNECTIONS}; {OPEN_CONNECTIONS}]",
)
@click.option("--duration", type=Duration(), default="10s", show_default=True, help="How long to measure.")
@click.option("--warm-up", type=Duration(), default="2s", show_default=True, help="Before that, not measured.")
@click.option(
    "--timeout",
    type=Duration(),
    default="10s",
    show_default=True,
    help="Of a request, also of those in flight at the end.",
)
@click.option("--header", "headers", type=Header(), multiple=True, help="'Name: value' for each request; repeatable.")
@click.option("--insecure", is_flag=True, help="Do not check certificates.")
@click.option(
    *("--threshold", "limits"),
    type=ThresholdType(),
    multiple=True,
    help="'p99<50ms', 'errors<1%', 'rps>1000', 'get:p95<20ms'; repeatable; see below.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="All figures, to a file.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A line a second and operation, to a file such as run.csv; the histogram to run-histogram.csv.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Folder of reports.  [default: tests/load/results]",
)
@click.pass_context
def run(
    context: click.Context,
    *,
    url: str,
    elsewhere: bool,
    users: int | None,
    token: str | None,
    user: str | None,
    tokens: Path | None,
    tasks: int,
    keep: bool,
    operation: str | None,
    mix: dict[str, float] | None,
    rate: float | None,
    connections: int | None,
    duration: float,
    warm_up: float,
    timeout: float,
    headers: tuple[tuple[str, str], ...],
    insecure: bool,
    limits: tuple[Threshold, ...],
    json_file: Path | None,
    csv_file: Path | None,
    results: Path,
) -> None:
    """Load on a service that runs already: latency over time, histogram, errors, thresholds.

    The run makes the tasks that it needs, in small numbers, and deletes them afterwards, also after Ctrl-C.
    """
    if not options.is_local(url) and not elsewhere:
        raise click.UsageError(f"{url} is not on this machine: load may hurt others. --elsewhere says that you mean it")
    if duration <= 0 or timeout <= 0:
        raise click.UsageError("--duration and --timeout have to be above 0")
    plan = Plan(
        url=url,
        accounts=_accounts(users, token, user, tokens),
        tasks=tasks,
        mix=options.chosen_mix(operation, mix),
        rate=rate,
        connections=connections or (CONNECTIONS if rate is None else OPEN_CONNECTIONS),
        seconds=duration,
        warm_up=warm_up,
        timeout=timeout,
        headers=dict(headers),
        insecure=insecure,
        keep=keep,
    )
    if plan.tasks * len(plan.accounts) > MAX_TASKS:
        raise click.UsageError(
            f"{plan.tasks:,} tasks for each of {len(plan.accounts):,} users are more than {MAX_TASKS:,}: --tasks"
        )
    if rate is not None and round(rate * duration) < 1:
        raise click.UsageError(f"--rate {rate:g} for --duration {duration:g}s is less than one request")
    for limit in limits:
        if limit.operation is not None and not plan.mix.get(limit.operation):
            raise click.UsageError(f"--threshold {limit.text!r}: the run has no {limit.operation}")
    folder = _writable(results, plan.run, {"--json": json_file, "--csv": csv_file})
    try:
        finished = session.run(plan, _say)
        status = _report(plan, finished, limits, folder, json_file, csv_file)
    except (ServiceError, RuntimeError, OSError) as error:
        raise click.ClickException(str(error)) from None
    context.exit(status)


def _accounts(users: int | None, token: str | None, user: str | None, tokens: Path | None) -> list[Account]:
    """Raises click.UsageError."""
    if sum(given is not None for given in (users, user, tokens)) > 1 or (token and (users or tokens)):
        raise click.UsageError("--users, --tokens, and --token or --user exclude each other")
    try:
        if tokens is not None:
            return accounts.read_tokens(tokens)
        if token:
            return [Account(user or accounts.user_of(token), accounts.check_token(token, "--token"))]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return [Account(user)] if user else [Account(f"{USER}-{number}") for number in range(1, (users or 1) + 1)]


def _writable(results: Path, run: str, files: dict[str, Path | None]) -> Path:
    """The folder of this run's report. Tried before the run, so that its figures cannot be lost at its end."""
    with _written("--results", results):
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    for option, file in files.items():
        if file is not None:
            with _written(option, file):
                existed = file.exists()
                file.open("ab").close()
                if not existed:
                    file.unlink()
    return results / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-run-{run}"


@contextmanager
def _written(option: str, place: Path) -> Generator[None]:
    """Raises click.UsageError, with the path as it was given."""
    try:
        yield
    except OSError as error:
        raise click.UsageError(f"{option} {place} cannot be written: {error.strerror}") from None


def _report(
    plan: Plan,
    finished: Finished,
    limits: tuple[Threshold, ...],
    folder: Path,
    json_file: Path | None,
    csv_file: Path | None,
) -> int:
    """Shows and writes the result. Returns the exit status."""
    result = finished.result
    if result is None or not result.requests:
        _say("Nothing was measured.")
        return finished.status or 1
    found = outcome.summarize(
        result,
        [thresholds.check(limit, result) for limit in limits],
        run=plan.run,
        url=plan.url,
        load=plan.load(),
        options={"timeout": f"{plan.timeout:g} s", "tasks": f"{plan.tasks} a user"}
        | ({"headers": ", ".join(plan.headers)} if plan.headers else {}),
        tasks=outcome.Tasks(
            [account.user for account in plan.accounts],
            plan.tasks * len(plan.accounts),
            finished.deleted,
            finished.left,
        ),
    )
    folder.mkdir(parents=True)
    click.echo(f"\n{report.text(found)}\n")
    click.echo(report.write(found, folder))
    outcome.write_json(found, folder / "run.json")
    outcome.write_csv(found, folder / "over_time.csv")
    if json_file is not None:
        outcome.write_json(found, json_file)
    if csv_file is not None:
        outcome.write_csv(found, csv_file)
    if finished.status:
        return finished.status
    if result.errors == result.requests or (not plan.keep and finished.left != 0):
        return 1
    return 0 if all(one.held for one in found.thresholds) else FAILED


def _say(text: str) -> None:
    """To standard error: standard output is for the figures."""
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)
