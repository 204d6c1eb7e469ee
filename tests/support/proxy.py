"""A TCP proxy before PostgreSQL that makes faults: stalls, cuts, refused connections, lost and invented messages."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], upstream: str
) -> tuple[asyncio.Server, str]:
    """A server on a free port, and the conninfo that leads through it to `upstream`'s database."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, make_conninfo(upstream, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")


class Proxy:
    """Passes bytes on to the cluster behind `upstream`, a conninfo with a socket folder as its host."""

    def __init__(self, upstream: str) -> None:
        parts = conninfo_to_dict(upstream)
        self._socket = f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}"
        self._upstream = upstream
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.flows = _open()  # cleared: nothing passes, and nobody is told
        self.takes = _open()  # cleared: nothing more is taken from clients
        self._stranded: list[asyncio.Event] = []
        self.refuses = False  # new connections are closed at once
        self.accepted = 0
        self.left: int | None = None  # bytes still to be passed to clients before every connection is cut
        self.edit: Callable[[bytes], bytes] | None = None  # sees each message of the server, says what is passed on
        self.edit_up: Callable[[bytes], bytes] | None = None  # the same for what clients send, in pieces as they come

    async def __aenter__(self) -> Self:
        self._server, self.url = await listening(self._serve, self._upstream)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for event in (*self._stranded, self.flows, self.takes):
            event.set()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Breaks every connection, with no goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    def strand(self) -> None:
        """Nothing passes any more on the connections that there are, and nobody is told; new ones are well."""
        self.flows.clear()
        self._stranded.append(self.flows)
        self.flows = _open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            try:
                server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
            except OSError:  # the cluster is away, and so are we
                return
            self._writers.add(server_writer)
            flows = self.flows
            up = asyncio.create_task(self._pass_up(reader, server_writer, flows))
            down = asyncio.create_task(self._pass_down(server_reader, writer, flows))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if down.done() and not writer.transport.is_closing():  # the server's last words arrive before the end
                writer.close()
                with suppress(ConnectionError, TimeoutError):
                    await asyncio.wait_for(writer.wait_closed(), 1)
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            server_writer.transport.abort()
            self._writers.discard(server_writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await flows.wait()
                await self.takes.wait()
                writer.write(self.edit_up(data) if self.edit_up is not None else data)
                await writer.drain()

    async def _pass_down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                message = head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
                await flows.wait()
                if self.edit is not None:
                    message = self.edit(message)
                if self.left is not None:
                    message = message[: self.left]
                    self.left -= len(message)
                writer.write(message)
                if self.left == 0:
                    self.left = None
                    self.cut()
                await writer.drain()


def _open() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
