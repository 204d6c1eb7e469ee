"""HTTP on raw sockets. A client library would repair or reject what is wrong with a request, costs more than the
service, and hides what became of a connection. Imports neither the service nor other helpers.
"""

import asyncio
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

Headers = Mapping[str, str] | Sequence[tuple[str, str | bytes]]  # pairs: a name more than once, a value that is no text

TIMEOUT_S = 15.0  # of a request: the service's default deadline, and half as much again


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]  # lower-case names; the values of a repeated one joined by ", "
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class ConnectionLost(Exception):
    """The connection ended before the response did. `fresh`: nothing was ever received on it, so that the service may
    not have accepted it.
    """

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh


def request(method: str, path: str | bytes, body: bytes = b"", headers: Headers | None = None) -> bytes:
    """The bytes of a request. A body gets a Content-Length, unless the headers say how it is framed."""
    pairs: list[tuple[str, str | bytes]] = []
    if isinstance(headers, Sequence):
        pairs += headers
    elif headers is not None:
        pairs += headers.items()
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.insert(0, ("Host", "localhost"))
    if body and not {"content-length", "transfer-encoding"} & names:
        pairs.append(("Content-Length", str(len(body))))
    target = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in pairs
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def connect(url: str, timeout_s: float = 10) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout_s)


def read_response(source: socket.socket | BinaryIO, method: str = "GET") -> Response:
    """The next response on the connection, or on a stream made of it. A stream keeps the bytes behind the response;
    with a socket they are lost. Raises ConnectionError where the connection ends instead.
    """
    response = HTTPResponse(source if isinstance(source, socket.socket) else _Stream(source), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Response(response.status, headers, body)


class _Stream:
    """A stream in a socket's place that HTTPResponse does not close."""

    def __init__(self, stream: BinaryIO) -> None:
        self.readline, self.read, self.readinto = stream.readline, stream.read, getattr(stream, "readinto", None)

    def makefile(self, *_: object) -> Self:
        return self

    def flush(self) -> None:
        pass

    close = flush


def exchange(url: str, sent: bytes, timeout_s: float = 10) -> Response:
    """Sends these bytes on a new connection and reads the response to the first request in them."""
    with connect(url, timeout_s) as connection:
        with suppress(ConnectionError):  # the response may come, and the connection end, before all is sent
            connection.sendall(sent)
        return read_response(connection, sent.partition(b" ")[0].decode())


def exchange_all(url: str, sent: bytes, timeout_s: float = 10, *, half_close: bool = False) -> list[Response]:
    """Sends these bytes on a new connection and reads every response up to its end; none may be to a HEAD.
    `half_close` ends the sending side first.
    """
    found: list[Response] = []
    with connect(url, timeout_s) as connection, connection.makefile("rb") as stream:
        connection.sendall(sent)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        while stream.peek(1):
            found.append(read_response(stream))
    return found


class Client:
    """One connection, kept alive, and made again when the service has closed it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, method: str, path: str, body: bytes = b"", headers: Headers | None = None) -> Response:
        """A request and its response. The connection is not used again after a response that ends it, or a
        Content-Length without its body.
        """
        sent = request(method, path, body, headers)
        if self._socket is None:
            self._socket = connect(self._url)
        self._socket.sendall(sent)
        response = read_response(self._socket, method)
        announced = b"\r\ncontent-length:" in sent.partition(b"\r\n\r\n")[0].lower()
        if response.headers.get("connection") == "close" or (announced and not body):
            self.close()
        return response


class AsyncClient:
    """The same for tests with many clients at once; what it sends is JSON."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._timeout_s = timeout_s
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def send(
        self, method: str, path: str, body: Any = None, headers: Headers | None = None, timeout_s: float | None = None
    ) -> Response:
        """Raises ConnectionLost, OSError where there is no connection to be had, TimeoutError."""
        async with asyncio.timeout(timeout_s or self._timeout_s):
            fresh = self._writer is None
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self._writer.write(request(method, path, b"" if body is None else json.dumps(body).encode(), headers))
            try:
                response = await self._read()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.close()
                raise ConnectionLost(fresh=fresh) from None
        if response.headers.get("connection") == "close":
            self.close()
        return response

    async def _read(self) -> Response:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Response(int(first.split(" ")[1]), headers, body)
