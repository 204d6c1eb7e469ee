"""The body of a batch, decoded in slices of the event loop's time: up to 8 MiB of it must not delay other requests.

A small body that is good is decoded in one go. In others the items are found first, one at a time and no further than
the first one too many, then decoded in groups: so a bad item is told by its index. Must not import handlers or
queries.
"""

import json
import re
from codecs import getincrementaldecoder

import msgspec

from service.http import errors
from service.http.limits import BATCH_LENGTH, BODY_BYTES
from service.http.slices import Slices
from service.tasks.schemas import TaskCreate, decode_create, is_json

SMALL_BYTES = 64 * 1024  # decoded in 1 ms at the most (measured)
GROUP_BYTES = 128 * 1024

_NO_SPACE = re.compile(rb"[^ \t\n\r]")
# An object without objects or arrays in it, as items are; the groups give nothing back, so that it takes linear time.
_FLAT = re.compile(rb'\{(?>[^{}\[\]"]++|"(?>[^"\\]++|\\.)*+")*+\}', re.DOTALL)
_scan = json.JSONDecoder().raw_decode
_decode = msgspec.json.Decoder(list[TaskCreate]).decode


async def decode_batch(body: bytes, slices: Slices) -> list[TaskCreate]:
    """From the bytes of a batch to its items. Raises ApiError (400), for a bad item with its index, from 0, as in
    `3.title`. An item may have no more bytes than a body that creates one task.
    """
    if len(body) <= SMALL_BYTES and (items := _decode_small(body)):
        return items
    await slices.begin()
    return await _Batch(body, slices).decode()


def _decode_small(body: bytes) -> list[TaskCreate] | None:
    """The items, or None if anything is wrong."""
    try:
        items = _decode(body)
        if not body.isascii():
            body.decode()  # msgspec does not look into the strings of ignored fields
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, errors.ApiError):
        return None
    return items if len(items) <= BATCH_LENGTH else None


class _Batch:
    """One body that is large or bad."""

    def __init__(self, body: bytes, slices: Slices) -> None:
        self._body = body
        self._slices = slices

    async def decode(self) -> list[TaskCreate]:
        if not self._body.isascii():
            await self._check_encoding()
        spans = await self._spans()
        items: list[TaskCreate] = []
        while len(items) < len(spans):
            begin = end = len(items)
            while end < len(spans) and (end == begin or spans[end][1] - spans[begin][0] < GROUP_BYTES):
                end += 1
            items += self._group(spans[begin:end], begin)
            await self._slices.pause()
        return items

    async def _check_encoding(self) -> None:
        """Raises ApiError (400) where the body is not UTF-8. To decode 8 MiB as a whole takes 6 ms, most of it for new
        memory.
        """
        decode = getincrementaldecoder("utf-8")().decode
        try:
            for begin in range(0, len(self._body), GROUP_BYTES):
                decode(self._body[begin : begin + GROUP_BYTES], final=begin + GROUP_BYTES >= len(self._body))
                await self._slices.pause()
        except UnicodeDecodeError as error:
            raise errors.invalid_json() from error

    def _group(self, spans: list[tuple[int, int]], first: int) -> list[TaskCreate]:
        try:
            return _decode(b"[%b]" % self._body[spans[0][0] : spans[-1][1]])
        except (msgspec.DecodeError, RecursionError, errors.ApiError) as failure:
            for index, (begin, end) in enumerate(spans, first):
                try:
                    decode_create(self._body[begin:end])
                except errors.InvalidJson:
                    raise
                except errors.ApiError as error:
                    raise errors.batch_item(index, error) from error
            raise errors.invalid_json() from failure

    async def _spans(self) -> list[tuple[int, int]]:
        """Where each item begins and ends."""
        body = self._body
        position = await self._skip_space(0)
        if not body.startswith(b"[", position):
            # A large body is not read to its end to find out whether it is JSON.
            other_json = position < len(body) if len(body) > SMALL_BYTES else is_json(body)
            raise errors.not_an_array() if other_json else errors.invalid_json()
        position = await self._skip_space(position + 1)
        spans: list[tuple[int, int]] = []
        closed = body[position : position + 1] == b"]"
        while not closed:
            if len(spans) == BATCH_LENGTH:  # one too many, or a comma too many
                raise errors.invalid_json() if body.startswith(b"]", position) else errors.invalid_batch_length()
            end = self._item_end(position, len(spans))
            spans.append((position, end))
            position = await self._skip_space(end)
            separator = body[position : position + 1]
            if separator not in (b",", b"]"):
                raise errors.invalid_json()
            closed = separator == b"]"
            position = position if closed else await self._skip_space(position + 1)
        if await self._skip_space(position + 1) != len(body):
            raise errors.invalid_json()
        if not spans:
            raise errors.invalid_batch_length()
        return spans

    def _item_end(self, begin: int, index: int) -> int:
        limit = begin + BODY_BYTES
        if (flat := _FLAT.match(self._body, begin, limit)) is not None:
            return flat.end()
        window = self._body[begin:limit].decode(errors="ignore")  # the limit may have cut a character
        try:
            _, length = _scan(window)
        except (ValueError, RecursionError) as error:
            # Python's scanner says that a string is not terminated at its begin, other things where they are.
            cut = getattr(error, "pos", 0) >= len(window) - 6 or "Unterminated" in str(error)
            if cut and limit < len(self._body):
                raise errors.batch_item_too_large(index) from error
            raise errors.invalid_json() from error
        return begin + len(window[:length].encode())

    async def _skip_space(self, position: int) -> int:
        while position < len(self._body):
            found = _NO_SPACE.search(self._body, position, position + GROUP_BYTES)
            await self._slices.pause()
            if found is not None:
                return found.start()
            position += GROUP_BYTES
        return len(self._body)
