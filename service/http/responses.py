"""Responses: light ASGI callables, made once the struct is there.

Litestar's own way from a returned struct to bytes costs 52 µs a request (response object, header and cookie merging,
encoder look-up); these cost one encode and one list.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from service.database import Failure
from service.http.asgi import WHOLE_BYTES, Lines, Message, Send, pairs_of
from service.http.errors import ApiError, ErrorBody
from service.http.request_record import RequestRecord, record_of
from service.http.response_head import fields_of
from service.http.slices import Slices

encode = msgspec.json.Encoder().encode

_JSON: Lines = b"content-type: application/json\r\n"
_GROUP = 16  # items that are encoded together: up to half a megabyte
_NO_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class AnyResponse(Protocol):
    """What a handler returns: an ASGI application, and a faster way to send it where that is possible."""

    def respond(self, record: RequestRecord) -> bool:
        """Sends it in one call. False: that is not possible here, and nothing was sent; call it as an application."""
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Response:
    """A whole response. Content-type and content-length are added to `lines` for a body. `closes`: the connection ends
    with it.
    """

    __slots__ = ("body", "closes", "lines", "shared", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        lines: Lines = b"",
        *,
        content_type: Lines = _JSON,
        closes: bool = False,
        shared: bool = False,
    ) -> None:
        """`shared`: the body stays in memory whether or not it is sent: only the piece that is sent counts."""
        self.status = status
        self.body = body
        self.shared = shared
        self.closes = closes
        self.lines = lines + content_type + b"content-length: %d\r\n" % len(body)

    def respond(self, record: RequestRecord) -> bool:
        """See AnyResponse."""
        return record.respond(self.status, self.lines, self.body, self.closes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        record = record_of(scope)
        if len(self.body) > WHOLE_BYTES and record.method != "HEAD":
            # A write is done, so it is too late to reject it; its body was counted with room for the response.
            record.place.hold(WHOLE_BYTES if self.shared else len(self.body), check=record.method == "GET")
            await self._send_in_pieces(record, send)
        elif not self.respond(record):
            await send(self._start())
            await send({"type": "http.response.body", "body": self.body})

    def _start(self) -> Message:
        headers = pairs_of(self.lines)
        if self.closes:
            headers.append((b"connection", b"close"))
        return {"type": "http.response.start", "status": self.status, "headers": headers}

    async def _send_in_pieces(self, record: RequestRecord, send: Send) -> None:
        await send(self._start())
        record.place.give_back()
        for begin in range(0, len(self.body), WHOLE_BYTES):
            piece = self.body[begin : begin + WHOLE_BYTES]
            more = begin + WHOLE_BYTES < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            await asyncio.sleep(0)  # to a client that reads as fast as this writes, `send` never waits


class EmptyResponse(Response):
    """A response that has no body."""

    __slots__ = ()

    def __init__(self, status: int, lines: Lines = b"") -> None:
        self.status = status
        self.body = b""
        self.closes = self.shared = False
        self.lines = lines if status in _NO_BODY else lines + b"content-length: 0\r\n"


class StreamedResponse:
    """A response whose body, JSON, is sent in pieces. If `chunks` fails, the connection is cut, so that a client never
    takes a part for the whole.
    """

    __slots__ = ("_chunks", "_status")

    def __init__(self, status: int, chunks: AsyncIterator[bytes]) -> None:
        self._status = status
        self._chunks = chunks

    def respond(self, record: RequestRecord) -> bool:
        """Never in one call."""
        return False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        record = record_of(scope)
        place = record.place
        chunk: bytes | None = await anext(self._chunks)
        held = len(chunk)  # all along, because what is sent when the client does not read cannot be rejected any more
        place.hold(held)  # raises ApiError while the response can still be one
        await send({"type": "http.response.start", "status": self._status, "headers": pairs_of(_JSON)})
        gone = asyncio.create_task(_disconnected(receive))
        try:
            while chunk is not None and record.method != "HEAD" and not gone.done():
                if len(chunk) > held:
                    place.hold(len(chunk) - held, check=False)
                    held = len(chunk)
                place.give_back()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                place.retake(check=False)
                chunk = None  # not kept while the next one is made
                chunk = await anext(self._chunks, None)
        except Failure as failure:
            record.failure = failure  # a response that is not ended makes the server cut the connection
            return
        finally:
            gone.cancel()
        if chunk is None or record.method == "HEAD":
            await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Any) -> None:
    """Returns when the client has gone away: uvicorn's own protocol class does not cancel the request then."""
    while (await receive())["type"] != "http.disconnect":
        pass


def etag(version: int) -> Lines:
    """The ETag of a task's version."""
    return b'etag: "%d"\r\n' % version


def error_response_of(error: ApiError) -> Response:
    """The one shape of all errors."""
    fields = fields_of(error.headers)
    return Response(error.status, encode(ErrorBody(error.message, error.field)), fields.lines, closes=fields.closes)


async def encode_array(items: Sequence[object], slices: Slices) -> bytes:
    """A JSON array. Pauses in between, so that other requests go on: the largest batch takes 20 ms."""
    if len(items) == 1:
        return encode(items)
    parts: list[bytes] = []
    await slices.begin()
    for begin in range(0, len(items), _GROUP):
        parts.append(encode(items[begin : begin + _GROUP])[1:-1])
        await slices.pause()
    return await join_array(parts, slices)


async def join_array(parts: Sequence[bytes], slices: Slices) -> bytes:
    """A JSON array of these items. To join 8 MiB takes 5 ms, most of it for new memory: so a pause follows."""
    await slices.begin()
    array = b"[%b]" % b",".join(parts)
    await slices.pause()
    return array
