"""Whether a client takes what it is sent fast enough.

A transport's buffer does not tell: the kernel takes megabytes at once, and then nothing until a third of that is
acknowledged, which is half a minute at 80 kB/s. So the kernel is asked how much of it the client has not acknowledged.
Imports nothing of the service.
"""

import fcntl
import struct
import sys
from asyncio import Transport
from contextlib import suppress

WINDOW_S = 30.0  # the time over which the rate is measured
MIN_BYTES_PER_S = 16 * 1024  # a 2G phone has 20; a reader that holds its place on purpose takes 1 to 6
_SIOCOUTQ = 0x5411  # linux/sockios.h


class WriteRate:
    """Of one connection, while something waits to be sent."""

    __slots__ = ("_base", "_since")

    def __init__(self) -> None:
        self._since: float | None = None  # when this window began
        self._base = 0  # bytes that the client had by then

    def too_slow(self, now: float, transport: Transport, written: int) -> bool:
        """Whether the client has taken less than it has to in the last WINDOW_S. `written` is the number of bytes given
        to the transport so far. To be asked once a second.
        """
        waiting = transport.get_write_buffer_size()
        if not waiting:
            self._since = None
            return False
        taken = written - waiting - _unacknowledged(transport)
        if self._since is None:
            self._since, self._base = now, taken
        elif now - self._since >= WINDOW_S:
            if taken - self._base < WINDOW_S * MIN_BYTES_PER_S:
                return True
            self._since, self._base = now, taken
        return False


def _unacknowledged(transport: Transport) -> int:
    """Bytes that the kernel holds for the client; 0 where the kernel does not say."""
    if sys.platform == "linux":
        with suppress(OSError):
            socket = transport.get_extra_info("socket")
            return struct.unpack("i", fcntl.ioctl(socket.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0]
    return 0
