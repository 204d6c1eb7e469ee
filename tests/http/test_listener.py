"""The descriptors on which event loops accept connections, and how they are closed."""

import asyncio
import os
import socket
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from service.app import Service
from service.http.capacity import Capacity
from service.server.listener import ACCEPTS, BACKLOG, accepting
from service.server.process import Server
from service.settings import Secret, Settings
from tests.support.http import read_response, request


class _Counted(asyncio.Protocol):
    """A connection that ends at once."""

    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        _Counted.made += 1
        cast(asyncio.Transport, transport).abort()


async def _accept(listener: socket.socket, clients: int) -> list[int]:
    """How many connections each turn has accepted."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Counted, sock=one) for one in accepting([listener])]
    counts: list[int] = []
    async with asyncio.timeout(5):
        while sum(counts) < clients:
            before = _Counted.made
            await asyncio.sleep(0)
            counts.append(_Counted.made - before)
    for server in servers:
        server.close()
        await server.wait_closed()
    return counts


def test_one_turn_accepts_several_connections() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
        for _ in range(10 * ACCEPTS):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        counts = uvloop.run(_accept(listener, 10 * ACCEPTS))
    assert max(counts) == ACCEPTS


def test_a_worker_that_starts_does_not_make_the_accept_of_others_block() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        inherited = stack.enter_context(socket.socket(fileno=os.dup(listener.fileno())))  # as the next worker has it
        first = [stack.enter_context(one) for one in accepting([listener])]
        for one in accepting([inherited]):
            stack.enter_context(one)
        assert not any(os.get_blocking(one.fileno()) for one in first)


async def _responds(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


async def _stop(listener: socket.socket, connect: Any) -> None:
    """Runs a server on the listener, calls `connect`, and stops the server before the loop can accept anything."""
    health = SimpleNamespace(stopping=False, error=lambda: None)
    service = Service(_responds, cast(Any, health), Capacity(512, max_per_user=512, max_buffered=2**30))
    server = Server(Settings(database_url=Secret("x")), service, lambda: None)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listener])
    connect()
    await server.shutdown([listener])


def test_what_is_connected_when_the_server_stops_gets_its_response() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=BACKLOG))
        address = listener.getsockname()
        clients: list[socket.socket] = []

        def connect() -> None:
            for _ in range(300):
                clients.append(stack.enter_context(socket.create_connection(address)))
                clients[-1].sendall(request("GET", "/", headers={"Connection": "close"}))

        uvloop.run(_stop(listener, connect))
        assert [read_response(client).status for client in clients] == [200] * 300
