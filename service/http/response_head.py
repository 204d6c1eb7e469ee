"""The head of a response, as bytes. Imports nothing of the service but ASGI's types."""

import re
from http import HTTPStatus

from service.http.asgi import Headers

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, _PHRASES.get(code, "").encode()) for code in range(100, 600)}
# Whether the server writes a header itself. An application can only ask for `Connection: close`.
_OWN = {b"connection": True, b"transfer-encoding": True, b"date": True}
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MOST_NAMES = 500  # that are remembered: those of an application that makes them up are checked each time


def response_head(
    status: int, headers: Headers, lines: bytes, *, keep_alive: bool, version: str = "1.1"
) -> tuple[bytes, bool]:
    """The head, and whether the connection stays: `keep_alive`, unless a header asks for the end. `lines` are the
    server's own, each with its line end; `version` is the request's. Raises RuntimeError for what is no header line.
    """
    parts = [_STATUS_LINES[status], lines]
    for name, value in headers:
        own = _OWN.get(name)
        if own is None:
            own = _check_name(name)
        if not own:
            parts += (name, b": ", value, b"\r\n")
        elif name == b"connection" and b"close" in value.lower():
            keep_alive = False
    line_ends = len(parts) // 4 + lines.count(b"\n") + 2
    if not keep_alive:
        parts.append(b"connection: close\r\n\r\n")
        line_ends += 1
    elif version == "1.0":
        parts.append(b"connection: keep-alive\r\n\r\n")
        line_ends += 1
    else:
        parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != line_ends or head.count(b"\r") != line_ends:
        raise RuntimeError("a line break in a header")
    return head, keep_alive


def _check_name(name: bytes) -> bool:
    if not _TOKEN.fullmatch(name):
        raise RuntimeError(f"{name!r} is no header name")
    if name != name.lower():
        return _OWN.get(name.lower(), False)
    if len(_OWN) < _MOST_NAMES:
        _OWN[name] = False
    return False
