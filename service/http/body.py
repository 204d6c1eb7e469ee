"""Reads a request's body within its limits of size and time."""

import asyncio

from service.http import errors
from service.http.asgi import Headers, Message, Receive
from service.http.capacity import WAIT_BYTES
from service.http.limits import BODY_BYTES
from service.http.place import Place

BODY_TIMEOUT_S = 10.0
# A large body is decoded, written as JSON for its statement, copied by libpq, and its response is as large.
COPIES = 4
READ_S = 0.6e-9  # of the event loop's time for each byte of a large body that comes (measured)


async def read_body(
    place: Place, headers: Headers, receive: Receive, limit: int, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """Reads the whole body. The request gives its place back while it waits for it.

    Raises ApiError: 413 over `limit` bytes, 415 for a body that is not plain JSON, 408 where it does not come within
    `timeout_s`, 400 where it is cut off, 503 where there is no memory for it, or no place when it is here.
    """
    content_type = None
    encoded = False
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or int(value) > limit:
                raise errors.body_too_large(limit)
        elif name == b"content-type":
            content_type = value
        elif name == b"content-encoding":
            encoded = value.lower() != b"identity"
    message = await receive()  # nearly always the whole body
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body"):
        place.hold(WAIT_BYTES)
        place.give_back()
        body = await _read_rest(place, message, receive, limit, timeout_s)
        place.retake()
        place.drop(WAIT_BYTES)
    if len(body) > limit:
        raise errors.body_too_large(limit)
    if len(body) > BODY_BYTES:
        place.hold(COPIES * len(body))
    if body and (encoded or (content_type is not None and not _is_json(content_type))):
        raise errors.body_not_json()
    return body


async def _read_rest(place: Place, message: Message, receive: Receive, limit: int, timeout_s: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if message["type"] != "http.request":
                    raise errors.body_cut_off()
                chunk: bytes = message.get("body", b"")
                place.hold(len(chunk))
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise errors.body_too_large(limit)
                if size > BODY_BYTES:
                    place.slices.spend(len(chunk) * READ_S)
                    await place.slices.begin()  # meanwhile, no more is read
                if not message.get("more_body"):
                    break
                message = await receive()
    except TimeoutError:
        raise errors.body_timeout() from None
    body = b"".join(chunks)
    if size > BODY_BYTES:
        await place.slices.pause()
    return body


def _is_json(content_type: bytes) -> bool:
    return content_type == b"application/json" or (
        content_type.partition(b";")[0].strip().lower() == b"application/json"
    )
