"""HTTP by hand: exactly these bytes, since a client library would mend or refuse what is wrong with them."""

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # lower-case names
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def request(method: str, path: str | bytes, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a request. A body gets a Content-Length, unless the headers say how it is framed."""
    lines = {"Host": "tasks.example.com"} | (headers or {})
    if body and not {"content-length", "transfer-encoding"} & {name.lower() for name in lines}:
        lines["Content-Length"] = str(len(body))
    target = path if isinstance(path, bytes) else path.encode()
    head = method.encode() + b" " + target + b" HTTP/1.1\r\n"
    return head + b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in lines.items()) + b"\r\n" + body


def connect(url: str, timeout_s: float = 10) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout_s)


def read_reply(connection: socket.socket, method: str = "GET") -> Reply:
    """The next answer on the connection."""
    answer = HTTPResponse(connection, method=method)
    answer.begin()
    body = answer.read()
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)


def exchange(url: str, sent: bytes, timeout_s: float = 10) -> Reply:
    """Sends these bytes on a connection of their own and reads the answer to the first request in them."""
    with connect(url, timeout_s) as connection:
        with suppress(ConnectionError):  # the answer may come, and the connection end, before all is sent
            connection.sendall(sent)
        return read_reply(connection, sent.partition(b" ")[0].decode())
