"""`tasks-service dump` and `restore`: the whole database as a file, and back into an empty one.

The format is pg_dump's own archive, which ends in a table of contents: a file that was cut off is found before anything
is restored. Ownership and privileges are left out, so that it can be restored by another owner; the privileges come
back with migration 0005, which is in the dump as applied, so `restore` grants them again.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import psycopg
from click import ClickException

from service.database.conninfo import libpq_environment, libpq_variables
from service.operations import embedded
from service.operations.in_use import owner_url, settings_or_exit
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import connect, first_line

FORMAT = "--format=custom"


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
def dump(file: Path | None) -> None:
    """Writes the database in use to FILE, or to standard output.

    As of one moment, while serving. `restore` reads it, and so does PostgreSQL's pg_restore.
    """
    settings = settings_or_exit()
    if file is None and sys.stdout.isatty():
        raise click.UsageError("a dump is not for a terminal: name a FILE, or redirect the output")
    if file is not None and file.exists():
        raise ClickException(f"{file} is there already: name another file")
    with owner_url(settings, any_version=True) as url:
        command = [*_program("pg_dump", _server_version(url)), FORMAT, "--no-owner"]
        if file is None:
            done = subprocess.run(command, env=_environment(url), stderr=subprocess.PIPE, text=True, check=False)
            _check(done, "the dump is not whole")
            return
        whole = file.with_name(f"{file.name}.part")
        try:
            done = subprocess.run(
                [*command, f"--file={whole}"], env=_environment(url), stderr=subprocess.PIPE, text=True, check=False
            )
            _check(done, "nothing was dumped")
            whole.rename(file)
        except OSError as error:
            raise ClickException(f"{file} cannot be written: {error.strerror}") from None
        finally:
            whole.unlink(missing_ok=True)
    click.echo(f"dumped to {file}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def restore(file: Path) -> None:
    """Reads a dump into the database in use, which must be empty.

    The embedded one is made if there is none. All or nothing: it is one transaction.
    """
    settings = settings_or_exit()
    _check_whole(file)
    with owner_url(settings, make=True) as url:
        try:
            with connect(url, "tasks-service restore") as session:
                if session.fetch_one("is_filled")[0]:
                    raise ClickException("the database is not empty: restore into an empty one")
                version = session.connection.info.server_version // 10_000
                _make_group(session.connection)
        except MigrationError as error:
            raise ClickException(str(error)) from None
        except psycopg.Error as error:
            raise ClickException(f"the database refused: {first_line(error)}") from None
        command = [*_program("pg_restore", version), "--no-owner", "--single-transaction", "--exit-on-error"]
        name = libpq_environment(url).get("PGDATABASE", "")
        done = subprocess.run(
            [*command, f"--dbname={name}", str(file)],
            env=_environment(url),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        _check(done, "nothing was restored")
    click.echo(f"restored {file}")


def _check_whole(file: Path) -> None:
    """Reads the archive to its end without a database: pg_restore writes the SQL that it would run to nowhere."""
    done = subprocess.run(
        [*_program("pg_restore", None), "--file=/dev/null", str(file)],
        env=embedded.environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClickException(f"{file} is not a whole dump of `tasks-service dump`: {_last(done.stderr)}")


def _make_group(connection: "psycopg.Connection[tuple[object]]") -> None:
    """The dump grants to tasks_service; roles belong to the cluster, and are in no dump of a database."""
    if connection.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tasks_service'").rowcount == 0:
        connection.execute("CREATE ROLE tasks_service NOLOGIN")


def _server_version(url: str) -> int:
    try:
        with connect(url, "tasks-service dump") as session:
            return session.connection.info.server_version // 10_000
    except MigrationError as error:
        raise ClickException(str(error)) from None


def _program(name: str, version: int | None) -> list[str]:
    """The program on PATH or the bundled one. pg_dump must not be older than the server."""
    found = shutil.which(name)
    bundled = embedded.find(name)
    if bundled is not None and (version is None or version <= embedded.VERSION):
        return [str(bundled)]
    if found is not None:
        return [found]
    raise ClickException(f"{name} is not installed: install PostgreSQL's client or the extra `embedded`")


def _environment(url: str) -> dict[str, str]:
    """Where to connect; not as arguments, which a process list shows."""
    theirs = {name: text for name, text in os.environ.items() if name not in libpq_variables()}
    return theirs | libpq_environment(url)


def _check(done: "subprocess.CompletedProcess[str]", what: str) -> None:
    if done.returncode:
        raise ClickException(f"{what}: {_last(done.stderr)}")


def _last(said: str) -> str:
    lines = (
        [line for line in said.splitlines() if "error:" in line] or said.splitlines()[-1:] or ["no reason was given"]
    )
    return lines[0].split("error:", 1)[-1].strip()
