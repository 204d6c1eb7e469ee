"""uvicorn's options on HttpProtocol, which README.md in service/http says work, and its time limits under uvicorn's own
server.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from service.http.protocol import HttpProtocol
from service.http.server_context import TICK_S
from tests.support.waiting import until
from tests.support.wire import Wire

GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"


async def scope_of(**options: Any) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    wire = Wire(app, **options)
    await wire.send(GET)
    assert wire.answers[0].status == 204
    assert "content-length" not in wire.answers[0].headers
    await wire.close()
    return seen[0]


async def test_root_path_is_before_the_path() -> None:
    scope = await scope_of(root_path="/base")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/base", "/base/a", b"/base/a")


async def test_scope_is_what_asgi_says() -> None:
    scope = await scope_of()
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert (scope["type"], scope["http_version"], scope["method"], scope["scheme"]) == ("http", "1.1", "GET", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a", b"/a", b"b")
    assert scope["headers"] == [(b"host", b"x")]
    assert scope["state"] == {"requests": []}


async def test_headers_are_on_every_response() -> None:
    wire = Wire(headers=[("X-Mine", "1"), ("Server", "mine")])
    await wire.send(GET + b"nonsense\r\n\r\n")
    assert [answer.status for answer in wire.answers] == [200, 400]
    assert [(answer.headers["x-mine"], answer.headers["server"]) for answer in wire.answers] == [("1", "mine")] * 2
    await wire.close()


async def test_headers_that_are_none_are_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(headers=[("X Mine", "1")])
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await wire.send(GET)
    assert wire.answers[0].status == 200
    await wire.close()


async def test_requests_above_limit_concurrency_are_503() -> None:
    wire = Wire(limit_concurrency=1)
    await wire.send(GET)
    assert [answer.status for answer in wire.answers] == [503]
    assert wire.requests == []
    await wire.close()


async def test_responses_count_for_limit_max_requests() -> None:
    wire = Wire()
    await wire.send(GET * 3)
    assert wire.state.total_requests == 3
    await wire.close()


async def test_timeout_keep_alive_0_keeps_no_connection() -> None:
    wire = Wire(timeout_keep_alive=0)
    await wire.send(GET)
    assert wire.answers[0].status == 200
    wire.protocol.expire(wire.protocol.context.now + TICK_S)
    assert wire.pipe.is_closing()
    await wire.close()


async def test_access_log_is_uvicorns(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        wire = Wire()
        await wire.send(GET)
        await wire.close()
    assert [record.getMessage() for record in caplog.records] == [' - "GET /a?b HTTP/1.1" 200']


@pytest.mark.parametrize(
    "option",
    [
        {"h11_max_incomplete_event_size": 1},
        {"date_header": False},
        {"ws": asyncio.Protocol},
        {"headers": [("Connection", "close")]},
    ],
)
async def test_option_that_has_no_effect_is_a_warning(option: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(**option)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    await wire.close()


# What an application does that ASGI does not allow ---------------------------------------------------------------


async def broken(scope: Any, receive: Any, send: Any) -> None:
    """Does what the query names."""
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
    match scope["query_string"]:
        case b"nothing":
            return
        case b"raises":
            raise ValueError("on purpose")
        case b"start-only":
            await send(start)
        case b"body-first":
            await send({"type": "http.response.body", "body": b""})
        case b"line-break":
            await send(start | {"headers": [(b"a", b"b\r\nc: d")]})
            await send({"type": "http.response.body", "body": b""})
        case b"bad-name":
            await send(start | {"headers": [(b"a b", b"c")]})
            await send({"type": "http.response.body", "body": b""})
        case b"too-long":
            await send(start | {"headers": [(b"content-length", b"1")]})
            await send({"type": "http.response.body", "body": b"ab"})
        case b"too-short":
            await send(start | {"headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"ab"})
        case b"half":
            await send(start)
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        case b"too-long-later":
            await send(start | {"headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
            await send({"type": "http.response.body", "body": b"ab"})
        case _:
            raise AssertionError


@pytest.mark.parametrize(
    "what", ["nothing", "raises", "start-only", "body-first", "line-break", "bad-name", "too-long", "too-short"]
)
async def test_broken_application_is_a_500(what: str) -> None:
    wire = Wire(broken)
    await wire.send(GET.replace(b"?b", b"?" + what.encode()))
    assert [answer.status for answer in wire.answers] == [500]
    assert wire.answers[0].body == b'{"error":"Internal server error"}'
    await wire.close()


@pytest.mark.parametrize("what", ["half", "too-long-later"])
async def test_response_that_breaks_off_ends_the_connection(what: str) -> None:
    """The client must not take a part for the whole, nor what is too much for the next response."""
    wire = Wire(broken)
    await wire.send(GET.replace(b"?b", b"?" + what.encode()) + GET)
    assert wire.pipe.written.startswith(b"HTTP/1.1 200 ")
    assert wire.pipe.written.count(b"HTTP/1.1") == 1
    assert not wire.pipe.written.endswith(b"0\r\n\r\n")
    assert wire.pipe.is_closing()
    await wire.close()


# Under uvicorn's own server --------------------------------------------------------------------------------------


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[tuple[uvicorn.Server, int]]:
    config = uvicorn.Config(hello, port=0, http=HttpProtocol, lifespan="off", log_config=None, **options)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started or task.done())
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def test_server_stops_at_limit_max_requests() -> None:
    async with served(limit_max_requests=2) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET * 2)
        async with asyncio.timeout(5):
            while not (await reader.readline()).startswith(b"hi"):
                pass
            assert await reader.read() is not None
        assert server.server_state.total_requests == 2
        writer.close()
