"""A data folder: which process uses it, and what a dead service left in it.

It holds `service.lock`, `pgdata`, `postgres.log` and the log of the start before. The service that serves from it holds
an flock on `service.lock` for as long as it lives, however it ends. So for the holder of the lock, any postmaster found
on `pgdata` is an orphan.
"""

import fcntl
import logging
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from service.operations.embedded.account import Account, belongs_to_another
from service.operations.embedded.binaries import EmbeddedError

log = logging.getLogger("service.embedded")

LOCK = "service.lock"
PGDATA = "pgdata"
LOG = "postgres.log"
OLD_LOG = "postgres.log.old"
MAKING = "pgdata.new"  # a cluster that is not whole yet
OURS = {LOCK, PGDATA, LOG, OLD_LOG, MAKING}
SOCKET = ".s.PGSQL.5432"
STOP_TIMEOUT_S = 30  # the shutdown's checkpoint
LOCK_TIMEOUT_S = 1
POLL_S = 0.02


def exists(data_dir: Path) -> bool:
    """Whether a cluster was ever made there, as far as can be seen."""
    try:
        return (data_dir / PGDATA).exists()
    except PermissionError:  # `Embedded.start` says what to do about that
        return True


def version_of(data_dir: Path) -> int:
    """The major version of the PostgreSQL that made the cluster."""
    return int((data_dir / PGDATA / "PG_VERSION").read_text())


def absolute(data_dir: Path) -> Path:
    try:
        return data_dir.absolute()
    except OSError as error:
        raise EmbeddedError(
            f"The working directory cannot be used ({error.strerror}): change to another one, or set TASKS_DATA_DIR to "
            "an absolute path"
        ) from None


def take(path: Path) -> IO[str]:
    """The lock, held until the file is closed or the process ends. Waits a little: `is_held` looks by locking, too."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while not _locked(file):
        if time.monotonic() > deadline:
            holder = file.read().strip() or "unknown"
            file.close()
            raise EmbeddedError(
                f"{path.parent} is in use by another service (process {holder}): stop it, or set TASKS_DATA_DIR to "
                "another folder"
            )
        time.sleep(POLL_S)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            return not _locked(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        whose = belongs_to_another(lock.parent, lock.name) if isinstance(error, PermissionError) else ""
        raise EmbeddedError(f"{error.filename} cannot be opened: {error.strerror}{whose}") from error


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def close_to_others(folder: Path, account: Account | None) -> None:
    """Logs quote rows and passwords. A folder in which others keep files too keeps its mode and owner."""
    if {entry.name for entry in folder.iterdir()} <= OURS:
        with suppress(PermissionError):  # a container's volume may belong to another account and be writable
            if account is not None:
                os.chown(folder, *account)
            folder.chmod(0o700)
    for name in (LOG, OLD_LOG):
        with suppress(FileNotFoundError):
            (folder / name).chmod(0o600)


def postmaster_file(pgdata: Path) -> list[str]:
    """The lines of postmaster.pid: pid, folder, start time, port, socket folder, address, shared memory, status."""
    try:
        return [line.strip() for line in (pgdata / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def status(pgdata: Path) -> tuple[int, str] | None:
    lines = postmaster_file(pgdata)
    return (int(lines[0]), lines[7]) if len(lines) >= 8 else None


def stop_orphans(pgdata: Path) -> None:
    """Leaves no process of a dead service on the cluster, and no lock file that looks as if there were one.

    PostgreSQL takes the process id in its lock files for a living postmaster as soon as any process has it: a zombie
    that nobody reaps, or another process that got the number in a restarted container. The processes of the cluster
    are those whose working directory is the data folder; a zombie has none. Only called with the service's lock held.
    """
    left = living(pgdata)
    lines = postmaster_file(pgdata)
    if not left and not lines:
        return
    postmaster = int(lines[0]) if lines else None
    # A postmaster is asked for a fast shutdown, then told; its children follow it by themselves, orphaned or not.
    for sent in (signal.SIGINT, signal.SIGQUIT):
        if postmaster in left:
            log.warning("stopping process %d, a PostgreSQL that the service left behind", postmaster)
            with suppress(ProcessLookupError):
                os.kill(postmaster, sent)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while left and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = living(pgdata)
    if left:
        raise EmbeddedError(f"Process {left[0]} still uses {pgdata} and does not stop: end it, then start again")
    for name in ("postmaster.pid", SOCKET, SOCKET + ".lock"):
        (pgdata / name).unlink(missing_ok=True)
    if len(lines) >= 5 and (socket_dir := Path(lines[4])) != pgdata and socket_dir.name.startswith("tasks-"):
        shutil.rmtree(socket_dir, ignore_errors=True)


def living(pgdata: Path) -> list[int]:
    """The processes that work in `pgdata`. A zombie has no working directory, so it is never one of them."""
    import psutil  # comes with the extra `embedded`

    place = str(pgdata.resolve())
    return [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == place]
