"""Several processes on one socket: started, replaced when they die, and stopped together.

The supervisor alone decides what a signal means, and tells its workers through a socket pair. A worker takes a signal
that reaches it directly for "finish", never for "at once": it cannot tell the operator's second signal from a copy of
the first. A worker whose supervisor is gone reads the end of its socket pair and finishes too.

uvicorn's own supervisor relays each signal, so that a signal to the process group arrives twice.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from service import signals
from service.monitoring import logs
from service.monitoring.snapshots import WORKER_RESTARTS
from service.server import StartFailed
from service.server.process import FINISH_S, Server, raise_descriptor_limit, service_of_process
from service.settings import ALIASES, Settings, SettingsError, environment, load, names

log = logging.getLogger("service.server")

SERVING = b"s"  # a worker's message
FINISH, AT_ONCE = b"f", b"n"  # the supervisor's
METRICS_FOLDER = "TASKS_METRICS_FOLDER"  # set for the workers, not a setting: where they leave their numbers
MODULE = "service.server.workers"  # what a worker runs
MAX_FAILED = 3  # replacements in a row that end before they serve
# Before a worker is started in place of one that died before it was STEADY_S old: so long for the first in a row, twice
# for the second, and so on. Starting costs half a second of CPU (measured), which those that serve need.
RETRY_S = 1.0
MAX_RETRY_S = 10.0
STEADY_S = 60.0


def serve(settings: Settings, listeners: list[socket.socket], started: Callable[[], None]) -> None:
    """Serves until a signal, then finishes what is in flight. Calls `started` when every worker serves.

    Raises StartFailed where a worker ends before it serves.
    """
    raise_descriptor_limit()
    try:
        folder = TemporaryDirectory(prefix="tasks-service-", ignore_cleanup_errors=True)
    except OSError:
        raise StartFailed(
            "WORKERS above 1 needs a folder for temporary files, and none can be written: set TMPDIR"
        ) from None
    with folder as metrics_folder:
        supervisor = _Supervisor(settings, listeners, metrics_folder)
        with signals.stop.calls(supervisor.pass_on):
            supervisor.run(started)


class _Worker:
    """A process that serves: the supervisor's end of it."""

    def __init__(self, listeners: list[socket.socket], env: dict[str, str]) -> None:
        self.control, theirs = socket.socketpair()
        self.control.setblocking(False)
        self.serves = False
        self.began = time.monotonic()
        descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
        # Blocked signals stay blocked in the new process until it has its handlers, and so none is lost meanwhile.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, *map(str, descriptors)],
                env=env,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def send(self, message: bytes) -> None:
        with suppress(OSError):
            self.control.send(message)

    def receive(self) -> None:
        with suppress(OSError):
            self.serves |= self.control.recv(16).startswith(SERVING)


class _Supervisor:
    def __init__(self, settings: Settings, listeners: list[socket.socket], metrics_folder: str) -> None:
        self._listeners = listeners
        self._restarts = 0
        self._restarts_file = Path(metrics_folder) / WORKER_RESTARTS
        self._environment = worker_environment(settings) | {METRICS_FOLDER: metrics_folder}
        self._stop_timeout_s = settings.drain_s + settings.shutdown_grace_s + FINISH_S
        self._count = settings.workers
        self._wake, self._woken = socket.socketpair()
        self._workers: list[_Worker] = []
        self._failed = 0  # workers in a row that ended before they served
        self._short_lived = 0  # workers in a row that ended before they were STEADY_S old
        self._due: list[float] = []  # when those are started that replace others

    def pass_on(self) -> None:
        """Tells the workers what the operator asks for. They are told to finish by `_end`, which `run` calls now."""
        with suppress(OSError):
            self._wake.send(b"w")
        if signals.stop.at_once:
            for worker in self._workers:
                worker.send(AT_ONCE)

    def run(self, started: Callable[[], None]) -> None:
        try:
            self._workers = [self._start() for _ in range(self._count)]
            served = False
            while not signals.stop.asked:
                for worker in self._changed():
                    if worker.process.poll() is not None and not signals.stop.asked:
                        self._ended(worker, served)
                if not signals.stop.asked:
                    self._start_due()
                if not served and all(worker.serves for worker in self._workers):
                    served = True
                    started()
        finally:
            self._end()

    def _start(self) -> _Worker:
        return _Worker(self._listeners, self._environment)

    def _changed(self) -> list[_Worker]:
        """Waits a little for the workers, and returns those that sent a message or ended."""
        controls = {worker.control: worker for worker in self._workers}
        ready = select.select([self._woken, *controls], [], [], 0.1)[0]
        readable = [controls[control] for control in ready if control in controls]
        for worker in readable:
            worker.receive()
        return readable

    def _ended(self, dead: _Worker, served: bool) -> None:
        """Another one is due. Raises StartFailed where that is of no use."""
        if not served:
            raise StartFailed(f"a worker ended before it served, {_how(dead.process)}: its log lines say why")
        log.error("a worker died and is replaced", extra={"worker": dead.process.pid, "exit_code": dead.process.poll()})
        self._failed = 0 if dead.serves else self._failed + 1
        if self._failed >= MAX_FAILED:
            raise StartFailed(f"{MAX_FAILED} workers ended before they served, the last {_how(dead.process)}")
        now = time.monotonic()
        self._short_lived = self._short_lived + 1 if now - dead.began < STEADY_S else 0
        self._due.append(now + min(RETRY_S * self._short_lived, MAX_RETRY_S))
        dead.control.close()
        self._workers.remove(dead)

    def _start_due(self) -> None:
        """Starts the workers that replace others, each after its pause."""
        now = time.monotonic()
        for due in [due for due in self._due if due <= now]:
            self._due.remove(due)
            self._workers.append(self._start())
            self._restarts += 1
            self._write_restarts()

    def _write_restarts(self) -> None:
        with suppress(OSError):  # a full disk costs a figure, not a worker
            fresh = self._restarts_file.with_suffix(".new")
            fresh.write_text(str(self._restarts))
            fresh.replace(self._restarts_file)

    def _end(self) -> None:
        """Returns when every worker has ended."""
        # Before the workers close theirs, which accept what is connected until then: see Server.
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.send(FINISH)
        end = time.monotonic() + self._stop_timeout_s
        while left := [worker for worker in self._workers if worker.process.poll() is None]:
            if signals.stop.at_once:
                end = min(end, time.monotonic() + FINISH_S)
            if time.monotonic() > end:
                for worker in left:
                    log.error("a worker did not end in time and is killed", extra={"worker": worker.process.pid})
                    worker.process.kill()
                end += FINISH_S
            with suppress(subprocess.TimeoutExpired):
                left[0].process.wait(0.05)
        self._wake.close()
        self._woken.close()


def _how(process: "subprocess.Popen[bytes]") -> str:
    code = process.poll() or 0
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker: ours without MIGRATION_DATABASE_URL, and each variable that is no setting."""
    ours = {*names(), *ALIASES, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
    others = {name: text for name, text in os.environ.items() if name not in ours}
    given = environment(settings)
    given.pop("MIGRATION_DATABASE_URL", None)
    return others | given


def main() -> None:
    """Runs a worker: its socket pair and the listeners are given by their descriptors."""
    control, *listeners = (socket.socket(fileno=int(text)) for text in sys.argv[1:])
    settings = load(dotenv=None)
    logs.configure(settings.log_level, settings.log_format)
    with logs.uncaught_logged():
        _serve_as_worker(settings, control, listeners)


def _serve_as_worker(settings: Settings, control: socket.socket, listeners: list[socket.socket]) -> None:
    folder = os.environ.get(METRICS_FOLDER)
    try:
        service = service_of_process(settings, Path(folder) if folder else None)
    except SettingsError as error:
        log.error(str(error))
        sys.exit(1)
    server = Server(settings, service, lambda: _report_serving(control))
    with signals.stop.calls(server.stop):
        signals.stop.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
        threading.Thread(target=_follow, args=(control, server), daemon=True).start()
        server.run(listeners)


def _report_serving(control: socket.socket) -> None:
    with suppress(OSError):
        control.send(SERVING)


def _follow(control: socket.socket, server: Server) -> None:
    """Stops the server when the supervisor says so, or has ended."""
    with suppress(OSError):
        while message := control.recv(1):
            server.stop_at_once() if message == AT_ONCE else server.stop()
    server.stop()


if __name__ == "__main__":
    main()
