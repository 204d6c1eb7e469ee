"""The folder of a cluster's unix socket: the cluster's own, unless its path is too long for a socket."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from service.operations.embedded.account import Account
from service.operations.embedded.binaries import EmbeddedError
from service.operations.embedded.data_folder import SOCKET

# A socket's path has to fit sockaddr_un with its closing NUL: 108 bytes on Linux, 104 on macOS.
SOCKET_PATH_BYTES = 103


def choose(pgdata: Path, account: Account | None) -> Path:
    """The cluster's own folder, or a new one for `account` under TMPDIR or /tmp. Raises EmbeddedError."""
    # A comma separates hosts in a conninfo.
    if len(os.fsencode(pgdata / SOCKET)) <= SOCKET_PATH_BYTES and "," not in str(pgdata):
        return pgdata
    for base in (_temporary_folder(), "/tmp"):  # noqa: S108 (mkdtemp makes a folder of our own in it)
        if base and len(base) + len(f"/tasks-12345678/{SOCKET}") <= SOCKET_PATH_BYTES:
            with suppress(OSError):
                chosen = Path(tempfile.mkdtemp(prefix="tasks-", dir=base))
                if account:
                    os.chown(chosen, *account)
                return chosen
    raise EmbeddedError(
        f"The path {pgdata} is too long for a socket, and so is TMPDIR: set TASKS_DATA_DIR to a shorter one"
    )


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # none can be written
        return ""
