"""Responses: light ASGI callables, made once the struct is there.

Litestar's own way from a returned struct to bytes costs 52 µs a request (response object, header and cookie merging,
encoder look-up); these cost one encode and one list. Must not import statements or tasks.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from service.database import Failure
from service.http.asgi import Header, RequestRecord, Send, record_of
from service.http.errors import ApiError, ErrorBody

encode = msgspec.json.Encoder().encode

_JSON = (b"content-type", b"application/json")
# A larger body goes out in pieces, each when the client has taken the one before: what waits for a slow client is the
# body alone, not a copy of it in the server's buffer.
PIECE_BYTES = 64 * 1024
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
# Small bodies are most: their length headers are made once.
_LENGTHS = [(b"content-length", b"%d" % length) for length in range(4096)]


class Response:
    """A whole response. `headers` are ready for ASGI; content-type and content-length are added for a body."""

    __slots__ = ("body", "headers", "shared", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        headers: Sequence[Header] = (),
        *,
        content_type: Header = _JSON,
        shared: bool = False,
    ) -> None:
        """`shared`: the body stays in memory whether or not it is sent."""
        self.status = status
        self.body = body
        self.shared = shared
        length = len(body)
        self.headers = [
            *headers,
            content_type,
            _LENGTHS[length] if length < 4096 else (b"content-length", b"%d" % length),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        record = record_of(scope)
        if len(self.body) > PIECE_BYTES and record.method != "HEAD":
            if not self.shared:
                # Too late to reject a write: it is done. Its body was counted with room for the response.
                record.hold(len(self.body), check=record.method == "GET")
            await self._send_in_pieces(record, send)
        elif not record.respond(self.status, self.headers, self.body):
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            await send({"type": "http.response.body", "body": self.body})

    async def _send_in_pieces(self, record: RequestRecord, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        record.wait()
        for begin in range(0, len(self.body), PIECE_BYTES):
            piece = self.body[begin : begin + PIECE_BYTES]
            more = begin + PIECE_BYTES < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


class EmptyResponse(Response):
    """A response that has no body."""

    __slots__ = ()

    def __init__(self, status: int, headers: Sequence[Header] = ()) -> None:
        self.status = status
        self.body = b""
        self.shared = False
        self.headers = list(headers)
        if status not in _NO_BODY:
            self.headers.append(_LENGTHS[0])


class StreamedResponse(Response):
    """A response whose body is sent in pieces. If `chunks` fails, the connection is cut, so that a client never takes a
    part for the whole.
    """

    __slots__ = ("_chunks",)

    def __init__(self, status: int, chunks: AsyncIterator[bytes]) -> None:
        self.status = status
        self.headers = [_JSON]
        self._chunks = chunks

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        record = record_of(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        gone = asyncio.create_task(_disconnected(receive))
        try:
            if record.method != "HEAD":
                async for chunk in self._chunks:
                    if gone.done():
                        return
                    record.hold(len(chunk), check=False)
                    record.wait()
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    record.go_on(started=True)
                    record.drop(len(chunk))
        except Failure as failure:
            record.failure = failure  # a response that is not ended makes the server cut the connection
            return
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Any) -> None:
    """Returns when the client has gone away: uvicorn's own protocol class does not cancel the request then."""
    while (await receive())["type"] != "http.disconnect":
        pass


def etag(version: int) -> Header:
    """The ETag of a task's version."""
    return (b"etag", b'"%d"' % version)


def error_response_of(problem: ApiError) -> Response:
    """Any error: the one shape."""
    return Response(problem.status, encode(ErrorBody(problem.message, problem.field)), problem.headers)
