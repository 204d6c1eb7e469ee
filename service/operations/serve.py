"""`tasks-service serve`: binds the port, starts the embedded database, migrates, runs the server, then ends them in the
reverse order.
"""

import logging
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click
import msgspec
from click import ClickException

from service import __version__
from service.monitoring import logs
from service.operations import embedded
from service.server import StartFailed
from service.server.listener import Listener, bracketed, inherited, listener_of
from service.settings import UNIX, Secret, Settings, SettingsError, log_format, names, near_misses
from service.signals import Interrupted, stop

log = logging.getLogger("service.server")

SPARE_CONNECTIONS = 20  # of the embedded database, for psql, migrations and PostgreSQL itself
LOOK_S = 0.5  # between two looks at the embedded database
OTHERS = "Other settings, each an environment variable or a line of .env, described in .env.example: "


class _Serve(click.Command):
    """Wrong usage is a line of JSON, too, where the log is JSON."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            logs.configure("info", form := log_format())
            if logs.is_console(form):
                raise
            log.error(error.format_message())
            sys.exit(error.exit_code)


@click.command(
    cls=_Serve,
    epilog=OTHERS + ", ".join(name for name in names() if name not in ("HOST", "PORT", "WORKERS")) + ".",
)
@click.option("--host", help="Address to listen on, or unix:/path.  [env: HOST; default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: any free one.  [env: PORT; default: 8000]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve.  [env: WORKERS; default: 1]")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serves the API.

    Without DATABASE_URL, on a PostgreSQL that it keeps in TASKS_DATA_DIR.
    """
    form = log_format()
    logs.configure("info", form)
    with logs.uncaught_logged():
        try:
            given = _given()
            if given is not None:  # AUTH_MODE's default and the hosts that are served depend on where it listens
                host, port = given.address[0], given.address[1] or None
            settings = _settings(host=host, port=port, workers=workers)
            form = settings.log_format
            logs.configure(settings.log_level, form)
            for sentence in near_misses():
                log.warning(sentence)
            with stop.deferred(), ExitStack() as stack:
                _serve(settings, given, stack)
        except Interrupted:
            pass  # a signal during the start; everything was closed
        except SettingsError as error:
            _fail("the settings cannot be used", form, error.problems)
        except (ClickException, embedded.EmbeddedError, StartFailed) as error:
            _fail(str(error), form)
    log.info("stopped", extra={"version": __version__})
    sys.exit(0)  # the exit status of a stop that was asked for


def _fail(message: str, form: str | None, problems: Sequence[str] = ()) -> NoReturn:
    """Ends the command: with lines for people, or with one for a collector of JSON lines, which takes nothing else."""
    if logs.is_console(form):
        ClickException("\n  ".join([message, *problems])).show()
    else:
        log.error(message, extra={"problems": problems or None})
    sys.exit(1)


# What follows imports the larger parts where they are used: so their errors are logged as all others are, and they are
# read while PostgreSQL starts.


def _settings(**options: str | int | None) -> Settings:
    from service.operations.in_use import settings_of

    return settings_of(serves=True, **options)


def _given() -> Listener | None:
    try:
        return inherited()
    except OSError as error:
        raise ClickException(f"cannot listen on what systemd hands over: {error.strerror}") from None


def _serve(settings: Settings, given: Listener | None, stack: ExitStack) -> None:
    listeners = [given or _listener("HOST", settings.host, settings.port)]
    stack.callback(listeners[0].close)
    if settings.admin_port:
        host = settings.admin_host or ("127.0.0.1" if settings.host.startswith(UNIX) else settings.host)
        listeners.append(_listener("ADMIN_HOST", host, settings.admin_port))
        stack.callback(listeners[1].close)
    log.info("starting", extra={"version": __version__})
    if settings.embedded:
        threading.Thread(target=_import_server, daemon=True).start()
    _check_usable(settings)
    cluster = stack.enter_context(_embedded(settings)) if settings.embedded else None
    complete = _with_database(settings, cluster)
    with stop.interruptible():
        _migrate(complete)
    if cluster is not None:
        _make_service_role(cluster.url)
        complete = msgspec.structs.replace(complete, database_url=Secret(cluster.service_url))
    database = _place(complete, cluster)

    from service.server import process, workers

    runs = process.serve if settings.workers == 1 else workers.serve
    for name, listener in zip(("HOST", "ADMIN_HOST"), listeners, strict=False):
        with _listening(name, *listener.address):
            listener.listen()
    runs(complete, [listener.socket for listener in listeners], lambda: _greet(settings, listeners, database))


def _import_server() -> None:
    with suppress(Exception):  # it is raised where it is imported for use
        import_module("service.server.process")


def _check_usable(settings: Settings) -> None:
    """What a worker could not use ends the start before a database is made and the port opens. Raises SettingsError."""
    from service import auth
    from service.monitoring import tracing

    auth.from_settings(settings)
    tracing.check_environment()


def _listener(name: str, host: str, port: int) -> Listener:
    with _listening(name, host, port):
        return listener_of(host, port)


@contextmanager
def _listening(name: str, host: str, port: int) -> Generator[None]:
    """Where the port cannot be opened, says which and what to set: `name` is HOST or ADMIN_HOST."""
    try:
        yield
    except OSError as error:
        place, names = f"{bracketed(host)}:{port}", f"{name} or {name.replace('HOST', 'PORT')}"
        if host.startswith(UNIX):
            place, names = host, name
        raise ClickException(f"cannot listen on {place}: {error.strerror or error}; set another {names}") from None


def _migrate(settings: Settings) -> None:
    """Brings the schema up to date, or makes sure that it is. A database that is away is not a reason to stop: the
    service waits for it, and looks at the schema for itself.
    """
    from service.operations import migrate
    from service.operations.in_use import naming

    owner = settings.migration_database_url
    url = (owner if settings.migrates_on_start else None) or settings.database_url
    assert url is not None
    try:
        with naming("DATABASE_URL" if url is settings.database_url else "MIGRATION_DATABASE_URL"):
            if settings.migrates_on_start:
                migrate.apply(url.reveal(), say=log.info)
                return
            pending, ahead = migrate.differences(url.reveal())
    except migrate.Unreachable as error:
        log.warning("serving all the same, and waiting: %s", error)
        return
    except migrate.MigrationError as error:
        # Without its last migrations the service's role may not even look which there are.
        denied = getattr(error.__cause__, "sqlstate", None) == "42501"
        hint = "; is `tasks-service migrate apply` still to be run? `tasks-service check` says more" if denied else ""
        raise ClickException(f"{error}{hint}") from None
    if pending:
        incomplete: list[str] = []
        with suppress(migrate.MigrationError):  # the service's own role cannot tell
            incomplete = [name for name in migrate.begun((owner or url).reveal()) if name in pending]
        whole = [name for name in pending if name not in incomplete]
        behind = "; ".join(
            f"{', '.join(ids)} {state}" for ids, state in ((incomplete, "incomplete"), (whole, "pending")) if ids
        )
        raise ClickException(
            f"the schema is behind: {behind}; run `tasks-service migrate apply`, or set MIGRATE_ON_START=true"
        )
    if ahead:
        log.warning("the schema is ahead of this version: %s", ", ".join(ahead))


@contextmanager
def _embedded(settings: Settings) -> Generator[embedded.Embedded]:
    """The service's own PostgreSQL for as long as this lasts, started again when it dies."""
    connections = settings.workers * settings.db_connections + SPARE_CONNECTIONS
    options = {"max_connections": str(max(100, connections))}
    with embedded.Embedded(Path(settings.tasks_data_dir), options, making=_say_making) as cluster:
        over = threading.Event()
        watch = threading.Thread(target=_keep_running, args=(cluster, over), daemon=True)
        watch.start()
        try:
            yield cluster
        finally:
            over.set()
            watch.join()


def _with_database(settings: Settings, cluster: embedded.Embedded | None) -> Settings:
    if cluster is None:
        return settings
    return msgspec.structs.replace(
        settings,
        database_url=Secret(cluster.url),
        auth_mode=settings.authenticates,
        migrate_on_start=settings.migrates_on_start,
    )


def _say_making(folder: Path) -> None:
    log.info("making a database: this takes some seconds, once", extra={"folder": str(folder)})


def _keep_running(cluster: embedded.Embedded, over: threading.Event) -> None:
    while not over.wait(LOOK_S):
        with suppress(embedded.EmbeddedError):
            if cluster.ensure_running():
                log.error("the embedded database had died and was started again")


def _make_service_role(owner_url: str) -> None:
    """The role that the service logs in as on its own PostgreSQL, made where it is not there yet."""
    import psycopg

    from service.operations.sql import query

    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(query("embedded_role", ""))


def _place(settings: Settings, cluster: embedded.Embedded | None) -> str:
    from service.operations.in_use import embedded_place, place_of

    if cluster is not None:
        return embedded_place(cluster.folder, new=cluster.made)
    assert settings.database_url is not None
    return place_of(settings.database_url.reveal())


def _greet(settings: Settings, listeners: Sequence[Listener], database: str) -> None:
    """Says that the port is open and where everything is: in a line of the log, and for people in some lines more."""
    url, admin_url = listeners[0].url, listeners[-1].url
    extra = {"version": __version__, "url": url, "database": database, "workers": settings.workers}
    if settings.admin_port:
        extra["admin_url"] = admin_url
    log.info("listening", extra=extra | {"auth_mode": settings.authenticates})
    if settings.authenticates == "none":
        log.warning("AUTH_MODE=none: anyone who can reach this port can act as any user")
    if not logs.is_console(settings.log_format):
        return
    api, docs = _shown(url, "/api/{user_id}/tasks"), _shown(admin_url, "/docs")
    lines = (("API", api), ("Docs", docs), ("Database", database))
    with suppress(OSError):  # nobody reads it
        for name, what in lines:
            click.echo(f"{click.style(f'{name:9}', bold=True)} {what}")
        if sys.stdout is not None:
            sys.stdout.flush()


def _shown(url: str, path: str) -> str:
    return f"{path} on {url}" if url.startswith(UNIX) else f"{url}{path}"
