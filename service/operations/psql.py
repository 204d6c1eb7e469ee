"""`tasks-service psql`: psql on the database in use."""

import os
import shutil
import signal
import subprocess
import sys

import click
from click import ClickException

from service.database.conninfo import libpq_environment, libpq_variables
from service.operations import embedded
from service.operations.in_use import service_url, settings_or_exit


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Opens psql on the database in use.

    The embedded one included. ARGUMENTS go to psql as they are.
    """
    settings = settings_or_exit()
    program = _program(prefer_bundled=settings.embedded)
    with service_url(settings) as url:
        # Not as an argument: a process list would show the password.
        given = libpq_environment(url)
        theirs = {name: text for name, text in os.environ.items() if name not in libpq_variables() or name in given}
        if given.get("PGSSLMODE", "prefer") not in ("disable", "allow", "prefer") and not _speaks_tls(program):
            raise ClickException(
                f"{program} cannot do TLS, which DATABASE_URL asks for: install PostgreSQL's client, as psql on PATH"
            )
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C cancels psql's query
        try:
            done = subprocess.run(
                [program, *arguments], env=theirs | given, check=False, restore_signals=True, preexec_fn=_default_sigint
            )
        finally:
            signal.signal(signal.SIGINT, before)
    sys.exit(done.returncode)


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _program(*, prefer_bundled: bool) -> str:
    """The bundled psql or the one on PATH, whichever there is."""
    installed = shutil.which("psql")
    if installed and not prefer_bundled:
        return installed
    try:
        return str(embedded.bin_dir() / "psql")
    except embedded.EmbeddedError:
        if installed:
            return installed
    raise ClickException("psql is not installed: install PostgreSQL's client or the extra `embedded`")


def _speaks_tls(program: str) -> bool:
    """Asked of a server that is not there: a psql without TLS says so first."""
    tried = {
        "PATH": os.environ.get("PATH", ""),
        "PGHOST": "127.0.0.1",
        "PGPORT": "1",
        "PGSSLMODE": "require",
        "LC_ALL": "C",
    }
    done = subprocess.run([program, "-Xc", ""], env=tried, capture_output=True, text=True, check=False)
    return "not compiled in" not in done.stderr
