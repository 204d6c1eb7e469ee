"""The listening socket: an address and port, a unix socket, or one that systemd hands over.

The port opens (`Listener.listen`) when all but the processes that serve has started. A client that connects earlier is
refused and can try elsewhere; in a queue it would get no response if the start then fails.
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
IN_USE = os.strerror(errno.EADDRINUSE)


class Listener:
    """A bound socket. `close` gives it back, and removes a unix socket's file.

    `address`: its host, or `unix:/path`, and its port, 0 where it has none, as the settings HOST and PORT.
    """

    def __init__(self, bound: socket.socket, path: Path | None = None) -> None:
        self.socket = bound
        self._path = path
        self._inode = path.stat().st_ino if path else 0
        name = bound.getsockname()
        if isinstance(name, str | bytes):
            path_or_name = os.fsdecode(name).replace("\0", "/@")  # systemd's way to write an abstract name, below /
            self.address = (f"{UNIX}{path_or_name}", 0)
        else:
            self.address = (name[0], name[1])

    @property
    def url(self) -> str:
        """The URL for clients. A unix socket has none: curl takes `--unix-socket` with any URL."""
        host, port = self.address
        return f"http://{bracketed(host)}:{port}" if port else host

    def listen(self) -> None:
        """Opens the port. Raises OSError where another process opened it since it was bound here: two that start at the
        same time can both bind.
        """
        if self._path is not None and not self._is_in_place(self._path):
            raise OSError(errno.EADDRINUSE, IN_USE)
        self.socket.listen(BACKLOG)

    def close(self) -> None:
        self.socket.close()
        if self._path is not None and self._is_in_place(self._path):
            with suppress(OSError):
                self._path.unlink()

    def _is_in_place(self, path: Path) -> bool:
        """Whether the file is still this socket's: another process may have put its own there meanwhile."""
        with suppress(OSError):
            return path.stat().st_ino == self._inode
        return False


def bracketed(host: str) -> str:
    """The host as URLs write it."""
    return f"[{host}]" if ":" in host else host


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
    """The one that systemd hands over. Raises OSError where the service cannot use what it hands over."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or count == "0":
        return None
    if count != "1":
        raise OSError(errno.EINVAL, f"there are {count} sockets: leave one ListenStream= in the .socket unit")
    given = socket.socket(fileno=INHERITED_FD)
    if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(errno.EINVAL, "it does not listen: the .socket unit needs ListenStream= and Accept=no")
    return Listener(given)


def listener_of(host: str, port: int) -> Listener:
    """A socket bound to `host` and `port`, or to `unix:/path`. Raises OSError."""
    if host.startswith(UNIX):
        return _unix(Path(host.removeprefix(UNIX)))
    # A name can have several addresses. AF_INET is less than AF_INET6: localhost is 127.0.0.1.
    bound = socket.socket(min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0])
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
        probe.setblocking(False)  # a listener that hangs has a full queue
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, IN_USE)
