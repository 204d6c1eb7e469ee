"""ASGI's types and constants, and how headers are looked up and written. Must not import anything of the service."""

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import HttpMethod

Header = tuple[bytes, bytes]
Headers = list[Header]
# ASGI forces Any here: a scope and a message are dictionaries whose values depend on their type.
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Lines = bytes  # headers of a response as they are sent: `name: value`, each with its line end

CLIENT_GONE = 499  # nginx's number for a client that did not wait for the response
# The largest body that is sent in one call. A larger one goes in pieces of this size, each when the client has taken
# the one before: what waits for a slow client is the body alone, not a copy of it in the server's buffer.
WHOLE_BYTES = 64 * 1024
# The key of ASGI's lifespan state under which the application leaves a Callable[[RequestRecord], None]: the server
# reports with it each response that it gave without asking the application (malformed HTTP, a head that is too large).
REPORT = "report"
CAPACITY = "capacity"  # the key of the Capacity, whose connections the server counts

GET_AND_HEAD = [HttpMethod.GET, HttpMethod.HEAD]

_CR, _LF = b"\r\n"


def header(headers: Headers, name: bytes) -> bytes | None:
    """The header's value, repeated lines joined by commas (RFC 9110, 5.3), or None."""
    found = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b"," + value
    return found


def line(name: bytes, value: bytes) -> Lines:
    """A header of a response. Raises RuntimeError for a line break in it, which would begin another header."""
    if _LF in value or _CR in value:
        raise RuntimeError("a line break in a header")
    return b"%b: %b\r\n" % (name, value)


def pairs_of(lines: Lines) -> Headers:
    """Headers of a response in ASGI's form."""
    return [(name, value) for name, _, value in (one.partition(b": ") for one in lines.split(b"\r\n")[:-1])]
