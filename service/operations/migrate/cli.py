"""`tasks-service migrate …`: the commands, and when they ask first."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from service.operations import catalog, embedded
from service.operations import migrate as migrations
from service.operations.group import Group
from service.operations.in_use import embedded_place, naming, owner_variable, place_of, settings_or_exit
from service.operations.migrate import MigrationError, files, guard, squawk
from service.operations.migrate import distribute as distribution
from service.operations.migrate import lint as linter
from service.operations.migrate.lock import describe
from service.operations.migrate.output import Progress, print_json, print_plan, print_states
from service.operations.migrate.run import WAIT_S
from service.operations.migrate.session import connect

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Print the SQL in order and change nothing.")
wait = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=WAIT_S,
    show_default=True,
    help="Seconds to wait for another migration to end.",
)

allow_shared_schema = click.option(
    guard.ALLOW, "allow_shared_schema", is_flag=True, help="Continue although others may create objects in the schema."
)


@click.group(cls=Group)
def migrate() -> None:
    """Brings the schema forward and back. Uses MIGRATION_DATABASE_URL, or DATABASE_URL, or the embedded database."""


@migrate.command()
@as_json
@click.option(
    "--check", "only_applied", is_flag=True, help="Exit 1 unless every migration is applied, as its file says."
)
def status(as_json: bool, only_applied: bool) -> None:
    """Shows for each migration whether it is applied, and when. Changes nothing."""
    with _reading() as url:
        states = migrations.status(url)
    if as_json:
        print_json(states)
    else:
        print_states(states)
    if only_applied and any(state.state in ("pending", "changed", "incomplete") for state in states):
        raise click.exceptions.Exit(1)


@migrate.command()
@click.option("--to", metavar="ID", help="The last migration to apply, as its id or number.")
@dry_run
@click.option("--yes", is_flag=True, help="Do not ask about statements that rewrite or lock a table with rows.")
@allow_shared_schema
@wait
@as_json
def apply(to: str | None, dry_run: bool, yes: bool, allow_shared_schema: bool, wait_s: float, as_json: bool) -> None:
    """Applies pending migrations. Several may run at once: one applies, the others wait for it."""
    if dry_run:
        with _reading() as url:
            print_plan(migrations.plan_apply(url, to), "apply", as_json)
        return

    def consent(danger: str) -> bool:
        if not yes and not sys.stdin.isatty():
            return False
        _say(f"warning: {danger}")
        return yes or click.confirm("Apply it all the same?", err=True)

    with _writing(names_it=True) as url:
        done = migrations.apply(
            url,
            to=to,
            wait_s=wait_s,
            consent=consent,
            allow_shared_schema=allow_shared_schema,
            say=_say,
            progress=Progress("applied", quiet=as_json),
        )
    if as_json:
        print_json({"applied": done})
    elif not done:
        click.echo("nothing to apply")


@migrate.command()
@click.option("--to", metavar="ID", help="The migration that becomes the last applied one; 0: none.")
@click.option("--count", type=click.IntRange(min=1), help="How many to roll back.  [default: 1]")
@dry_run
@click.option("--yes", is_flag=True, help="Do not ask.")
@allow_shared_schema
@wait
@as_json
def rollback(
    to: str | None, count: int | None, dry_run: bool, yes: bool, allow_shared_schema: bool, wait_s: float, as_json: bool
) -> None:
    """Rolls back the last applied migrations, with the data in what they made."""
    if to is not None and count is not None:
        raise click.UsageError("--to and --count cannot be used together")
    if dry_run:
        with _reading() as url:
            print_plan(migrations.plan_rollback(url, to, count), "rollback", as_json)
        return
    with _writing(names_it=True) as url:
        plan = migrations.plan_rollback(url, to, count)
        for migration in plan:
            _say(f"to roll back: {migration.id}" + (f": {migration.loss}" if migration.loss else ""))
        if plan and not yes:
            _ask("Roll back, with the data in what they made?")
        done = migrations.rollback(
            url,
            to=to,
            count=count,
            wait_s=wait_s,
            allow_shared_schema=allow_shared_schema,
            say=_say,
            progress=Progress("rolled back", quiet=as_json),
        )
    if as_json:
        print_json({"rolled_back": done})
    elif not done:
        click.echo("nothing to roll back")


@migrate.command()
@click.argument("name")
def new(name: str) -> None:
    """Writes the two files of the next migration, with their headers."""
    settings_or_exit()
    with _failing():
        known = migrations.read()
        for migration, problem in files.problems(known):
            _say(f"warning: {migration.id} {problem}")
        _refresh_snapshot()
        for path in migrations.new(name):
            click.echo(path)


@migrate.command()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@as_json
def lint(paths: tuple[Path, ...], as_json: bool) -> None:
    """Reports what would lock, rewrite or break a live database; updates schema.txt if it is stale."""
    settings_or_exit()
    with _failing():
        found = linter.findings(only=paths)
        if as_json:
            print_json(found)
        else:
            for finding in found:
                click.echo(finding)
        if not squawk.is_installed():
            _say(
                "warning: squawk is not installed, so its rules were not held: pip install 'tasks-service[migrations]'"
            )
        fresh = not found and (paths or _refresh_snapshot())
    if not found and not as_json:
        click.echo("nothing found")
    if found or not fresh:
        raise click.exceptions.Exit(1)


@migrate.command()
@dry_run
@wait
def distribute(dry_run: bool, wait_s: float) -> None:
    """Distributes the tables over a Citus cluster. Can be repeated: completed steps are skipped."""
    with _writing() as url, connect(url) as session:
        if dry_run:
            for step in distribution.steps(session):
                click.echo(distribution.text(session, step) + "\n")
            return
        distribution.distribute(
            session,
            time.monotonic() + wait_s,
            _say,
            lambda what: click.echo(f"{click.style('done', fg='green')} {what}"),
        )


@migrate.command("break-lock")
@click.option("--yes", is_flag=True, help="Free it even if it cannot be known whether its holder is alive.")
def break_lock(yes: bool) -> None:
    """Shows who held the migration lock and since when, and frees it; never that of a running migration."""
    with _writing() as url:
        holder = migrations.break_lock(url, force=yes)
    click.echo("nobody holds the lock" if holder is None else f"freed the lock of {describe(holder)}")


@contextmanager
def _failing() -> Generator[None]:
    """Every failure as one line and exit code 1."""
    try:
        yield
    except (MigrationError, embedded.EmbeddedError) as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def _writing(*, names_it: bool = False) -> Generator[str]:
    """The URL of the database, the embedded one started where need be. `names_it`: says which one it is."""
    settings = settings_or_exit()
    with _failing():
        if url := settings.migration_database_url or settings.database_url:
            if names_it:
                _say(f"database: {place_of(url.reveal())}")
            with naming(owner_variable(settings)):
                yield url.reveal()
        else:
            folder = Path(settings.tasks_data_dir)
            if names_it:
                _say(f"database: {embedded_place(folder, new=not embedded.exists(folder))}")
            with embedded.using(folder) as started:
                yield started


@contextmanager
def _reading() -> Generator[str | None]:
    """The same, or None where the embedded database was never made: looking at it does not make it."""
    settings = settings_or_exit()
    named = settings.migration_database_url or settings.database_url
    if named is None and not embedded.exists(Path(settings.tasks_data_dir)):
        with _failing():
            yield None
    else:
        with _writing() as url:
            yield url


def _refresh_snapshot() -> bool:
    """Writes schema.txt anew where it was made from other migrations, and says so; whether it is now up to date."""
    if not catalog.is_stale(catalog.snapshot(), migrations.read()):
        return True
    path = files.folder() / files.SNAPSHOT
    try:
        with embedded.temporary() as cluster:
            migrations.apply(cluster.url)
            with connect(cluster.url) as session:
                path.write_text(catalog.listing(session), "utf-8")
    except embedded.EmbeddedError as error:
        _say(f"warning: {path} is out of date, and could not be made anew: {error}")
        return False
    except OSError as error:
        raise MigrationError(f"{path} cannot be written: {error.strerror}") from None
    _say(f"wrote {path}")
    return True


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody can be asked here: give --yes to roll migrations back")
    click.confirm(question, abort=True, err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)
