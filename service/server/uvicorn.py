"""Runs the application on an HTTP server: one process, or several on one port, until a signal.

Knows uvicorn. Must not know tasks or where the database came from.
"""

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Generator
from multiprocessing import connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.app import Service, create_app
from service.http.protocol import HttpProtocol
from service.monitoring import logs
from service.settings import Settings, environment, load

log = logging.getLogger("service.server")

BACKLOG = 2048  # connections that wait to be accepted: a burst of clients that all connect at once
KEEP_ALIVE_S = 75  # longer than load balancers keep idle connections (60 s is common), so that they close first
LEAST_LIFE_S = 2  # a worker that ends sooner will end again
METRICS_FOLDER = "TASKS_METRICS_FOLDER"  # set for the workers, not a setting: where they leave their numbers
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def app() -> Any:
    """The application of a worker process, which has its settings from its environment alone."""
    settings = load(dotenv=None)
    logs.configure(settings.log_level, settings.log_format)
    folder = os.environ.get(METRICS_FOLDER)
    application = create_app(settings, metrics_folder=Path(folder) if folder else None)
    # What is loaded now stays: the collector need not go through it again and again. Nor through the requests under
    # way, which leave no circles behind: 512 at once are some 15,000 objects, and Python's own threshold of 700 made it
    # look for circles among them all the time, at 12 to 17 % of a get's CPU.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    return _beginning_at_once(application) if settings.http_protocol == "httptools" else application


def _beginning_at_once(application: Service) -> Any:
    """The application, whose requests' bodies begin with an empty piece, as the protocol has it: whoever reads them
    bounds the wait for the rest, and a body that never begins shall not keep its place for ever.
    """

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        pieces = iter([{"type": "http.request", "body": b"", "more_body": True}])

        async def receive_at_once() -> Any:
            return next(pieces, None) or await receive()

        await application(scope, receive_at_once if scope["type"] == "http" else receive, send)

    return asgi


def _end_with(sentinel: int) -> None:
    """A worker whose parent was killed would serve on, holding the port, on a database that nobody looks after."""
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket that all workers share. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.set_inheritable(True)
    except OSError:
        listener.close()
        raise
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is in flight; a second signal stops at once."""
    os.environ.update(environment(settings))
    _raise_descriptor_limit()
    with TemporaryDirectory(prefix="tasks-service-", ignore_cleanup_errors=True) as folder:
        if settings.workers > 1:
            os.environ[METRICS_FOLDER] = folder
        if settings.workers == 1:
            _Server(_config(settings)).run([listener])
        else:
            _Supervisor(_config(settings), [listener]).run()


def _raise_descriptor_limit() -> None:
    """To what the process may have: a connection is a descriptor, and the customary soft limit of 1024 is for programs
    that call select(2), which none here does.
    """
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        "service.server.uvicorn:app",
        factory=True,
        workers=settings.workers,
        loop="uvloop",
        http=settings.http_protocol or HttpProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,  # service.monitoring.logs
        access_log=False,  # what matters is logged by service.http.load_shedding
        server_header=False,
        date_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,  # unset, uvicorn waits without end
    )


class _Server(uvicorn.Server):
    """uvicorn's server, whose end by a signal is not a failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Like uvicorn's, but does not raise the signal again when all is done: the exit status is 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    _starved = False  # of descriptors, when last looked

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second."""
        if counter % 10 == 0:
            self._look_for_descriptors()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it is to stop."""
        # Closing a listener resets what the kernel has connected and nobody has taken. In this time the loop takes it.
        await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def _look_for_descriptors(self) -> None:
        """Says when there are none left: libuv drops the connections that it then cannot take, and says nothing."""
        try:
            os.close(os.dup(2))
        except OSError as error:
            if not self._starved:
                log.error("new connections are dropped: %s; raise the limit (ulimit -n)", error.strerror)
            self._starved = True
        else:
            if self._starved:
                log.warning("new connections are accepted again")
            self._starved = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            # What is torn down now, the lifespan among it, has nothing to say.
            logging.getLogger("uvicorn.error").disabled = True
            for protocol in cast(list[HttpProtocol], list(self.server_state.connections)):
                # Its request is cancelled then.
                protocol.loop.call_soon_threadsafe(protocol.transport.abort)
        self.should_exit = True
        application: Any = getattr(self.config, "loaded_app", None)
        while application is not None and not isinstance(application, Service):
            application = getattr(application, "app", None)  # within uvicorn's proxy-headers middleware
        if application is not None:
            application.health.stopping = True


class _Process(Process):
    """A worker of the supervisor."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = _Server(self.config)
        return self._server


class _Supervisor(Multiprocess):
    """Keeps `workers` processes on one socket; one that dies is replaced. uvicorn's, but for what a signal does."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._signals = 0
        for number in SIGNALS:
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Returns when every worker has ended after a signal. Raises RuntimeError where they cannot start."""
        self._born = [time.monotonic()] * self.processes_num
        self.processes = [self._start() for _ in range(self.processes_num)]
        try:
            while not self.should_exit.wait(0.2):
                for index, process in enumerate(self.processes):
                    if not process.process.is_alive():
                        self._replace(index, process)
        finally:
            self._end()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self.should_exit.set()

    def _start(self) -> Process:
        process = _Process(self.config, self.sockets)
        process.start()
        return process

    def _replace(self, index: int, dead: Process) -> None:
        log.error("a worker died and is replaced", extra={"worker": dead.pid, "exit_code": dead.exitcode})
        now = time.monotonic()
        # One that was killed did not choose to end: the next may live.
        if now - self._born[index] < LEAST_LIFE_S and (dead.exitcode or 0) >= 0:
            raise RuntimeError("a worker ended as soon as it was started: its log lines say why")
        self._born[index] = now
        self.processes[index] = self._start()

    def _end(self) -> None:
        """Asks every worker to stop, once a signal; a worker takes the second one to mean at once."""
        for listener in self.sockets:
            listener.close()  # else the kernel goes on taking connections that nobody will serve
        told = 0
        while any(process.process.is_alive() for process in self.processes):
            if told < max(self._signals, 1):
                told += 1
                for process in self.processes:
                    if process.process.is_alive() and process.pid is not None:
                        os.kill(process.pid, signal.SIGTERM)
            sentinels = [process.process.sentinel for process in self.processes if process.process.is_alive()]
            connection.wait(sentinels, timeout=0.1)
