"""Header lines that repeat on a connection are read once: what a head says never depends on the heads before it."""

import re
from collections.abc import Iterator

import pytest

from service.http.errors import ApiError
from service.http.head import MAX_KEPT_BYTES, MAX_KEPT_LINES, METHODS, HeadReader
from tests.http.vectors import VECTORS
from tests.support.wire import Request, Wire

LINES = b"Host: x\r\nA: b\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\n"


def heads() -> list[bytes]:
    """Each head of the vectors, good or bad."""
    streams = [stream for stream in (b"".join(vector.pieces) for vector in VECTORS) if len(stream) < 2_000]
    found = {match[0] for stream in streams for match in re.finditer(rb"[^\r\n].*?\r\n\r\n", stream, re.DOTALL)}
    return sorted(found)


def said(reader: HeadReader, head: bytes) -> object:
    """What the reader makes of a head: everything that is read of it, or the error."""
    try:
        read = reader.read(head)
    except ApiError as error:
        return error.status, error.message
    parts = (read.method, read.version, read.raw_path, read.query_string, read.path)
    return *parts, read.headers, read.framing


def lines_of(head: bytes) -> bytes:
    return head[head.index(b"\r\n") + 2 :]


def accepted() -> Iterator[bytes]:
    """The header lines of the vectors that are good behind a plain request line."""
    for lines in sorted({lines_of(head) for head in heads()}):
        if said(HeadReader(), GET + lines)[0] == "GET":  # type: ignore[index]
            yield lines


def test_every_head_of_the_vectors_is_read_alike_behind_the_same_header_lines() -> None:
    kept = list(accepted())
    assert len(kept) > 50
    for head in heads():
        first = said(HeadReader(), head)
        for lines in {lines_of(head), *kept[::10]}:
            reader = HeadReader()
            said(reader, GET + lines)
            assert said(reader, head) == first, f"behind {lines!r}"
            assert said(reader, head) == first, "again"


def test_every_request_line_of_the_vectors_is_read_alike_before_kept_header_lines() -> None:
    request_lines = {head[: head.index(b"\r\n") + 2] for head in heads()}
    forms = [
        *(b"GET /%b HTTP/1.1\r\n" % bytes([byte]) for byte in range(256)),
        *(b"%b /a?b=c?d HTTP/1.1\r\n" % method for method in METHODS),
        *(b"%b /a HTTP/1.%d\r\n" % (method, minor) for method in METHODS for minor in range(10)),
        *(b"GET%b/a HTTP/1.1\r\n" % space for space in (b"\t", b"  ", b"\r\n", b"\x0b", b"")),
        *(b"GET /a%bHTTP/1.1\r\n" % space for space in (b"\t", b"  ", b"\r\n", b"\x0b", b"")),
        *(b"GET /a HTTP/1.1%b\r\n" % end for end in (b" ", b"\t", b"\r", b"\n", b"\0", b"\r\nB: c")),
        *(b"GET %b HTTP/1.1\r\n" % target for target in (b"http://y/a", b"//y/a", b"*", b"a", b"", b"/#", b"/a?#b")),
        *(b"GET /a HTTP/1.1\r\n%b\r\n" % line for line in (b" folded: b", b"\tb", b"Host: y", b"b", b"A : b")),
        *(b"get /a HTTP/1.1\r\n", b"GET /a http/1.1\r\n", b"GET /a HTTP/1.1 x\r\n", b"\0GET /a HTTP/1.1\r\n"),
        *(b"GET /a\r\n", b"CONNECT /a HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"GET /a RTSP/1.0\r\n"),
    ]
    for lines in (LINES, b"Host: x\r\nContent-Length: 3\r\n\r\n", b"Host: x\r\nConnection: close\r\n\r\n", b"\r\n"):
        for request_line in request_lines.union(forms):
            head = request_line + lines
            if b"\r\n\r\n" in head[:-4] or head.startswith(b"\r\n"):
                continue  # the head ends before
            reader = HeadReader()
            said(reader, GET + lines)
            assert said(reader, head) == said(HeadReader(), head), request_line


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: x\r\nA: c\r\n\r\n",
        b"Host: x\r\nA: b\r\nA: b\r\n\r\n",
        b"Host: x\r\n\r\n",
        b"Host: x\nA: b\r\n\r\n",
        b"Host: x\r\nA: b\n\r\n\r\n",
        b"Host: x\r\nA:\tb\r\n\r\n",
        b"Host: x\r\nA: b\r\n c\r\n\r\n",
        b"Host: x\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Host: x\r\nA: b\r\nContent-Length: 5\r\n\r\n",
        b"host: x\r\nA: b\r\n\r\n",
    ],
)
def test_other_header_lines_are_read_anew(lines: bytes) -> None:
    reader = HeadReader()
    before = said(reader, GET + LINES)
    assert said(reader, GET + lines) == said(HeadReader(), GET + lines)
    assert said(reader, GET + LINES) == before


def test_an_application_that_changes_its_headers_changes_no_other_request() -> None:
    reader = HeadReader()
    for _ in range(3):
        headers = reader.read(GET + LINES).headers
        assert headers == [(b"host", b"x"), (b"a", b"b")]
        headers.append((b"authorization", b"another"))
        headers[0] = (b"host", b"another")


def test_the_host_of_an_absolute_target_is_that_request_s_alone() -> None:
    reader = HeadReader()
    for target, host in ((b"/a", b"x"), (b"http://y/a", b"y"), (b"/a", b"x"), (b"http://z/a", b"z"), (b"/a", b"x")):
        assert reader.read(b"GET " + target + b" HTTP/1.1\r\n" + LINES).headers[0] == (b"host", host)


def test_an_absolute_target_gives_its_host_also_where_no_host_is_sent() -> None:
    """HTTP/1.0 may leave it out, and what checks hosts (browser_guard) must not be left without one."""
    assert HeadReader().read(b"GET http://y/a HTTP/1.0\r\nA: b\r\n\r\n").headers == [(b"host", b"y"), (b"a", b"b")]


def test_large_header_lines_are_not_kept() -> None:
    reader = HeadReader()
    large = b"Host: x\r\nA: " + b"b" * MAX_KEPT_BYTES + b"\r\n\r\n"
    first, second = reader.read(GET + large), reader.read(GET + large)
    assert first.headers == second.headers
    assert first.headers[1][1] is not second.headers[1][1]


def test_hosts_are_kept_only_while_they_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can make them up."""
    kept: set[bytes] = set()
    monkeypatch.setattr("service.http.head._valid_hosts", kept)
    for host in (b"a" * 255, b"a" * 256, b"a" * 30_000):
        said(HeadReader(), GET + b"Host: %b\r\n\r\n" % host)
    assert kept == {b"a" * 255}


async def test_a_body_of_the_same_length_follows_each_head_with_the_same_lines() -> None:
    wire = Wire()
    post = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    await wire.send(*(post % number + b"ab%d" % number for number in range(3)))
    await wire.send(b"".join(post % number + b"GET" for number in range(3, 6)))
    headers = ((b"host", b"x"), (b"content-length", b"3"))
    bodies = [b"ab0", b"ab1", b"ab2", b"GET", b"GET", b"GET"]
    assert wire.requests == [Request("POST", b"/%d" % number, body, headers) for number, body in enumerate(bodies)]
    await wire.close()


def test_header_lines_are_kept_only_where_they_are_few() -> None:
    """An idle connection has them: 240 empty ones took 38 kB."""
    reader = HeadReader()
    kept: list[bool] = []
    for number in (MAX_KEPT_LINES - 1, MAX_KEPT_LINES):
        head = GET + b"Host: x\r\n" + b"".join(b"a%d: \r\n" % index for index in range(number)) + b"\r\n"
        reader.read(head)
        kept.append(reader._lines == lines_of(head))  # pyright: ignore[reportPrivateUsage]
    assert kept == [True, False]
