"""The head of a request: the one place that decides what its bytes mean.

llhttp, the parser of Node.js, checks the header lines. It sees one whole head at a time and nothing else. How long the
body is and whether the connection stays open are decided here, from the headers alone: llhttp's own answer to both also
depends on trailers, `Proxy-Connection` and `Upgrade`, and two readings of one stream are how requests are smuggled.

Imports nothing of the service but ASGI's types and the error catalogue.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from service.http import errors
from service.http.asgi import Header, Headers
from service.http.errors import ApiError

MAX_HEAD_BYTES = 32 * 1024  # request line and headers together: tokens of 8 KiB fit several times
MAX_LINES = 256  # of them: 8,000 short ones in MAX_HEAD_BYTES took 3 ms. Apache takes 100, Node.js 2,000
MAX_KEPT_BYTES = 2048  # of header lines, for each connection: a browser's, with a token
MAX_KEPT_LINES = 32  # of those: 240 empty ones took 38 kB
METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
CHUNKED = -1  # as the length of a body: known at its end

_FRAMING = frozenset((b"connection", b"content-length", b"transfer-encoding", b"expect"))
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
# Nearly every request line: no fragment, no other form of target, no other version.
_PLAIN_LINE = re.compile(rb"(" + b"|".join(METHODS) + rb") (/[\x21\x22\x24-\x7e]*) HTTP/1\.1\r\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") [\x21-\x7e]+ ([A-Z]+/[0-9]+(?:\.[0-9]+)?)")
_LATER_VERSION = re.compile(rb"HTTP/1\.[2-9]")
# RFC 9112, 3.2 and RFC 3986, 3.2.2, but no comma: a list of hosts is two Host lines that a proxy has joined.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|\[v[0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+;=:]+\]"
    rb"|(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_MAX_MEMBERS = 100  # of the lists in Connection, Expect and Transfer-Encoding: 16,000 codings took 4 ms
_valid_hosts: set[bytes] = (
    set()
)  # seen before: a service has a few. A client can make them up, and they are never freed
_MAX_HOSTS = 1000
_MAX_HOST_BYTES = 255  # a name of DNS has no more
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)
_TRAILING_SPACE = re.compile(rb"(?<=[^\n \t])[ \t]+\r\n")  # but not a line of nothing else, which is malformed
_CODINGS = re.compile(rb"\r\ntransfer-encoding:([^\r]*)", re.IGNORECASE)
_CODING = re.compile(_TOKEN + rb"(?:[ \t]*;.*)?")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*+")  # without going back: a read of 130,000 takes 1.4 ms, not 9
# A beginning that no head has: a bare CR or LF, or a first line of another form.
_BARE_LINE_END = re.compile(rb"\r[^\n]|(?<!\r)\n")
_LINE_CHECKED = 4096  # bytes; what is wrong further on is found at the head's end
_LINE_BEGUN = re.compile(rb"(?:" + _TOKEN + rb"(?: (?:[\x21-\x7e]+(?: (?:[A-Z]+(?:/[0-9.]*)?)?)?)?)?)?\r?")


@dataclass(slots=True)  # whose fields cost less to read than a NamedTuple's
class Framing:
    """What a head says about the body and the connection. `length` is that of the body in bytes, or CHUNKED."""

    length: int
    keep_alive: bool
    expects_continue: bool


_NO_BODY = Framing(0, keep_alive=True, expects_continue=False)


class RequestHead:
    """What a head says, in ASGI's forms."""

    __slots__ = ("framing", "headers", "method", "path", "query_string", "raw_path", "version")

    def __init__(self, method: str, version: str, target: bytes, headers: Headers, framing: Framing) -> None:
        self.method = method
        self.version = version
        self.headers = headers
        self.framing = framing
        self.raw_path, _, self.query_string = target.partition(b"?")
        path = self.raw_path.decode("ascii")
        self.path = unquote(path) if "%" in path else path


class HeadReader:
    """Reads the heads of one connection.

    A client that keeps a connection sends the same header lines with most of its requests, and to read them costs 3 µs.
    So what the last ones said is kept, up to MAX_KEPT_BYTES, and holds for the next head whose header lines are the
    very same bytes, whatever its method and target. Only behind a plain request line: what the lines mean also
    depends on the version, and an absolute target replaces the host.
    """

    __slots__ = ("_framing", "_headers", "_lines")

    def __init__(self) -> None:
        self._lines = b""  # which no head has
        self._headers: tuple[Header, ...] = ()
        self._framing = _NO_BODY

    def read(self, head: bytes) -> RequestHead:
        """What `head` says, from its request line to its empty line. Raises ApiError: 400, 417, 431, 501, 505."""
        if len(head) > MAX_HEAD_BYTES:
            check_beginning(head)
        plain = _PLAIN_LINE.match(head)
        if plain is None:
            return _read_any(head)
        method, target = plain.groups()
        lines = head[plain.end() :]
        if lines != self._lines:
            headers = _header_lines(head)
            framing = _framing("1.1", headers)
            if len(lines) <= MAX_KEPT_BYTES and len(headers) <= MAX_KEPT_LINES:
                self._lines, self._headers, self._framing = lines, tuple(headers), framing
            return RequestHead(METHODS[method], "1.1", target, headers, framing)
        return RequestHead(METHODS[method], "1.1", target, list(self._headers), self._framing)


class _Sink:
    """What llhttp calls with each header."""

    __slots__ = ("on_header",)

    def __init__(self, on_header: Callable[[bytes, bytes], object]) -> None:
        self.on_header = on_header


def _read_any(head: bytes) -> RequestHead:
    """What a head says whose request line is not plain. Raises ApiError."""
    line = head[: head.index(b"\r\n")]
    method, version = _request_line(line)
    name, target, _ = line.split(b" ")
    # llhttp does not know the later versions, which are to be read as 1.1.
    headers = _header_lines(b"%b %b HTTP/%b%b" % (name, target, version.encode(), head[len(line) :]))
    framing = _framing(version, headers)  # the Host has to be good also where an absolute form takes its place
    if b"#" in target or not target.startswith(b"/"):
        target = _origin_form(method, target, headers)
    return RequestHead(method, version, target, headers, framing)


def _header_lines(head: bytes) -> Headers:
    """The headers of a head whose request line is good, with lower-case names. Raises ApiError."""
    lines = head.count(b"\n")
    if lines > MAX_LINES:
        raise errors.head_too_large()
    found: dict[bytes, bytes] = {}
    try:
        # A method of dict saves a Python call for each header, but keeps a repeated name once. No parser is kept for
        # the next head: it would wait for this one's body, or for the end of the connection. A new one costs 0.2 µs.
        httptools.HttpRequestParser(_Sink(found.setdefault)).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        trimmed = _TRAILING_SPACE.sub(b"\r\n", head)
        if trimmed != head:  # llhttp does not take it behind every value
            return _header_lines(trimmed)
        # llhttp does not tell apart what is malformed and what it does not implement.
        coding = b",".join(_CODINGS.findall(head)) if _BARE_LINE_END.search(head) is None else b""
        raise (coding and _coding_error(coding)) or errors.malformed_http() from None
    if len(found) + 2 == lines:
        return [(name.lower(), value.rstrip(b" \t")) for name, value in found.items()]  # RFC 9110, 5.5
    pairs: Headers = []
    with suppress(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(_Sink(lambda name, value: pairs.append((name, value)))).feed_data(head)
    return [(name.lower(), value.rstrip(b" \t")) for name, value in pairs]


def _check_host(value: bytes) -> None:
    if not _HOST.fullmatch(value):
        raise errors.malformed_http()
    if len(_valid_hosts) < _MAX_HOSTS and len(value) <= _MAX_HOST_BYTES:
        _valid_hosts.add(value)


def _request_line(line: bytes) -> tuple[str, str]:
    """The method and the version. Raises ApiError: 400, 501, 505."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise errors.malformed_http()
    version = "1.1" if _LATER_VERSION.fullmatch(match[2]) else _VERSIONS.get(match[2])  # RFC 9110, 2.5
    if version is None:
        raise errors.version_not_supported()
    method = METHODS.get(match[1])
    if method is None:
        raise errors.method_not_implemented()
    return method, version


def _framing(version: str, headers: Headers) -> Framing:
    """Checks the host, and finds the end of the body. Raises ApiError."""
    hosts = 0
    framing: Headers = []
    for pair in headers:
        name = pair[0]
        if name == b"host":
            hosts += 1
            if pair[1] not in _valid_hosts:
                _check_host(pair[1])
        elif name in _FRAMING:
            framing.append(pair)
    if hosts != 1 and (hosts or version == "1.1"):  # RFC 9112, 3.2: only HTTP/1.0 may leave it out
        raise errors.malformed_http()
    return _read_framing(version, framing) if framing or version == "1.0" else _NO_BODY


def _read_framing(version: str, headers: Headers) -> Framing:
    connection = coding = b""
    length = members = 0
    keep_alive = version == "1.1"
    expected: set[bytes] = set()
    for name, value in headers:
        members += value.count(b",") + 1
        if members > _MAX_MEMBERS:
            raise errors.head_too_large()
        if name == b"connection":
            connection += value.lower() + b","
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            coding += value + b","
        elif version == "1.1":  # an HTTP/1.0 client cannot mean it (RFC 9110, 10.1.1)
            expected.update(member.strip(b" \t") for member in value.lower().split(b","))
    expected.discard(b"")
    if expected - {b"100-continue"}:
        raise errors.unknown_expectation()
    if connection:
        options = [option.strip(b" \t") for option in connection.split(b",")]
        keep_alive = b"close" not in options and (version == "1.1" or b"keep-alive" in options)
    if coding:
        error = _coding_error(coding[:-1])
        if error is not None:
            raise error
        if version == "1.0":  # RFC 9112, 6.1: its framing is faulty
            raise errors.malformed_http()
        length = CHUNKED
    return Framing(length, keep_alive, expects_continue=bool(expected))


def _coding_error(value: bytes) -> ApiError | None:
    """What is wrong with these transfer codings, unless they are just `chunked`. RFC 9112, 6.1 and 6.3."""
    if value.count(b",") >= _MAX_MEMBERS:
        return errors.head_too_large()
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings == [b"chunked"]:
        return None
    if b"chunked" in codings[:-1] or not all(_CODING.fullmatch(coding) for coding in codings):
        return errors.malformed_http()  # nobody can tell where such a body ends
    return errors.transfer_coding_not_implemented()


def _origin_form(method: str, target: bytes, headers: Headers) -> bytes:
    """The path and query of another form of target (RFC 9112, 3.2), or `*` for the service as a whole. The host of an
    absolute form takes the Host header's place. Raises ApiError.
    """
    if target == b"*" and method == "OPTIONS":
        return target
    match = _ABSOLUTE_FORM.fullmatch(target)
    if b"#" in target or match is None or not _HOST.fullmatch(match[1]) or match[1].startswith(b":"):
        raise errors.malformed_http()
    headers[:] = [(b"host", match[1]), *(pair for pair in headers if pair[0] != b"host")]
    rest = match[2]
    if not rest and method == "OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


def skip_empty_lines(data: bytes, position: int) -> int:
    """The position behind them. RFC 9112, 2.2: some clients send a line end behind a body."""
    match = _EMPTY_LINES.match(data, position)
    return position if match is None else match.end()


def check_beginning(data: bytes, checked: int = 0) -> None:
    """Raises ApiError where `data`, a part of a head, can no longer become one: 400, 414, 431, 501, 505. The first
    `checked` bytes could, when last asked. A client that speaks another protocol need not wait for a time limit.
    """
    line, end, _ = data.partition(b"\r\n")
    if not end or len(line) > MAX_HEAD_BYTES:
        if checked < _LINE_CHECKED and not _LINE_BEGUN.fullmatch(line):
            raise errors.malformed_http()
        if len(line) > MAX_HEAD_BYTES:  # RFC 9112, 3
            raise errors.target_too_long() if b" " in line else errors.method_not_implemented()
    elif checked <= len(line) + 2:
        _request_line(line)
    if _BARE_LINE_END.search(data, max(0, checked - 1)) is not None:
        raise errors.malformed_http()
    if len(data) > MAX_HEAD_BYTES:
        raise errors.head_too_large()
