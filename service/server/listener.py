"""The listening socket: an address and port, a unix socket, or one that systemd hands over.

The port opens (listen) only when the first process can serve. A client that connects earlier is refused and can try
elsewhere; in a queue it would get no response if the start then fails.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from service.settings import UNIX

BACKLOG = 2048  # connections that wait to be accepted: a burst of clients that all connect at once
# libuv accepts one connection of a listening descriptor in each turn of the event loop, however many wait. Behind the
# 1,000 of a client that opens one for each request, another user's waited 390 ms with one descriptor, 5 ms with 8.
ACCEPTS = 8
UNIX_MODE = 0o660  # the proxy connects as a member of the socket's group
INHERITED_FD = 3  # sd_listen_fds(3): the first socket that systemd hands over


class Listener:
    """A bound socket. `close` gives it back, and removes a unix socket's file."""

    def __init__(self, bound: socket.socket, path: Path | None = None) -> None:
        self.socket = bound
        self._path = path
        self._inode = path.stat().st_ino if path else 0

    @property
    def url(self) -> str:
        """The URL for clients. A unix socket has none: curl takes `--unix-socket` with any URL."""
        name = self.socket.getsockname()
        if isinstance(name, str | bytes):
            return f"{UNIX}{os.fsdecode(name)}"
        host, port = name[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        self.socket.close()
        if self._path is not None:
            with suppress(OSError):  # another process may have put its own there meanwhile
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()


def accepting(listeners: Iterable[socket.socket]) -> list[socket.socket]:
    """The descriptors on which an event loop is to listen, to be closed with the listeners.

    Blocking is a flag that all descriptors of a socket share, those of other workers, too, and `dup` sets it as the
    listener has it: where one worker had it blocking, the others, which wait for connections by now, would block.
    """
    listeners = tuple(listeners)
    for listener in listeners:
        listener.setblocking(False)
    return [listener.dup() for listener in listeners for _ in range(ACCEPTS)]


def inherited() -> Listener | None:
    """The one that systemd hands over."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return Listener(socket.socket(fileno=INHERITED_FD))
    return None


def listener_of(host: str, port: int) -> Listener:
    """A socket bound to `host` and `port`, or to `unix:/path`. Raises OSError."""
    if host.startswith(UNIX):
        return _unix(Path(host.removeprefix(UNIX)))
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return Listener(bound)


def _unix(path: Path) -> Listener:
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        mask = os.umask(0o777 & ~UNIX_MODE)
        try:
            bound.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, error.strerror or str(error)) from None
    return Listener(bound, path)


def _remove_stale(path: Path) -> None:
    """Removes the socket of a process that has ended. One with a listener, or another kind of file, stays."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "the file exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "Address already in use")
