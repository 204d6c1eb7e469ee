"""Time limits of a connection, on a clock that is told to have moved: waiting for them would take minutes."""

import asyncio
import socket
import time
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.http import server_context
from service.http.asgi import WHOLE_BYTES
from service.http.connection import HALF_CLOSED_S, HEAD_S, SKIP_S
from service.http.intake import MAX_READ
from service.http.protocol import HttpProtocol
from service.http.write_rate import MIN_BYTES_PER_S, WINDOW_S, WriteRate
from tests.support.waiting import until
from tests.support.wire import Wire

KEEP_ALIVE_S = 75
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def pytest_asyncio_loop_factories() -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


class Server:
    """One connection of a client that reads only what it is told to, to an application that answers `size` bytes in
    so many pieces.
    """

    def __init__(self) -> None:
        self.size = 2
        self.pieces = 1
        self.answers = asyncio.Event()
        self.answers.set()
        self.cancelled = False
        self.state = ServerState()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        headers = [(b"content-length", b"%d" % self.size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in range(1, self.pieces + 1):
            body = b"x" * (self.size // self.pieces)
            await send({"type": "http.response.body", "body": body, "more_body": piece < self.pieces})

    def protocol(self) -> HttpProtocol:
        config = uvicorn.Config(
            self.app, interface="asgi3", timeout_keep_alive=KEEP_ALIVE_S, lifespan="off", log_config=None
        )
        return HttpProtocol(config, self.state, {})

    @property
    def connection(self) -> HttpProtocol:
        (protocol,) = self.state.connections
        assert isinstance(protocol, HttpProtocol)
        return protocol

    def after(self, seconds: float) -> None:
        self.connection.expire(time.monotonic() + seconds)

    async def ended(self) -> None:
        async with asyncio.timeout(2):
            while self.state.connections:
                await asyncio.sleep(0.001)


@pytest.fixture
async def server() -> AsyncGenerator[Server]:
    server = Server()
    listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0, backlog=1024)
    server.port = listener.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    yield server
    listener.close()
    for connection in list(server.state.connections):
        connection.transport.abort()  # type: ignore[union-attr]
    await server.ended()


@pytest.fixture
async def client(server: Server) -> AsyncGenerator[socket.socket]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))  # type: ignore[attr-defined]
        while not server.state.connections:
            await asyncio.sleep(0.001)
        yield client


async def read(client: socket.socket, most: int = 65536) -> bytes:
    async with asyncio.timeout(2):
        return await asyncio.get_running_loop().sock_recv(client, most)


async def arrived() -> None:
    """What was sent on loopback has been read by the server."""
    await asyncio.sleep(0.05)


async def test_an_idle_connection_is_ended(server: Server, client: socket.socket) -> None:
    client.send(GET)
    assert (await read(client)).endswith(b"xx")
    server.after(KEEP_ALIVE_S - 1)
    client.send(GET)
    assert (await read(client)).endswith(b"xx")
    server.after(KEEP_ALIVE_S + 1)
    assert await read(client) == b""


async def test_one_that_says_nothing_is_ended(server: Server, client: socket.socket) -> None:
    server.after(KEEP_ALIVE_S + 1)
    assert await read(client) == b""


async def test_a_head_has_its_time_in_all(server: Server, client: socket.socket) -> None:
    client.send(GET[:10])
    await arrived()
    server.after(HEAD_S - 1)
    client.send(GET[10:20])
    await arrived()
    server.after(HEAD_S + 1)
    assert (await read(client)).startswith(b"HTTP/1.1 408 ")
    assert await read(client) == b""


async def test_the_clock_goes_on_for_others_when_one_connection_fails(
    server: Server, client: socket.socket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracer that fails, for one: the 408 of a head is reported to it."""
    monkeypatch.setattr(server_context, "TICK_S", 0.01)
    context = server.connection.context

    class Failing:
        def expire(self, now: float) -> None:
            raise RuntimeError("a tracer")

        def abort(self) -> None:
            context.discard(self)

    for _ in range(20):
        context.add(Failing())
    context._tick()
    assert context._connections == {server.connection}
    monkeypatch.setattr(server.connection, "_deadline", 0.1)
    assert await read(client) == b""  # ended by the tick that followed
    assert "a tracer" in caplog.text


async def test_response_that_nobody_reads_is_dropped(server: Server, client: socket.socket) -> None:
    server.size = 10_000_000
    client.send(GET)
    await arrived()
    server.after(0)  # from here on the rate is measured
    server.after(WINDOW_S - 1)
    assert server.state.connections
    server.after(WINDOW_S + 1)
    await server.ended()


async def test_last_response_of_a_connection_that_nobody_reads_is_dropped(
    server: Server, client: socket.socket
) -> None:
    """The transport is closing by then, and the rest is small: nobody is told of either."""
    server.size = 10_000_000
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    await arrived()
    server.connection.transport.set_write_buffer_limits(100_000_000)
    server.connection.resume_writing()
    await arrived()
    server.after(0)
    server.after(WINDOW_S - 1)
    assert server.state.connections
    server.after(WINDOW_S + 1)
    await server.ended()


@pytest.mark.parametrize("share", [2, 0.5])
async def test_reader_has_to_take_a_minimum_on_average(server: Server, client: socket.socket, share: float) -> None:
    """Also of what the kernel holds: the response's end is in its buffers long before the client has it."""
    server.size, server.pieces = 10_000_000, 100
    client.send(GET)
    await arrived()
    server.after(0)
    missing = share * WINDOW_S * MIN_BYTES_PER_S
    while missing > 0:
        missing -= len(await read(client, 4096))
    await arrived()
    server.after(WINDOW_S + 1)
    await arrived()
    assert bool(server.state.connections) == (share > 1)
    if share < 1:  # nor does the kernel go on with what it holds
        with pytest.raises(ConnectionResetError):
            while await read(client):
                pass


async def test_requests_behind_a_response_that_nobody_reads_wait(server: Server, client: socket.socket) -> None:
    server.size = 10_000_000
    client.send(GET * 3)
    await arrived()
    assert server.connection.transport.get_write_buffer_size() <= 2 * WHOLE_BYTES
    assert len(server.state.tasks) == 1  # which counts until the client has taken its response
    got = 0
    while got < 3 * server.size:
        got += len(await read(client))


async def test_pipelined_requests_wait_as_bytes() -> None:
    """3,000 in one read are one request in flight, and no more memory than they are long."""
    going = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await going.wait()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    wire = Wire(app)
    await wire.send(GET)  # what is made once
    sent = GET * 3_000
    tracemalloc.start()
    try:
        wire.protocol.data_received(sent)
        await asyncio.sleep(0)
        assert tracemalloc.get_traced_memory()[0] < 2 * len(sent)
    finally:
        tracemalloc.stop()
    assert len(wire.state.tasks) == 1
    assert not wire.pipe.reading
    going.set()
    await until(lambda: wire.pipe.reading)
    assert len(wire.answers) == 3_001
    await wire.close()


async def test_requests_that_wait_for_their_turn_are_served_also_to_clients_that_close_their_side(
    server: Server,
) -> None:
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6 * MAX_READ)]  # type: ignore[attr-defined]
    try:
        await until(lambda: len(server.state.connections) == len(clients))
        for client in clients:
            client.setblocking(False)
            client.send(GET)
        for client in clients[1::3]:
            client.shutdown(socket.SHUT_WR)
        for client in clients[2::3]:
            client.send(GET + GET[:20])
        gone = clients.pop()
        gone.close()
        for index, client in enumerate(clients):
            expected = 2 if index % 3 == 2 else 1
            answers = b""
            while answers.count(b"HTTP/1.1 200 ") < expected:
                piece = await read(client)
                assert piece, f"client {index} got {answers!r}"
                answers += piece
            assert answers.endswith(b"xx")
            client.close()
        await server.ended()
    finally:
        for client in clients:
            client.close()


async def test_body_of_a_million_chunks_leaves_others_their_turns() -> None:
    wire = Wire()
    chunks = b"1\r\na\r\n" * 40_000
    others: list[float] = []

    async def other() -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0)
            others.append(time.monotonic() - begin)

    task = asyncio.create_task(other())
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    wire.protocol.data_received(sent)
    await until(lambda: wire.requests)
    task.cancel()
    assert wire.requests[0].body == b"a" * 40_000
    assert len(others) >= 30
    await wire.close()


async def test_large_body_that_nobody_reads_is_dropped_for_a_while(server: Server, client: socket.socket) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1000000\r\n\r\n") + b"x")
    assert b"connection: close" in await read(client)
    assert await read(client) == b""  # our side is closed, so that the client stops
    client.send(b"x" * 10_000)
    server.after(SKIP_S - 1)
    assert server.state.connections
    server.after(SKIP_S + 1)
    await server.ended()


async def test_small_body_that_nobody_reads_costs_no_connection(server: Server, client: socket.socket) -> None:
    client.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\n") + b"x")
    assert b"connection: close" not in await read(client)
    client.send(b"x" * 9 + GET)
    assert (await read(client)).endswith(b"xx")


async def test_a_client_that_closed_its_side_is_answered_if_soon(server: Server, client: socket.socket) -> None:
    server.answers.clear()
    client.send(GET)
    client.shutdown(socket.SHUT_WR)
    await arrived()
    server.after(HALF_CLOSED_S / 2)
    server.answers.set()
    assert (await read(client)).endswith(b"xx")
    assert await read(client) == b""


async def test_and_taken_for_gone_if_not(server: Server, client: socket.socket) -> None:
    server.answers.clear()
    client.send(GET)
    client.shutdown(socket.SHUT_WR)
    await arrived()
    server.after(HALF_CLOSED_S + 1)
    await server.ended()
    assert server.cancelled


async def test_a_long_answer_to_a_client_that_closed_its_side_goes_on(server: Server, client: socket.socket) -> None:
    server.size, server.pieces = 10_000_000, 100
    client.send(GET)
    client.shutdown(socket.SHUT_WR)
    await arrived()
    server.after(HALF_CLOSED_S + 1)
    got = 0
    while got < server.size:
        piece = await read(client)
        assert piece
        got += len(piece)


async def test_a_response_that_its_client_has_not_taken_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    await wire.send(GET)
    capacity = wire.protocol.context._capacity  # pyright: ignore[reportPrivateUsage]
    assert capacity.buffered == 0
    monkeypatch.setattr(wire.pipe, "get_write_buffer_size", lambda: 5000)
    monkeypatch.setattr(WriteRate, "too_slow", lambda *_: False)  # which asks the kernel
    wire.protocol.expire(time.monotonic())
    assert (capacity.buffered, capacity.kept) == (5000, 5000)
    await wire.close()
    assert (capacity.buffered, capacity.kept) == (0, 0)
