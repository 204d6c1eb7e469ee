"""Clients that are slow, endless, many, or gone: others are served, and memory does not grow."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.faults.conftest import Serve
from tests.support.http import AsyncClient, Response, connect, exchange_all, read_response, request
from tests.support.processes import RunningService

GROWTH_MB = 40


def memory_mb(service: RunningService) -> float:
    return psutil.Process(service.process.pid).memory_info().rss / 2**20


@asynccontextmanager
async def served_on(service: RunningService, within_s: float = 1.0) -> AsyncGenerator[None]:
    """All the while, another client is served."""
    over = asyncio.Event()

    async def others() -> None:
        async with AsyncClient(service.url) as client:
            while not over.is_set():
                answer = await client.send("POST", "/api/other/tasks", {"title": "x"}, timeout_s=within_s)
                assert answer.status == 201, answer
                await asyncio.sleep(0.05)

    task = asyncio.create_task(others())
    try:
        yield
    finally:
        over.set()
        await task


CREATE = request("POST", "/api/u/tasks", b'{"title": "x"}')
HEADS_BEGUN = [CREATE[:10], CREATE[:40]]  # in the request line, in a header
BODIES_BEGUN = [
    CREATE[:-14],  # not even
    CREATE[:-5],
    request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"}) + b"5\r\nab",
]


async def test_senders_that_stop_half_way_give_their_places_back(url: str, serve: Serve) -> None:
    """In heads, in bodies, and before bodies that do not come at all: more of them than there are places."""
    service = serve(url, MAX_IN_FLIGHT="20")
    begun = HEADS_BEGUN + BODIES_BEGUN
    sockets = [connect(service.url, 30) for _ in range(20)]
    try:
        for index, one in enumerate(sockets):
            # Each for another user, since one user gets a share of the places only.
            one.sendall(begun[index % len(begun)].replace(b"/api/u/", b"/api/u%d/" % index))
        begin = time.monotonic()
        with ThreadPoolExecutor(len(sockets)) as threads:
            replies = list(threads.map(read_response, sockets))
        assert time.monotonic() - begin < 15
        assert {reply.status for reply in replies} == {408}
        assert all(set(reply.json()) == {"error"} for reply in replies)
        async with AsyncClient(service.url) as client:
            assert (await client.send("GET", "/api/u/tasks")).status == 200
    finally:
        for one in sockets:
            one.close()


ENDLESS = {
    "body": request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"}),
    "trailer": request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"}) + b"0\r\nX-Trailer: ",
    "header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Header: ",
    "path": b"GET /",
    "headers": b"GET /livez HTTP/1.1\r\nHost: x\r\n",
    "body of a GET": request("GET", "/livez", headers={"Transfer-Encoding": "chunked"}),
    "body to nowhere": request("PUT", "/nowhere", headers={"Transfer-Encoding": "chunked"}),
    "chunk extension": request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"}) + b"5;x=",
}
PIECE = b"a" * 65536
CHUNK = b"10000\r\n" + PIECE + b"\r\n"
PIECES = {"headers": b"a: b\r\n" * 10_000, "body": CHUNK, "body of a GET": CHUNK, "body to nowhere": CHUNK}


@pytest.mark.parametrize("what", ENDLESS)
async def test_endless_request_is_ended(url: str, serve: Serve, what: str) -> None:
    """A sender that goes on as fast as it can, and reads nothing."""
    service = serve(url)
    async with served_on(service):
        await asyncio.sleep(0.2)
        before, most = memory_mb(service), 0.0
        sent, begin = 0, time.monotonic()
        with connect(service.url, 30) as endless:
            endless.setblocking(False)
            loop = asyncio.get_running_loop()
            with suppress(ConnectionError):
                await loop.sock_sendall(endless, ENDLESS[what])
                while time.monotonic() - begin < 15:
                    await asyncio.wait_for(loop.sock_sendall(endless, PIECES.get(what, PIECE)), 15)
                    sent += len(PIECE)
                    most = max(most, memory_mb(service))
        assert time.monotonic() - begin < 14, f"{sent} bytes were taken"
        assert most - before < GROWTH_MB


@pytest.mark.parametrize("query", ["", "?limit=1000"], ids=["streamed", "whole"])
async def test_readers_that_never_read_hold_bounded_memory(url: str, serve: Serve, query: str) -> None:
    """Pipelined requests for long answers, none of which is ever read."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("INSERT INTO users (id) VALUES ('u')")
        admin.execute(
            "INSERT INTO tasks (user_id, title, description)"
            " SELECT 'u', 'x', repeat('y', 500) FROM generate_series(1, 1000)"
        )
    service = serve(url)
    many = 10
    sockets = []
    async with served_on(service, within_s=3):
        await asyncio.sleep(0.2)
        before = memory_mb(service)
        for _ in range(many):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            parts = urlsplit(service.url)
            one.connect((parts.hostname, parts.port))
            one.setblocking(False)
            sockets.append(one)
        sent = request("GET", f"/api/u/tasks{query}") * 100
        most = 0.0
        for _ in range(30):
            for one in sockets:
                with suppress(BlockingIOError, ConnectionError):
                    one.send(sent)
            await asyncio.sleep(0.1)
            most = max(most, memory_mb(service))
        assert most - before < GROWTH_MB
    for one in sockets:
        one.close()


async def test_5000_idle_connections_cost_a_few_kib_each(url: str, serve: Serve) -> None:
    service = serve(url)
    parts = urlsplit(service.url)
    writers = []
    async with served_on(service):
        await asyncio.sleep(0.2)
        before = memory_mb(service)

        async def idle() -> None:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writers.append(writer)
            writer.write(request("GET", "/livez"))
            await reader.readuntil(b"}")

        for _ in range(50):
            await asyncio.gather(*(idle() for _ in range(100)))
        assert len(psutil.Process(service.process.pid).net_connections()) > 5000
        assert (memory_mb(service) - before) * 1024 / 5000 < 16  # KiB each; 4 were seen
        async with AsyncClient(service.url) as client:
            begin = time.monotonic()
            assert (await client.send("GET", "/api/u/tasks")).status == 200
            assert time.monotonic() - begin < 0.5
    for writer in writers:
        writer.transport.abort()


async def test_a_client_that_has_closed_its_side_gets_every_answer(url: str, serve: Serve) -> None:
    service = serve(url)

    def half_closed(sent: bytes) -> list[int]:
        return [response.status for response in exchange_all(service.url, sent, half_close=True)]

    create, read = request("POST", "/api/u/tasks", b'{"title": "x"}'), request("GET", "/api/u/tasks")
    assert await asyncio.to_thread(half_closed, create) == [201]
    assert await asyncio.to_thread(half_closed, create + read + create) == [201, 200, 201]
    assert await asyncio.to_thread(half_closed, create + read + create[:-1]) == [201, 200]
    assert await asyncio.to_thread(half_closed, b"") == []


async def test_pipelined_requests_are_answered_in_order(url: str, serve: Serve) -> None:
    service = serve(url)
    sent = b"".join(
        request("POST", "/api/u/tasks", b'{"title": "%d"}' % n) + request("GET", "/livez") + request("GET", "/nowhere")
        for n in range(100)
    )

    def exchange() -> list[Response]:
        with connect(service.url) as one:
            one.sendall(sent)
            stream = one.makefile("rb")
            return [read_response(stream) for _ in range(300)]

    replies = await asyncio.to_thread(exchange)
    assert [reply.status for reply in replies] == [201, 200, 404] * 100
    assert [reply.json()["title"] for reply in replies[::3]] == [str(n) for n in range(100)]
