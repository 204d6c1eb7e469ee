"""The embedded PostgreSQL: made, started, watched and stopped."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote

from service.database.conninfo import libpq_variables
from service.operations.embedded import account, binaries, data_folder, socket_folder
from service.operations.embedded.account import Account
from service.operations.embedded.binaries import VERSION, EmbeddedError, bin_dir
from service.operations.embedded.data_folder import POLL_S
from service.operations.embedded.output import reason
from service.signals import stop

NAME = "tasks"  # of the database and of its owner
SERVICE_ROLE = "tasks_app"  # a member of tasks_service: what the service logs in as
START_TIMEOUT_S = 300  # crash recovery may replay all WAL since the last checkpoint


class Embedded:
    """One cluster, started by `start` and stopped by `stop` or at the end of a `with`.

    `options` are PostgreSQL settings, as `-c` takes them; `initdb` are more arguments for the making. `making` is
    called before a cluster is made, which takes some seconds. `version` is another than today's for a cluster that an
    older release made. Every method may raise EmbeddedError.
    """

    def __init__(
        self,
        data_dir: Path,
        options: Mapping[str, str] | None = None,
        *,
        initdb: Sequence[str] = (),
        making: Callable[[Path], None] = lambda _: None,
        version: int = VERSION,
    ) -> None:
        self.folder = data_folder.absolute(data_dir)
        self._pgdata = self.folder / data_folder.PGDATA
        self._log = self.folder / data_folder.LOG
        self._options = dict(options or {})
        self._initdb = initdb
        self._making = making
        self._version = version
        self.made = False  # by this start
        self._lock: IO[str] | None = None
        self._account: Account | None = None
        self._socket_dir = self._pgdata
        self._postmaster: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The owner's conninfo URL, over a unix socket that only the account that serves can reach."""
        return _url(self._socket_dir)

    @property
    def service_url(self) -> str:
        """The same for the role that has no more than the statements need."""
        return _url(self._socket_dir, SERVICE_ROLE)

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, while it runs."""
        return self._postmaster.pid if self._postmaster and self._postmaster.poll() is None else None

    def start(self) -> Self:
        """Takes the data folder and brings the cluster up, made anew where there is none."""
        ignore_libpq_environment()
        programs = bin_dir(self._version)
        with stop.deferred():
            try:
                with _in_a_sentence(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                    self._account = account.account_for(self._pgdata)
                    self._lock = data_folder.take(self.folder / data_folder.LOCK)
                    data_folder.close_to_others(self.folder, self._account)
                    self._check_reachable(programs)
                    if not self._pgdata.exists():
                        self.made = True
                        self._making(self.folder)
                        self._initialise(programs)
                    account.check_owner(self._pgdata, self._account)
                    self._check_version()
                    self._launch(programs, _interruptible_pause)
            except BaseException:
                self.stop()
                raise
        return self

    def ensure_running(self) -> bool:
        """Starts a postmaster that has died (killed for its memory, say) again; True if that was needed."""
        if self.pid is not None:
            return False
        with _in_a_sentence(self.folder):
            self._launch(bin_dir(self._version), _pause)
        return True

    def stop(self) -> None:
        """Ends every connection, writes a checkpoint (unless told to stop at once) and gives the data folder back."""
        if self._postmaster is not None:
            self._end(self._postmaster)
            self._postmaster = None
        if self._socket_dir != self._pgdata:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        with stop.deferred():
            self.stop()

    def _check_reachable(self, programs: Path) -> None:
        """PostgreSQL's account must reach its data and its programs. No other folder's mode is changed for that."""
        if self._account is None:
            return
        for folder, mend in (
            (self.folder, "set TASKS_DATA_DIR to a folder that it can reach, such as /var/lib/tasks-service"),
            (programs, "install the service where it can be reached, such as /opt, or run it as another user"),
        ):
            if closed := account.closed_to(self._account, folder):
                raise EmbeddedError(
                    f"{closed} is closed to {self._account.name}, which runs PostgreSQL because that refuses to run as "
                    f"root: {mend}"
                )

    def _initialise(self, programs: Path) -> None:
        """Makes the cluster in a folder next to its place and moves it when complete: a kill leaves no half of it."""
        fresh = self.folder / data_folder.MAKING
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._account:
            os.chown(fresh, *self._account)
        self._run(
            programs / "initdb",
            *("-D", str(fresh), "-U", NAME, "--encoding=UTF8", "--locale=C.UTF-8"),
            *(["--locale-provider=builtin"] if self._version >= 17 else []),
            # Only the account itself and root get through to the socket, in a folder of mode 0700.
            *("--auth-local=trust", "--auth-host=reject"),
            *self._initdb,
        )
        self._run(programs / "postgres", "--single", "-D", str(fresh), "postgres", text=f"CREATE DATABASE {NAME};\n")
        fresh.rename(self._pgdata)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _check_version(self) -> None:
        found = (self._pgdata / "PG_VERSION").read_text().strip()
        if found != str(self._version):
            raise EmbeddedError(
                f"{self._pgdata} was made by PostgreSQL {found} and this is {self._version}: move the data with "
                "`tasks-service dump` and `restore` (deploy/README.md), or set TASKS_DATA_DIR to another folder"
            )

    def _launch(self, programs: Path, pause: Callable[[], None]) -> None:
        data_folder.stop_orphans(self._pgdata)
        self._socket_dir = socket_folder.choose(self._pgdata, self._account)
        if self._log.exists():
            self._log.rename(self.folder / data_folder.OLD_LOG)
        quoted = '"' + str(self._socket_dir).replace('"', '""') + '"'  # a list, in which commas separate
        settings = {"listen_addresses": "", "unix_socket_directories": quoted} | self._options
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            arguments = [f"--{name}={value}" for name, value in settings.items()]
            postmaster = subprocess.Popen[bytes](
                [programs / "postgres", "-D", self._pgdata, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **self._child(),
            )
            self._postmaster = postmaster
        deadline = time.monotonic() + START_TIMEOUT_S
        while data_folder.status(self._pgdata) != (postmaster.pid, "ready"):
            if postmaster.poll() is not None:
                self._postmaster = None
                raise EmbeddedError(f"The embedded PostgreSQL did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"The embedded PostgreSQL was not up after {START_TIMEOUT_S} s: see {self._log}")
            pause()

    def _last_words(self) -> str:
        said = self._log.read_text("utf-8", "replace")
        # A full disk has no room for the log, either.
        if not said and not shutil.disk_usage(self.folder).free:
            return f"no space is left for {self.folder}"
        return reason(said)

    def _child(self) -> dict[str, Any]:
        """How PostgreSQL's programs are run: away from the terminal, whose Ctrl-C is for the service."""
        who = self._account
        as_account: dict[str, Any] = {"user": who.uid, "group": who.gid, "extra_groups": []} if who else {}
        return {"cwd": "/", "umask": 0o077, "start_new_session": True, "env": binaries.environment(), **as_account}

    def _run(self, *command: str | Path, text: str = "") -> None:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **self._child(),
        ) as process:
            try:
                with stop.interruptible():
                    said = process.communicate(text)[1]
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode or "ERROR:" in said:  # which leaves a single-user postgres with a status of 0
            raise EmbeddedError(f"The embedded PostgreSQL could not be made: {reason(said)}")

    def _end(self, postmaster: "subprocess.Popen[bytes]") -> None:
        """A fast shutdown, with a checkpoint; failing that, or where there is no time for one, an immediate one."""
        for sent in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if postmaster.poll() is not None:
                return
            if sent == signal.SIGINT and stop.at_once:
                continue
            postmaster.send_signal(sent)
            end = time.monotonic() + data_folder.STOP_TIMEOUT_S
            while postmaster.poll() is None and time.monotonic() < end:
                if sent == signal.SIGINT and stop.at_once:
                    break
                time.sleep(POLL_S)


def ignore_libpq_environment() -> None:
    """Forgets PGHOSTADDR, PGSERVICE, PGOPTIONS and the like: the embedded database is at one place only."""
    for name in libpq_variables() & os.environ.keys():
        del os.environ[name]


def running(data_dir: Path) -> str | None:
    """The owner's URL of the cluster that another process serves from `data_dir`, or None if none does."""
    ignore_libpq_environment()
    data_dir = data_folder.absolute(data_dir)
    pgdata = data_dir / data_folder.PGDATA
    deadline = time.monotonic() + START_TIMEOUT_S
    while data_folder.is_held(data_dir / data_folder.LOCK):
        lines = data_folder.postmaster_file(pgdata)
        if lines[7:] == ["ready"] and int(lines[0]) in data_folder.living(pgdata):
            return _url(Path(lines[4]))
        if time.monotonic() > deadline:
            log = data_dir / data_folder.LOG
            raise EmbeddedError(f"{data_dir} is in use, but no PostgreSQL comes up: see {log}")
        time.sleep(POLL_S)
    return None


@contextmanager
def using(data_dir: Path, version: int = VERSION) -> Generator[str]:
    """The owner's URL, for a command that runs while the service may or may not: of the cluster that is served, or of
    one started for as long as this lasts.
    """
    if (url := running(data_dir)) is not None:
        yield url
        return
    with stop.deferred(), Embedded(data_dir, version=version) as embedded, stop.interruptible():
        yield embedded.url


def _pause() -> None:
    if stop.asked:
        raise EmbeddedError("The embedded PostgreSQL was not up yet when the service was told to stop")
    time.sleep(POLL_S)


def _interruptible_pause() -> None:
    with stop.interruptible():
        time.sleep(POLL_S)


@contextmanager
def _in_a_sentence(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        whose = account.belongs_to_another(folder, data_folder.LOCK) if isinstance(error, PermissionError) else ""
        raise EmbeddedError(f"The embedded PostgreSQL cannot use {error.filename}: {error.strerror}{whose}") from error


def _url(socket_dir: Path, role: str = NAME) -> str:
    return f"postgresql://{role}@/{NAME}?host={quote(str(socket_dir), safe='')}"
