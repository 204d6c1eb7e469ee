"""Puts a database at a distance: passes bytes between drivers and PostgreSQL, each a fixed time after it came.

Listens on a unix socket in a new folder, so a driver finds it with `host=FOLDER`. Bytes towards the database
are delayed by the whole round trip and replies not at all: a driver that waits for a reply sees no difference from half
and half. The proxy waits for no reply, so pipelines stay pipelines. One delay for all, so one queue is enough.
A separate process: `python -m tests.load.delaying_proxy FOLDER UPSTREAM SECONDS`.

select() and not asyncio, whose timers only know whole milliseconds.
"""

import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from tests.load.environment import surroundings

SOCKET = ".s.PGSQL.5432"
CHUNK = 262_144


class _Piece(NamedTuple):
    due: float
    to: socket.socket
    data: bytes  # empty: the sender has closed


class Proxy:
    def __init__(self, folder: Path, upstream: Path, delay_s: float) -> None:
        self._upstream = str(upstream / SOCKET)
        self._delay_s = delay_s
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen(512)
        self._ready = select.epoll()
        self._ready.register(self._listener, select.EPOLLIN)
        self._other: dict[int, tuple[socket.socket, socket.socket, float]] = {}  # by number: itself, the other, delay
        self._pieces: deque[_Piece] = deque()

    def run(self) -> None:
        """Until the process ends."""
        while True:
            pause = max(0.0, self._pieces[0].due - time.perf_counter()) if self._pieces else None
            select.select([self._ready], [], [], pause)
            for number, _ in self._ready.poll(0):
                if number == self._listener.fileno():
                    self._accept()
                elif number in self._other:
                    self._read(number)
            now = time.perf_counter()
            while self._pieces and self._pieces[0].due <= now:
                self._pass_on(self._pieces.popleft())

    def _accept(self) -> None:
        driver, _ = self._listener.accept()
        database = socket.socket(socket.AF_UNIX)
        database.connect(self._upstream)
        for one, other, delay in ((driver, database, self._delay_s), (database, driver, 0.0)):
            self._other[one.fileno()] = (one, other, delay)
            self._ready.register(one, select.EPOLLIN)

    def _read(self, number: int) -> None:
        one, other, delay = self._other[number]
        data = b""
        with suppress(ConnectionError):
            data = one.recv(CHUNK)
        if not data:
            self._ready.unregister(number)
        piece = _Piece(time.perf_counter() + delay, other, data)
        if delay:
            self._pieces.append(piece)
        else:
            self._pass_on(piece)

    def _pass_on(self, piece: _Piece) -> None:
        if piece.to.fileno() < 0:
            return
        if piece.data:
            # Both sides read all the time, so a socket that takes no more does so for a moment only.
            with suppress(ConnectionError):
                piece.to.sendall(piece.data)
            return
        one, other, _ = self._other.pop(piece.to.fileno())
        self._other.pop(other.fileno(), None)
        with suppress(OSError, ValueError):
            self._ready.unregister(one)
        one.close()
        other.close()


@contextmanager
def delayed(url: str, round_trip_s: float) -> Generator[str]:
    """The URL of the same database, `round_trip_s` away."""
    parts = urlsplit(url)
    upstream = parse_qs(parts.query)["host"][0]
    with TemporaryDirectory(prefix="remote-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.delaying_proxy", folder, upstream, str(round_trip_s)],
            **surroundings(),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("the delaying proxy did not start")
            yield parts._replace(query=f"host={quote(folder, safe='')}").geturl()
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def main() -> None:
    folder, upstream, seconds = sys.argv[1:]
    proxy = Proxy(Path(folder), Path(upstream), float(seconds))
    print("ready", flush=True)
    proxy.run()


if __name__ == "__main__":
    main()
