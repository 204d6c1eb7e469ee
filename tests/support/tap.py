"""A tap on the wire between the service and PostgreSQL: counts the messages, and can hold or cut it at a chosen point.

Listens on a unix socket and passes everything on to a cluster's. Reads the frontend's messages only as far as their
types (https://www.postgresql.org/docs/current/protocol-message-formats.html).
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

NAME = ".s.PGSQL.5432"


class Tap:
    """`url` is the way through the tap to the database of the URL given. `folder`'s path must be short."""

    def __init__(self, url: str, folder: Path) -> None:
        self._server = f"{conninfo_to_dict(url)['host']}/{NAME}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / NAME))
        self._listener.listen()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._sent: list[str] = []
        self._held_from: int | None = None
        self._go = threading.Event()
        self.url = make_conninfo(url, host=str(folder))
        self.held = threading.Event()  # set when a statement is being held
        threading.Thread(target=self._accept, daemon=True).start()

    def take(self) -> str:
        """The types of the messages sent since the last call, by their letters: Bind, Describe, Execute, Sync, …"""
        sent, self._sent = self._sent, []
        return "".join(sent)

    def hold(self, number: int) -> None:
        """From now on, the statement of this number (from 1) and those after it wait for `release`."""
        self.take()
        self.held.clear()
        self._go.clear()
        self._held_from = number

    def release(self) -> None:
        self._held_from = None
        self._go.set()

    def cut(self) -> None:
        """Ends every connection; new ones are let through."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._pairs.append((client, server))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            for kind, message in _messages(client):
                if kind == "B" and self._held_from is not None and self._sent.count("B") + 1 >= self._held_from:
                    self.held.set()  # before its Bind, a statement holds no lock
                    self._go.wait()
                if kind:
                    self._sent.append(kind)
                server.sendall(message)
        _close(server)

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
        _close(client)


def _messages(client: socket.socket) -> Iterator[tuple[str, bytes]]:
    """What a frontend sends, message by message: the first has no type."""
    with client.makefile("rb") as stream:
        length = stream.read(4)
        yield "", length + stream.read(struct.unpack("!I", length)[0] - 4)
        while head := stream.read(5):
            yield chr(head[0]), head + stream.read(struct.unpack("!I", head[1:])[0] - 4)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
