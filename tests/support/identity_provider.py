"""An identity provider's key endpoint, on a real socket, that a test can rotate, break, stop and hang."""

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], Callable[[], Iterable[bytes]]]  # status, headers, body in parts


class Provider:
    """Publishes `keys` until told to answer otherwise. Used as a context manager."""

    def __init__(self, keys: list[Any], port: int = 0) -> None:
        self.publish(keys)
        self.released = threading.Event()
        self.released.set()
        self.asked = threading.Condition()
        self.times_asked = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/auth/jwks"

    def publish(self, keys: list[Any]) -> None:
        self.answer(200, json.dumps({"keys": keys}).encode())

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """What everybody who asks gets from now on. A header's underscores stand for hyphens."""
        self._answer: Answer = (
            status,
            {name.replace("_", "-"): value for name, value in headers.items()},
            lambda: [body],
        )

    def stream(self, parts: Callable[[], Iterable[bytes]]) -> None:
        """The same, with a body that comes in parts and has no Content-Length."""
        self._answer = (200, {}, parts)

    def hang(self) -> None:
        """Accepts requests and does not answer them until `released` is set."""
        self.released.clear()

    def wait_until_asked(self, times: int, within_s: float = 10) -> bool:
        with self.asked:
            return self.asked.wait_for(lambda: self.times_asked >= times, within_s)

    def __enter__(self) -> "Provider":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with provider.asked:
                    provider.times_asked += 1
                    provider.asked.notify_all()
                provider.released.wait()
                status, headers, parts = provider._answer
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for part in parts():
                        self.wfile.write(part)
                except ConnectionError:
                    pass  # the client closed the connection

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
