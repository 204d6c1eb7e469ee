"""Headers, origins and HTTP that tries to be two things at once."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from service.settings import SettingsError, load
from tests.support.http import connect, exchange, exchange_all, read_response, request
from tests.support.marks import own_protocol
from tests.support.processes import HTTP_PROTOCOL, RunningService, wait_ready

TASKS = "/api/u/tasks"
CHUNKED = {"Transfer-Encoding": "chunked"}
GOOD = b'{"title": "x"}'
SMUGGLED = request("DELETE", "/api/u/tasks/1")


# Headers ------------------------------------------------------------------------------------------------------------

ANSWERS = {
    "a list": request("GET", TASKS),
    "created": request("POST", TASKS, GOOD),
    "a bad field": request("POST", TASKS, b"{}"),
    "no task": request("GET", f"{TASKS}/999999"),
    "deleted": request("DELETE", f"{TASKS}/1"),
    "options": request("OPTIONS", TASKS),
    "no path": request("GET", "/no/such/path"),
    "no method": request("POST", "/livez"),
    "livez": request("GET", "/livez"),
    "readyz": request("GET", "/readyz"),
    "metrics": request("GET", "/metrics"),
    "docs": request("GET", "/docs"),
    "description": request("GET", "/openapi.json"),
}
BAD_HTTP = {
    "no HTTP": b"nonsense\r\n\r\n",
    "a long head": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    "a long path": request("GET", "/" + "a" * 40_000),
    "a large body": request("POST", TASKS, b'"' * 70_000),
    "a bad chunk": request("POST", TASKS, headers=CHUNKED) + b"zz\r\n",
}


@pytest.mark.parametrize("what", ANSWERS | BAD_HTTP)
def test_every_answer_says_what_it_is_and_not_who_made_it(service: RunningService, what: str) -> None:
    if what in BAD_HTTP and HTTP_PROTOCOL:
        pytest.skip("only service.http.protocol promises this")
    headers = exchange(service.url, (ANSWERS | BAD_HTTP)[what]).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert not headers.keys() & {"server", "via", "x-powered-by", "x-aspnet-version"}
    assert not re.search("uvicorn|litestar|python", str(headers), re.IGNORECASE)


@own_protocol
@pytest.mark.parametrize("what", BAD_HTTP)
def test_what_the_server_refuses_has_the_shape_of_every_error(service: RunningService, what: str) -> None:
    reply = exchange(service.url, BAD_HTTP[what])
    assert reply.status in (400, 413, 414, 431)
    assert set(reply.json()) == {"error"}
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


@own_protocol
def test_heads_and_paths_have_their_limits(service: RunningService) -> None:
    """Tokens of several KiB fit; what no client needs does not."""
    assert exchange(service.url, request("GET", "/livez", headers={"Authorization": "a" * 16_000})).status == 200
    assert exchange(service.url, request("GET", "/livez", headers={f"X-{n}": "a" for n in range(90)})).status == 200
    for sent in (
        request("GET", "/livez", headers={"X": "a" * 1_000_000}),
        request("GET", "/livez", headers={f"X-{n}": "a" * 100 for n in range(10_000)}),
        request("GET", "/livez?" + "a" * 1_000_000),
    ):
        reply = exchange(service.url, sent)
        assert reply.status in (400, 414, 431)


# Two requests or one ------------------------------------------------------------------------------------------------


def framed(*lines: str, body: bytes = b"0\r\n\r\n", method: str = "POST", path: str = TASKS) -> bytes:
    """A request with exactly these header lines after its Host, and SMUGGLED behind what may be its body."""
    head = "".join(f"{line}\r\n" for line in ("Host: tasks.example.com", *lines))
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body + SMUGGLED


REFUSED = {
    "both lengths": framed("Content-Length: 5", "Transfer-Encoding: chunked"),
    "both lengths, the other way round": framed("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two lengths": framed("Content-Length: 5", "Content-Length: 0"),
    "two lengths that agree": framed("Content-Length: 5", "Content-Length: 5"),
    "lengths in a list": framed("Content-Length: 5, 0"),
    "a length below zero": framed("Content-Length: -1"),
    "a length with a sign": framed("Content-Length: +5"),
    "a length in hexadecimal": framed("Content-Length: 0x5"),
    "a length beyond 64 bits": framed("Content-Length: 99999999999999999999999"),
    "no length": framed("Content-Length:"),
    "a space before the colon": framed("Content-Length : 5"),
    "a space before chunked's colon": framed("Transfer-Encoding : chunked"),
    "an unknown coding": framed("Transfer-Encoding: xchunked"),
    "a coding before chunked": framed("Transfer-Encoding: gzip, chunked"),
    "a coding on a line before chunked": framed("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"),
    "chunked is not the last": framed("Transfer-Encoding: chunked, identity"),
    "chunked on a line of two": framed("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "a folded coding": framed("Transfer-Encoding:\r\n chunked", "Content-Length: 5"),
    "a folded first line": framed(" Content-Length: 5"),
    "a bare LF between lines": framed("A: b\nContent-Length: 5"),
    "bare LFs": framed("Content-Length: 5").replace(b"\r\n", b"\n"),
    "a bare CR in a value": framed("A: b\rContent-Length: 5"),
    "a NUL in a value": framed("A: b\0c"),
    "a NUL in a name": framed("A\0: b"),
    "a name with a space": framed("A b: c"),
    "no name": framed(": b"),
    "a line that is no header": framed("nonsense"),
    "no host": framed().replace(b"Host: tasks.example.com\r\n", b"", 1),
    "two hosts": framed("Host: elsewhere.example.com"),
    "a chunk size with a sign": framed("Transfer-Encoding: chunked", body=b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size in 0x": framed("Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size beyond 64 bits": framed(
        "Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"
    ),
    "a chunk size that is none": framed("Transfer-Encoding: chunked", body=b"hello\r\n"),
    "a chunk longer than its size": framed("Transfer-Encoding: chunked", body=b"2\r\nhello\r\n0\r\n\r\n"),
    "a chunk that ends in a bare LF": framed("Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"),
    "HTTP/1.1 with a tail": framed().replace(b"HTTP/1.1", b"HTTP/1.1 x", 1),
    "HTTP/9": framed().replace(b"HTTP/1.1", b"HTTP/9.1", 1),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "two spaces": framed().replace(b"POST /", b"POST  /", 1),
    "a tab for a space": framed().replace(b"POST /", b"POST\t/", 1),
    "a method in lower case": framed(method="post"),
    "a method that is none": framed(method="SMUGGLE"),
    "a control character in the path": framed(path="/api/u\x01/tasks"),
}


@pytest.fixture
def other_task(service: RunningService) -> Iterator[str]:
    """A task that nobody asks to be deleted."""
    path = service.http.post("/api/victim/tasks", json={"title": "x"}).headers["location"]
    yield path
    assert service.http.get(path).status_code == 200


# Not implemented, rather than malformed.
STATUSES = {
    "an unknown coding": 501,
    "a coding before chunked": 501,
    "a coding on a line before chunked": 501,
    "HTTP/9": 505,
    "HTTP/2's preface": 505,
    "a method in lower case": 501,
    "a method that is none": 501,
}


@own_protocol
@pytest.mark.parametrize("what", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_whole(service: RunningService, other_task: str, what: str) -> None:
    """One error, and the connection ends: nothing behind it is taken for a request."""
    sent = REFUSED[what].replace(SMUGGLED, request("DELETE", other_task))
    found = exchange_all(service.url, sent)
    assert [(reply.status, reply.headers["connection"]) for reply in found] == [(STATUSES.get(what, 400), "close")]
    assert set(found[0].json()) == {"error"}


def test_a_body_by_its_length_is_no_request_by_its_chunks(service: RunningService, other_task: str) -> None:
    """Whatever server: what a proxy that goes by Content-Length takes for a body is not done."""
    hidden = request("DELETE", other_task)
    lines = (f"Content-Length: {len(hidden) + 5}", "Transfer-Encoding: chunked", "Connection: close")
    exchange(service.url, framed(*lines).replace(SMUGGLED, hidden))


UPGRADE = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
SET = b'{"completed": true}'


@own_protocol
@pytest.mark.parametrize(
    "pieces",
    [
        [UPGRADE | {"Content-Length": "19"}, SET],
        [UPGRADE | {"Content-Length": "19"}, b"", SET[:5], SET[5:]],
        [UPGRADE | CHUNKED, b"5\r\n" + SET[:5] + b"\r\n", b"e\r\n" + SET[5:] + b"\r\n0\r\n\r\n"],
    ],
    ids=["at once", "in pieces", "chunked"],
)
def test_a_request_that_asks_for_another_protocol_keeps_its_body(service: RunningService, pieces: list[Any]) -> None:
    """As Java's HttpClient and `curl --http2` ask, each time (RFC 9110, 7.8: it may be ignored)."""
    headers, *body = pieces
    path = exchange(service.url, request("POST", TASKS, b'{"title": "x", "completed": true}')).headers["location"]
    head = request("PATCH", path + "/complete", headers=headers)
    with connect(service.url) as connection:
        connection.sendall(head + body[0])
        for piece in body[1:]:
            sleep(0.02)  # so that it is a separate packet
            connection.sendall(piece)
        reply = read_response(connection)
        connection.sendall(request("GET", path))
        assert read_response(connection).body == reply.body
    assert (reply.status, reply.json()["completed"], reply.json()["version"]) == (200, True, 1)


@own_protocol
def test_upgrade_is_ignored_and_the_connection_stays(service: RunningService) -> None:
    asking = request("GET", "/livez", headers=UPGRADE)
    create = request("POST", TASKS, GOOD, UPGRADE)
    with connect(service.url) as connection, connection.makefile("rb") as stream:
        connection.sendall(asking + create + asking)
        assert [read_response(stream).status for _ in range(3)] == [200, 201, 200]


@own_protocol
def test_trailers_are_no_headers(service: RunningService) -> None:
    """Neither an identity nor a condition can be slipped in behind the body."""
    chunks = b"e\r\n" + GOOD + b"\r\n0\r\nIdempotency-Key: k\r\nX-Request-ID: slipped-in\r\nHost: x\r\n\r\n"
    sent = request("POST", TASKS, headers=CHUNKED | {"Connection": "close"}) + chunks
    found = exchange(service.url, sent)
    assert found.status == 201
    assert found.headers["x-request-id"] != "slipped-in"


def test_a_folded_value_stays_one_value(service: RunningService) -> None:
    """RFC 9112, 5.2: refuse it, or put a space in its place."""
    sent = request("GET", "/livez", headers={"X-Request-ID": "a\r\n b"})
    reply = exchange(service.url, sent)
    assert reply.status in (200, 400)
    assert reply.headers.get("x-request-id") not in ("a", "b", "ab")


def test_chunks_are_put_together(service: RunningService) -> None:
    chunks = b'4;ext=1\r\n{"ti\r\nA\r\ntle": "x"}\r\n0\r\n\r\n'
    assert exchange(service.url, request("POST", TASKS, headers=CHUNKED) + chunks).status == 201


def test_http_1_0_needs_no_host_and_ends(service: RunningService) -> None:
    with connect(service.url) as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_response(connection).status == 200
        assert connection.recv(1) == b""


# CorsPolicy -------------------------------------------------------------------------------------------------------

ALLOWED = "https://app.example.com"
HOSTILE = [
    "null",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://app.example.com@evil.example",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://APP.example.com.",
    "https://app.example.co",
    "https://appXexample.com",
    "https://app.example.com/",
    "https://evil.example, https://app.example.com",
    "",
]
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "If-Match"}


@pytest.fixture(scope="module")
def shared(clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that browsers may call from ALLOWED and from another origin, with credentials."""
    with RunningService(
        tmp_path_factory.mktemp("shared"),
        DATABASE_URL=clone(),
        AUTH_MODE="none",
        CORS_ALLOW_ORIGINS=f"{ALLOWED}, https://other.example.com",
        CORS_ALLOW_CREDENTIALS="true",
    ) as running:
        wait_ready(running.url)
        yield running


def cors(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [ALLOWED, *HOSTILE])
def test_without_the_setting_no_origin_is_let_in(service: RunningService, origin: str) -> None:
    for method, more in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        assert cors(exchange(service.url, request(method, TASKS, headers={"Origin": origin} | more)).headers) == {}


@pytest.mark.parametrize("origin", [ALLOWED, "https://other.example.com"])
def test_an_allowed_origin_is_let_in_and_sees_what_it_needs(shared: RunningService, origin: str) -> None:
    reply = exchange(shared.url, request("GET", TASKS, headers={"Origin": origin}))
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert reply.headers["access-control-allow-credentials"] == "true"
    assert "origin" in reply.headers["vary"].lower()
    exposed = {name.strip().lower() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert exposed == {"etag", "link", "location", "retry-after", "x-request-id", "idempotency-replayed"}
    preflight = exchange(shared.url, request("OPTIONS", TASKS, headers={"Origin": origin} | PREFLIGHT))
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "PUT" in preflight.headers["access-control-allow-methods"]


@pytest.mark.parametrize("origin", HOSTILE)
def test_a_hostile_origin_is_not(shared: RunningService, origin: str) -> None:
    for method, more in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        reply = exchange(shared.url, request(method, TASKS, headers={"Origin": origin} | more))
        assert "access-control-allow-origin" not in reply.headers, method
    if origin:  # an empty one is none: no preflight
        assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
        assert reply.json() == {"error": "Origin, method or headers are not allowed across origins"}
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "asked",
    [
        {"Access-Control-Request-Method": "TRACE"},
        PREFLIGHT | {"Access-Control-Request-Headers": "X-Admin"},
        PREFLIGHT | {"Access-Control-Request-Headers": "If-Match," * 200},
    ],
)
def test_nor_is_what_an_allowed_origin_may_not_send(shared: RunningService, asked: dict[str, str]) -> None:
    reply = exchange(shared.url, request("OPTIONS", TASKS, headers={"Origin": ALLOWED} | asked))
    assert (reply.status, list(reply.json())) == (400, ["error"])


@pytest.mark.parametrize("origin", [None, ALLOWED, "https://evil.example"])
def test_caches_are_told_that_the_origin_matters(shared: RunningService, origin: str | None) -> None:
    """Else one may hand a page what it kept for somebody who needs no leave, and the page could not read it."""
    for path in (TASKS, f"{TASKS}/9999", "/nowhere"):
        reply = exchange(shared.url, request("GET", path, headers={"Origin": origin} if origin else {}))
        assert reply.headers["vary"] == "Origin", path


def test_a_page_can_read_that_there_is_too_much_to_do(clone: Callable[[], str], tmp_path: Path) -> None:
    settings = {"DATABASE_URL": clone(), "AUTH_MODE": "none", "CORS_ALLOW_ORIGINS": ALLOWED}
    with RunningService(tmp_path, **settings, MAX_IN_FLIGHT_PER_USER="1") as service:
        wait_ready(service.url)
        with connect(service.url) as slow:
            slow.sendall(request("POST", TASKS, headers={"Content-Length": "14", "Expect": "100-continue"}))
            assert slow.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it has the user's share, and no body
            reply = exchange(service.url, request("GET", TASKS, headers={"Origin": ALLOWED}))
            preflight = exchange(service.url, request("OPTIONS", TASKS, headers={"Origin": ALLOWED} | PREFLIGHT))
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (429, ALLOWED)
        assert "Retry-After" in reply.headers["access-control-expose-headers"]
        assert preflight.status == 204


def test_an_error_can_be_read_by_the_page_that_caused_it(shared: RunningService) -> None:
    for method, path, status in (("POST", TASKS, 400), ("GET", f"{TASKS}/9999", 404), ("GET", "/nowhere", 404)):
        reply = exchange(shared.url, request(method, path, headers={"Origin": ALLOWED}))
        assert (reply.status, reply.headers.get("access-control-allow-origin")) == (status, ALLOWED)


def test_any_origin_is_never_let_in_with_credentials(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "postgresql:///x", "AUTH_MODE": "none", "CORS_ALLOW_CREDENTIALS": "true"}
    with pytest.raises(SettingsError, match=r"CORS_ALLOW_ORIGINS=\* cannot be used together"):
        load(settings | {"CORS_ALLOW_ORIGINS": "https://app.example.com, *"}, dotenv=None)
