"""One connection to HttpProtocol without a network: bytes in, what the application got and what went out. Everything
happens in the order of the event loop, so that a test knows when nothing more will come. Must not be used where time,
sockets or back-pressure matter.
"""

import asyncio
from typing import Any, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from service.http.connection import State
from service.http.protocol import HttpProtocol


class Request(NamedTuple):
    """What the application got."""

    method: str
    target: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Answer(NamedTuple):
    """What went out."""

    status: int
    headers: dict[str, str]
    body: bytes


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole request, then responds with what it got. The path `/early` does not wait for the body."""
    body = b""
    more = not scope["path"].startswith("/early")
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    scope["state"]["requests"].append(Request(scope["method"], target, body, tuple(scope["headers"])))
    headers = [(b"x-method", scope["method"].encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Pipe(asyncio.Transport):
    """Takes what is written at once."""

    def __init__(self, protocol: HttpProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.ended = False  # no more is written
        self._closing = False

    def write(self, data: Any) -> None:
        assert not self.ended, f"{data!r} was written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.ended = True
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class Wire:
    """A connection to `app`."""

    def __init__(self, app: Any = echo, **options: Any) -> None:
        self.requests: list[Request] = []
        self.state = ServerState()
        config = uvicorn.Config(app, interface="asgi3", log_config=None, lifespan="off", **options)
        self.protocol = HttpProtocol(config, self.state, {"requests": self.requests})
        self.pipe = Pipe(self.protocol)
        self.protocol.connection_made(self.pipe)

    async def send(self, *pieces: bytes) -> None:
        """Each piece is one read. Returns when all that it leads to has happened."""
        for piece in pieces:
            if self.pipe.is_closing():
                return
            while not self.pipe.reading:  # what a transport does: it holds back
                before = (len(self.pipe.written), len(self.requests))
                await self._settle()
                assert self.pipe.reading or (len(self.pipe.written), len(self.requests)) != before, "no progress"
            if piece and self.protocol.state is not State.CLOSED:
                self.protocol.data_received(piece)
            await self._settle()

    async def end(self) -> None:
        """The client closes its side."""
        if not self.pipe.is_closing() and not self.protocol.eof_received():
            self.pipe.close()
        await self._settle()

    async def _settle(self) -> None:
        """Until no task can go on."""
        still = 0
        while still < 3:
            before = (len(self.pipe.written), len(self.requests), self.protocol.state)
            for _ in range(3):
                await asyncio.sleep(0)
            while self.protocol.awaits_turn:
                await asyncio.sleep(0)
                still = 0
            still = still + 1 if before == (len(self.pipe.written), len(self.requests), self.protocol.state) else 0

    @property
    def answers(self) -> list[Answer]:
        """What was written, as its reader finds it. Raises ValueError for what is no HTTP."""
        return parse(bytes(self.pipe.written))

    async def close(self) -> None:
        self.pipe.close()
        await self._settle()
        assert not self.state.tasks
        assert self.protocol.state is State.CLOSED


def parse(data: bytes) -> list[Answer]:
    """Responses, each with a Content-Length or without a body."""
    answers: list[Answer] = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        if not end:
            raise ValueError(head)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        if version != "HTTP/1.1":
            raise ValueError(first)
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(": ")
            if not colon or name in headers:
                raise ValueError(line)
            headers[name] = value
        length = int(headers.get("content-length", 0))
        if headers.get("x-method") == "HEAD" or (not data and int(status) >= 400):
            length = 0  # an error has no X-Method: the last one is taken for one of a HEAD where it ends with its head
        if len(data) < length:
            raise ValueError(data)
        answers.append(Answer(int(status), headers, data[:length]))
        data = data[length:]
    return answers


def connection(wire: Wire) -> str:
    """What may come next: `open` for a request, `head` or `body` for the rest of one, `closed` for nothing."""
    names = {State.IDLE: "open", State.HEAD: "head", State.BODY: "body", State.RESPONSE: "response"}
    return names.get(wire.protocol.state, "closed")
