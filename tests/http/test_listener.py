"""The descriptors on which event loops accept connections."""

import asyncio
import os
import socket
from contextlib import ExitStack
from typing import cast

import uvloop

from service.server.listener import ACCEPTS, BACKLOG, accepting


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
