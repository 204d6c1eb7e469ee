"""One process that serves: uvicorn's server with the service's protocol class, stopped by `service.signals`."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import uvicorn

from service import __version__, signals
from service.app import Service, create_service
from service.http.protocol import HttpProtocol
from service.server.listener import BACKLOG, accepting
from service.settings import Settings

log = logging.getLogger("service.server")

FINISH_S = 5.0  # after the grace: for the rest to be cancelled and for connections to the database to end


def service_of_process(settings: Settings, metrics_folder: Path | None = None) -> Service:
    """The service, made once in this process. Raises SettingsError."""
    service = create_service(settings, metrics_folder=metrics_folder)
    # Objects made until now live as long as the process, so the collector need not look at them again. Requests in
    # flight leave no cycles behind, but 512 of them are some 15,000 objects: with Python's threshold of 700 the
    # collector ran all the time and took 12 to 17 % of a get's CPU.
    gc.freeze()
    gc.set_threshold(50_000)
    return service


def serve(settings: Settings, listeners: list[socket.socket], started: Callable[[], None]) -> None:
    """Serves until a signal, then finishes what is in flight. Calls `started` when the ports are open."""
    raise_descriptor_limit()
    server = Server(settings, service_of_process(settings), started)

    def on_signal() -> None:
        server.stop_at_once() if signals.stop.at_once else server.stop()

    with signals.stop.calls(on_signal):
        server.run(listeners)


class Server(uvicorn.Server):
    """uvicorn's server, stopped by `stop` and `stop_at_once`, each from any thread or signal handler."""

    def __init__(self, settings: Settings, service: Service, started: Callable[[], None]) -> None:
        super().__init__(_config(settings, _body_begins_empty(service.app) if settings.http_protocol else service.app))
        self._service = service
        self._started = started
        self._drain_s = settings.drain_s
        self._drained_at = 0.0  # in loop time, once asked to stop
        self._stopping = False
        self._out_of_descriptors = False
        self._was_ready = False
        self._listeners: list[socket.socket] = []

    def stop(self) -> None:
        """Finishes what is in flight. `/readyz` is 503 at once; connections are taken for another DRAIN_S."""
        self._stopping = True
        self._service.health.stopping = True
        if not self._drain_s or not self.started:
            self.should_exit = True

    def stop_at_once(self) -> None:
        """Ends connections with what is in flight on them."""
        self.stop()
        self.should_exit = self.force_exit = True
        logging.getLogger("uvicorn.error").disabled = True  # cancelled requests are not news
        for connection in cast(list[Any], list(self.server_state.connections)):
            connection.loop.call_soon_threadsafe(connection.transport.abort)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """service.signals has handlers already."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._listeners = accepting(sockets or ())
        await super().startup(self._listeners)
        if not self.should_exit:
            self._started()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second. True: leave the main loop."""
        now = asyncio.get_running_loop().time()
        if self._stopping and not self.should_exit:
            self._drained_at = self._drained_at or now + self._drain_s
            self.should_exit = now >= self._drained_at
        if not self._was_ready and self._service.health.error() is None:
            self._was_ready = True
            log.info("ready", extra={"version": __version__, "worker": os.getpid()})
        if counter % 10 == 0:
            self._check_descriptors()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn when it is to stop."""
        self._service.capacity.turns.close()
        await self._accept_rest(sockets or [])
        await super().shutdown(sockets)

    async def _accept_rest(self, sockets: list[socket.socket]) -> None:
        """Closes the listeners, but not before what the kernel has connected is accepted: closing resets that."""
        for server in self.servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        accepted: list[socket.socket] = []
        for listener in sockets:
            with contextlib.suppress(OSError):  # there are no more, or no more descriptors
                while len(accepted) < BACKLOG:
                    accepted.append(listener.accept()[0])
            listener.close()
        for connection in accepted:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """As in uvicorn's `startup`."""
        make = cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _check_descriptors(self) -> None:
        """Logs when there are none left: libuv then drops new connections and logs nothing."""
        try:
            os.close(os.dup(2))
        except OSError as error:
            if not self._out_of_descriptors:
                log.error("new connections are dropped: %s; raise the limit (ulimit -n)", error.strerror)
            self._out_of_descriptors = True
        else:
            if self._out_of_descriptors:
                log.warning("new connections are accepted again")
            self._out_of_descriptors = False


def raise_descriptor_limit() -> None:
    """To the hard limit: a connection is a descriptor, and the usual soft limit of 1024 is for programs that call
    select(2), which none here does.
    """
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _config(settings: Settings, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=settings.http_protocol or HttpProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,  # service.monitoring.logs
        access_log=False,  # service.monitoring.request_log
        server_header=False,
        date_header=True,
        root_path=settings.root_path or "",
        proxy_headers=False,  # service.http.forwarded
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_grace_s,  # unset, uvicorn waits without end
    )


def _body_begins_empty(app: Any) -> Any:
    """For uvicorn's own protocol class: gives each request's body an empty first piece, as service.http.protocol does.

    `service.http.body` bounds the wait for every piece after the first, so a body that never begins would hold its
    place without end.
    """

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        first = iter([{"type": "http.request", "body": b"", "more_body": True}])

        async def receive_at_once() -> Any:
            return next(first, None) or await receive()

        await app(scope, receive_at_once if scope["type"] == "http" else receive, send)

    return asgi
