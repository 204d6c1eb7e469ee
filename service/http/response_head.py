"""The head of a response, as bytes. Imports nothing of the service but ASGI's types."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

from service.http.asgi import Header, Lines

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
STATUSES = range(200, 600)  # of responses; 1xx are no response yet
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, _PHRASES.get(code, "").encode()) for code in STATUSES}
OWN_HEADERS = frozenset((b"connection", b"content-length", b"date", b"transfer-encoding"))  # the server writes them
_OWN: dict[bytes, bool] = dict.fromkeys(OWN_HEADERS, True)  # whether the server writes a header itself
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_MAX_NAMES = 500  # that are cached; beyond it (an application makes names up) each is checked every time


class Fields(NamedTuple):
    """An application's headers: `lines` without those that the server writes itself, and what those ask for.

    `closes`: the end of the connection. `length`: of the body. `chunked`: any transfer coding.
    """

    lines: Lines
    closes: bool
    length: int | None
    chunked: bool


def response_head(status: int, lines: Lines, *, keep_alive: bool, version: str) -> bytes:
    """The head. `lines` are all headers but `Connection`; `version` is the request's."""
    if not keep_alive:
        end = b"connection: close\r\n\r\n"
    elif version == "1.0":
        end = b"connection: keep-alive\r\n\r\n"
    else:
        end = b"\r\n"
    return _STATUS_LINES[status] + lines + end  # half of what formatting costs


def fields_of(headers: Iterable[Header]) -> Fields:
    """Reads an application's headers. Raises RuntimeError for what is no header line, and for a length that is none or
    has two values: clients that read them differently would take the rest for another response.
    """
    lines = b""
    closes = chunked = False
    length: int | None = None
    for name, value in headers:
        own = _OWN.get(name)
        if own is None:
            own = _check_name(name)
        if not _VALUE.fullmatch(value):
            raise RuntimeError(f"{value!r} is no value of a header")
        if not own:
            lines += b"%b: %b\r\n" % (name, value)
            continue
        match name.lower():
            case b"connection":
                closes = closes or b"close" in [option.strip() for option in value.lower().split(b",")]
            case b"content-length":
                if not value.isdigit() or length not in (None, int(value)):
                    raise RuntimeError(f"{value!r} is no Content-Length, or another one than before")
                length = int(value)
            case b"transfer-encoding":
                chunked = True
            case _:  # Date
                pass
    return Fields(lines, closes, length, chunked)


def _check_name(name: bytes) -> bool:
    if not _TOKEN.fullmatch(name):
        raise RuntimeError(f"{name!r} is no header name")
    if name != name.lower():
        return _OWN.get(name.lower(), False)
    if len(_OWN) < _MAX_NAMES:
        _OWN[name] = False
    return False
