"""Where the body of a request ends: bodies of a known length, and chunked ones.

Each reader takes bytes at a position of a buffer, keeps the pieces of the body, and says where it stopped, so that what
follows the body is still there for the next head. Imports nothing of the service but the error catalogue and
the size of a head.
"""

import re
from enum import Enum, auto

from service.http import errors
from service.http.head import MAX_HEAD_BYTES

MAX_CHUNK_LINE = 4096  # a chunk's size with its extensions
MAX_CHUNKS_AT_ONCE = 100  # in one turn of the event loop: 0.1 ms. A body of single bytes has a million
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*\""
# RFC 9112, 7.1 and 7.1.1, with the white space that a recipient has to accept in extensions.
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
_TRAILER = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*"
_TRAILERS = re.compile(rb"(?:" + _TRAILER + rb"\r\n)*+")
_TRAILER_BEGUN = re.compile(rb"(?:\r|" + _TOKEN + rb"|" + _TRAILER + rb"\r?)?")


class SizedBody:
    """A body with a Content-Length."""

    interrupted = False

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.complete = False

    def read(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Appends to `pieces` and returns the position behind what it took."""
        end = min(len(data), position + self.remaining)
        if end > position:
            pieces.append(data[position:end] if position or end < len(data) else data)
            self.remaining -= end - position
        self.complete = not self.remaining
        return end


class _Part(Enum):
    SIZE = auto()  # the line before a chunk
    DATA = auto()
    DATA_END = auto()  # the line end behind a chunk
    TRAILERS = auto()


class ChunkedBody:
    """A body in chunks. Trailers are checked and dropped: nothing here asks for one, and none may pass for a header."""

    def __init__(self) -> None:
        self.complete = False
        self.interrupted = False  # it has read enough for one turn of the event loop
        self._part = _Part.SIZE
        self._remaining = 0  # of the chunk
        self._extensions = 0  # bytes
        self._trailers = 0  # bytes

    def read(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Appends to `pieces` and returns the position behind what it took, which may be less than there is.

        Raises ApiError: 400 for what is not chunked coding, 431 for too much of extensions or trailers.
        """
        self.interrupted = False
        for _ in range(MAX_CHUNKS_AT_ONCE):
            if self._part is _Part.SIZE:
                end = data.find(b"\r\n", position, position + MAX_CHUNK_LINE)
                if end < 0:
                    return self._wait_for_line(data, position)
                position = self._size(data, position, end)
            elif self._part is _Part.TRAILERS:
                return self._read_trailers(data, position)
            if self._part is _Part.DATA:
                end = min(len(data), position + self._remaining)
                if end > position:
                    pieces.append(data[position:end])
                self._remaining -= end - position
                position = end
                if self._remaining:
                    return position
                self._part = _Part.DATA_END
            if self._part is _Part.DATA_END:
                line_end = data[position : position + 2]
                if line_end != b"\r\n":
                    if line_end not in (b"", b"\r"):
                        raise errors.malformed_http()
                    return position
                position += 2
                self._part = _Part.SIZE
        self.interrupted = True
        return position

    def _size(self, data: bytes, position: int, end: int) -> int:
        match = _CHUNK_LINE.fullmatch(data, position, end)
        if match is None:
            raise errors.malformed_http()
        self._extensions += end - match.end(1)
        if self._extensions > MAX_HEAD_BYTES:
            raise errors.head_too_large()
        self._remaining = int(match[1], 16)
        self._part = _Part.DATA if self._remaining else _Part.TRAILERS
        return end + 2

    def _wait_for_line(self, data: bytes, position: int) -> int:
        if len(data) - position >= MAX_CHUNK_LINE:
            raise errors.head_too_large()
        begun = data[position:].removesuffix(b"\r")
        if b"\n" in begun or b"\r" in begun or (begun and not begun[:1].isalnum()):
            raise errors.malformed_http()
        return position

    def _read_trailers(self, data: bytes, position: int) -> int:
        """Takes whole lines, so that what comes in many small reads is checked once."""
        limit = position + MAX_HEAD_BYTES - self._trailers
        has_line = data.find(b"\n", position, limit) >= 0
        lines = _TRAILERS.match(data, position, limit) if has_line else None
        end = position if lines is None else lines.end()
        if data.startswith(b"\r\n", end):
            self.complete = True
            return end + 2
        # What cannot become trailers would be waited for in vain. What is wrong in a long line is found at its end.
        if (has_line or len(data) - end <= MAX_CHUNK_LINE) and _TRAILER_BEGUN.fullmatch(data, end, limit) is None:
            raise errors.malformed_http()
        if len(data) >= limit:
            raise errors.head_too_large()
        self._trailers += end - position
        return end
