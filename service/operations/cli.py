"""The command line. Exit status: 0 done, 1 it failed (one line says why and what to do), 2 wrong usage, 128 and the
signal's number where a signal ended it. A password never appears.
"""

import errno
import os
import sys
from contextlib import suppress

import click

from service import __version__
from service.operations.check import check
from service.operations.dump import dump, restore
from service.operations.migrate.cli import migrate
from service.operations.prune import prune
from service.operations.psql import psql
from service.operations.serve import serve
from service.operations.token import token
from service.operations.users import user
from service.signals import stop

UNWRITABLE = {errno.ENOSPC, errno.EIO, errno.EBADF, errno.EPIPE, errno.EFBIG, errno.EDQUOT}  # what a write fails with


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment and from .env in the working directory; .env.example describes them.",
)
@click.version_option(__version__, prog_name="tasks-service")
def cli() -> None:
    """A user-scoped task service over HTTP."""


for command in (serve, check, migrate, psql, user, dump, restore, token, prune):
    cli.add_command(command)


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
