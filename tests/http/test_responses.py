"""The responses of any ASGI application as a client finds their ends: h11 reads them, and nothing may be left over that
it would take for the next response.
"""

import logging
from itertools import product
from typing import Any

import h11
import pytest

from tests.support.wire import Wire

Headers = list[tuple[bytes, bytes]]

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
]
STATUSES = [103, 200, 204, 205, 304, 404, 599, 600]
BODIES = [[b"ab"], [b""], [b"a", b"b"], [b"", b"ab"], [b"ab", b""]]
GOOD: list[Headers] = [
    [],
    [(b"content-length", b"2")],
    [(b"Content-Length", b"2")],
    [(b"content-length", b"2"), (b"content-length", b"02")],
    [(b"transfer-encoding", b"chunked")],
    [(b"Transfer-Encoding", b"chunked"), (b"content-length", b"2")],
    [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")],
    [(b"connection", b"keep-alive"), (b"date", b"yesterday"), (b"keep-alive", b"timeout=5")],
]
BAD: list[Headers] = [
    [(b"content-length", b"2"), (b"Content-Length", b"3")],
    [(b"content-length", b"+2")],
    [(b"content-length", b" 2")],
    [(b"content-length", b"-1")],
    [(b"content-length", b"two")],
    [(b"content-length", b"")],
    [(b"x", b"a\0b")],
    [(b"x", b"a\x7fb")],
    [(b"x", b"a\nb")],
    [(b"x", b"a\rb")],
    [(b"", b"x")],
]


async def response_to(request: bytes, status: int, headers: Headers, bodies: list[bytes]) -> tuple[Any, bytes, bool]:
    """The response, its body, and whether the connection stays, as h11 reads them. Raises h11.RemoteProtocolError."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    wire = Wire(app)
    await wire.send(request)
    client = h11.Connection(h11.CLIENT)
    connection = [("Connection", "close")] if b"close" in request else []
    client.send(h11.Request(method=request.split()[0], target="/", headers=[("Host", "x"), *connection]))
    client.send(h11.EndOfMessage())
    client.receive_data(bytes(wire.pipe.written))
    if wire.pipe.ended:
        client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    stays = not wire.pipe.ended
    assert stays == (client.their_state is h11.DONE)
    await wire.close()
    return response, body, stays


async def test_client_finds_the_end_of_every_response(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for request, status, headers, bodies in product(REQUESTS, STATUSES, GOOD, BODIES):
        case = f"{request!r}, {status}, {headers}, {bodies}"
        response, body, stays = await response_to(request, status, headers, bodies)
        sent = b"" if request.startswith(b"HEAD") or status in (204, 205, 304) else b"".join(bodies)
        if status in (103, 600):
            assert (response.status_code, stays) == (500, False), case
            continue
        if response.status_code != status:  # the length was 2 and the body none
            assert (response.status_code, bodies) == (500, [b""]), case
            continue
        names = [name for name, _ in response.headers]
        assert body == sent, case
        assert names.count(b"date") == 1, case
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, case
        if status == 204:
            assert b"content-length" not in names and b"transfer-encoding" not in names, case
        if b"HTTP/1.0" in request:
            assert b"transfer-encoding" not in names, case


@pytest.mark.parametrize("headers", BAD, ids=str)
async def test_header_that_is_none_is_a_500(headers: Headers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for request, status in product(REQUESTS, (200, 204, 304)):
        response, _, stays = await response_to(request, status, headers, [b"ab"])
        assert (response.status_code, stays) == (500, False)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 40_000), 414),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
    ids=["414", "501", "400"],
)
async def test_what_is_rejected_before_the_application_is_not_for_caches(sent: bytes, status: int) -> None:
    wire = Wire()
    await wire.send(sent)
    assert [answer.status for answer in wire.answers] == [status]
    assert wire.answers[0].headers["cache-control"] == "private, no-store"
    await wire.close()
