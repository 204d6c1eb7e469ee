"""The command line. Exit status: 0 done, 1 it failed (one line says why and what to do), 2 wrong usage, 128 and the
signal's number where a signal ended it. A password never appears.
"""

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from service import __version__
from service.operations.group import Group
from service.signals import stop

UNWRITABLE = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EPIPE, errno.EFBIG, errno.EDQUOT}  # what a write fails with

# The module of each command, under service.operations: imported for the one that is run. `serve` is to start quickly,
# and what the others import took 0.2 s of CPU.
COMMANDS = {
    "serve": "serve",
    "check": "check",
    "migrate": "migrate.cli",
    "psql": "psql",
    "user": "users",
    "dump": "dump",
    "restore": "dump",
    "token": "token",
    "prune": "prune",
}


class _Commands(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return getattr(import_module(f"service.operations.{COMMANDS[cmd_name]}"), cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment and from .env in the working directory; .env.example describes them.",
)
@click.version_option(__version__, prog_name="tasks-service")
def cli() -> None:
    """A user-scoped task service over HTTP."""


def main() -> None:
    """Runs the command line."""
    stop.install()
    _open_standard_streams()
    try:
        cli.main(prog_name="tasks-service")
    except OSError as error:
        if error.errno not in UNWRITABLE or error.filename is not None:
            raise
        _end_unwritten(error)
    except SystemExit:
        try:
            sys.stdout.flush()
        except OSError as error:
            _end_unwritten(error)
        raise


def _open_standard_streams() -> None:
    """A stream that was closed (`>&-`) is None, and its descriptor would go to the next file or socket."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or _Closed()


class _Closed:
    """A standard stream that was closed before the start: writing to it fails, as it does for other programs."""

    encoding = "utf-8"
    closed = False

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def flush(self) -> None:
        pass


def _end_unwritten(error: OSError) -> None:
    """Nothing more can be written: a full disk, a closed stream, or a reader that is gone, which wants no message."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # Python writes what is buffered when it ends
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            click.echo(f"Error: the output cannot be written: {error.strerror}", err=True)
    sys.exit(1)
