"""The head of a response, as bytes. Imports nothing of the service but ASGI's types."""

import re
from collections.abc import Iterable
from http import HTTPStatus

from service.http.asgi import Header, Lines, line

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, _PHRASES.get(code, "").encode()) for code in range(100, 600)}
# Whether the server writes a header itself. An application can only ask for `Connection: close`.
_OWN = {b"connection": True, b"transfer-encoding": True, b"date": True}
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MAX_NAMES = 500  # that are cached; beyond it (an application makes names up) each is checked every time


def response_head(status: int, lines: Lines, *, keep_alive: bool, version: str) -> bytes:
    """The head. `lines` are all headers but `Connection`; `version` is the request's."""
    if not keep_alive:
        end = b"connection: close\r\n\r\n"
    elif version == "1.0":
        end = b"connection: keep-alive\r\n\r\n"
    else:
        end = b"\r\n"
    return _STATUS_LINES[status] + lines + end  # half of what formatting costs


def lines_of(headers: Iterable[Header]) -> tuple[Lines, bool]:
    """An application's headers as lines, without those that the server writes itself, and whether one asks for the end
    of the connection. Raises RuntimeError for what is no header line.
    """
    lines = b""
    closes = False
    for name, value in headers:
        own = _OWN.get(name)
        if own is None:
            own = _check_name(name)
        if not own:
            lines += line(name, value)
        elif name == b"connection" and b"close" in value.lower():
            closes = True
    return lines, closes


def _check_name(name: bytes) -> bool:
    if not _TOKEN.fullmatch(name):
        raise RuntimeError(f"{name!r} is no header name")
    if name != name.lower():
        return _OWN.get(name.lower(), False)
    if len(_OWN) < _MAX_NAMES:
        _OWN[name] = False
    return False
