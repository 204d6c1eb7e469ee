"""ASGI's types, and what is looked up in a request's headers.

Must not import anything of the service but limits.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import HttpMethod

from service.http.limits import REQUEST_ID_LENGTH

Header = tuple[bytes, bytes]
Headers = list[Header]
# ASGI forces Any here: a scope and a message are dictionaries whose values depend on their type.
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

GET_AND_HEAD = [HttpMethod.GET, HttpMethod.HEAD]

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_LENGTH)


def header(headers: Headers, name: bytes) -> bytes | None:
    """The header's value, repeated lines joined by commas (RFC 9110, 5.3), or None."""
    found = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b"," + value
    return found


def request_id(headers: Headers) -> bytes | None:
    """The X-Request-ID that came in, if it is one line of visible ASCII within its length."""
    for name, value in headers:
        if name == b"x-request-id":
            return value if _REQUEST_ID.fullmatch(value) else None
    return None
