"""A proxy before the service that loses requests and responses, between request and response or in the midst of one."""

import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from typing import Self

from tests.support.http import connect

# What becomes of a request, given a function that asks the service, and the client's connection, which then ends.
Fault = Callable[[Callable[[], bytes], socket.socket], None]


def lose(ask: Callable[[], bytes], client: socket.socket) -> None:
    """The request does not arrive."""


def eat(ask: Callable[[], bytes], client: socket.socket) -> None:
    """What was asked for is done, and the client is not told."""
    ask()


def cut(ask: Callable[[], bytes], client: socket.socket) -> None:
    """The answer ends in its body: a head that ends early is taken for a whole one by Python's http.client."""
    answer = ask()
    body = answer.index(b"\r\n\r\n") + 4
    if body < len(answer):  # an answer without a body is eaten
        client.sendall(answer[: random.randrange(body, len(answer))])


def delay(ask: Callable[[], bytes], client: socket.socket) -> None:
    """The request arrives when the client has given it up, at the same time as its retry."""
    client.settimeout(30)
    assert client.recv(1) == b""
    ask()


def reject(name: str, status: str, retry_after: Callable[[], str] | None = None, body: str = "") -> Fault:
    """A fault of this name: the network answers by itself, and the request does not arrive."""

    def fault(ask: Callable[[], bytes], client: socket.socket) -> None:
        waits = f"Retry-After: {retry_after()}\r\n" if retry_after else ""
        head = f"HTTP/1.1 {status}\r\n{waits}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(f"{head}{body}".encode())

    fault.__name__ = name
    return fault


class Proxy:
    """Passes requests on to the service at `target`. `choose` says for each what goes wrong with it; None: nothing."""

    def __init__(self, target: str, choose: Callable[[], Fault | None]) -> None:
        self._target = target
        self._choose = choose
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.faults: Counter[str] = Counter()
        self.answers: list[bytes] = []  # of the service, delivered or not

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Returns when every request that came has been asked or lost."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # the first one makes the others
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as requests, connect(self._target, 30) as service, suppress(ConnectionError):
            answers = service.makefile("rb")
            while sent := message(requests):

                def ask(sent: bytes = sent) -> bytes:
                    service.sendall(sent)
                    self.answers.append(message(answers))
                    return self.answers[-1]

                fault = self._choose()
                if fault is not None:
                    self.faults[fault.__name__] += 1
                    fault(ask, client)
                    return
                client.sendall(ask())


def message(stream: BufferedReader) -> bytes:
    """The next request or answer; nothing at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b""
        head += line
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return head + stream.read(int(length[1]) if length else 0)
