"""What a command works on: the settings, checked as far as they can be without a connection, and the database."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click
from click import ClickException
from psycopg.conninfo import conninfo_to_dict

from service.database.conninfo import problem_of
from service.operations import embedded, migrate
from service.settings import Secret, Settings, SettingsError, dotenv_variables, load, near_misses


def settings_of(*, serves: bool = False, **options: str | int | None) -> Settings:
    """The settings. `serves` is false for a command that takes no requests.

    Raises SettingsError with every problem, also those that only libpq sees.
    """
    settings = load(options=options, serves=serves)
    urls = {"DATABASE_URL": settings.database_url, "MIGRATION_DATABASE_URL": settings.migration_database_url}
    found = {name: problem_of(url.reveal()) for name, url in urls.items() if url is not None}
    if problems := [f"{name} {problem}" for name, problem in found.items() if problem]:
        raise SettingsError(problems)
    for name, text in dotenv_variables().items():
        os.environ.setdefault(name, text)
    if settings.migrations_dir is not None:
        migrate.use(Path(settings.migrations_dir))
    return settings


def settings_or_exit(*, serves: bool = False, **options: str | int | None) -> Settings:
    """The same, for a command: ends it with each problem on a line. Names near to a setting's are warned of."""
    for sentence in near_misses():
        click.echo(f"warning: {sentence}", err=True)
    try:
        return settings_of(serves=serves, **options)
    except SettingsError as error:
        lines = "\n".join(f"  {line}" for line in error.problems)
        raise ClickException(f"the settings cannot be used\n{lines}") from None


def place_of(url: str) -> str:
    """Where the database is, without who logs in."""
    given = conninfo_to_dict(url)
    hosts, ports = str(given.get("host") or "localhost").split(","), str(given.get("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    where = ",".join(f"{host}:{port or 5432}" for host, port in zip(hosts, ports, strict=False))
    return f"{given.get('dbname') or given.get('user') or 'the default'} on {where}"


def embedded_place(folder: Path, *, new: bool) -> str:
    """The same for the embedded database."""
    return f"embedded, {'new' if new else 'existing'}, in {embedded.absolute(folder)}"


@contextmanager
def naming(variable: str) -> Generator[None]:
    """Says of a database that cannot be reached which setting names it."""
    try:
        yield
    except migrate.Unreachable as error:
        raise migrate.Unreachable(f"{error} ({variable})") from error.__cause__


def owner_variable(settings: Settings) -> str:
    """The setting that names what `owner_url` leads to."""
    return "DATABASE_URL" if settings.migration_database_url is None else "MIGRATION_DATABASE_URL"


@contextmanager
def owner_url(settings: Settings, *, make: bool = False, any_version: bool = False) -> Generator[str]:
    """For what the owner may do: MIGRATION_DATABASE_URL, or DATABASE_URL, or the embedded database, with `make` made if
    need be, with `any_version` also one that an older release made.
    """
    named = settings.migration_database_url or settings.database_url
    with naming(owner_variable(settings)), _url(settings, named, make=make, any_version=any_version) as url:
        yield url


@contextmanager
def service_url(settings: Settings) -> Generator[str]:
    """The database that the service uses, or the embedded one."""
    with naming("DATABASE_URL"), _url(settings, settings.database_url) as url:
        yield url


@contextmanager
def _url(settings: Settings, named: Secret | None, *, make: bool = False, any_version: bool = False) -> Generator[str]:
    """An embedded database is started for as long as this lasts where no service runs on it."""
    if named is not None:
        yield named.reveal()
        return
    data_dir = Path(settings.tasks_data_dir)
    try:
        if not make and not embedded.exists(data_dir):
            raise ClickException(
                f"there is no database in {embedded.absolute(data_dir)} yet: `tasks-service serve` makes it, "
                "or set DATABASE_URL"
            )
        version = embedded.version_of(data_dir) if any_version else embedded.VERSION
        with embedded.using(data_dir, version) as url:
            yield url
    except embedded.EmbeddedError as error:
        raise ClickException(str(error)) from None
