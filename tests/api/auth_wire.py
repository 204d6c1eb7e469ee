"""HTTP with nothing in between: header values go out as the bytes that a test gives, in its order and as often."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import Any, Self
from urllib.parse import quote, urlsplit

TIMEOUT_S = 10


@dataclass(frozen=True)
class Response:
    status: int
    headers: HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection to a service, made again when the service closes it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(
        self, method: str, path: str, authorization: Iterable[bytes] = (), body: bytes | None = None, **headers: str
    ) -> Response:
        """A header's underscores stand for hyphens. A Content-Length among them is sent as it is, with no body."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost"]
        lines += [b"Authorization: " + value for value in authorization]
        lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
        if body is not None:
            lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_S)
        self._socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))
        response = HTTPResponse(self._socket, method=method)
        response.begin()
        answer = Response(response.status, response.headers, response.read())
        if response.will_close or "content_length" in headers:
            self.close()
        return answer


def tasks_of(user: str) -> str:
    return f"/api/{quote(user, safe='')}/tasks"
