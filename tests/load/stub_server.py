"""For the harness's tests: an HTTP server in a thread whose statuses and delays the test chooses."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = Callable[[str, str], int]  # from method and path to the status


@contextmanager
def server(answer: Response, token: str = "") -> Generator[str]:
    """Its URL. Each request is answered with the status that `answer` gives, in its own time, and `{}`; 401 where it
    does not show the token.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            proven = not token or self.headers["Authorization"] == f"Bearer {token}"
            status = answer(self.command, self.path) if proven else 401
            self.wfile.write(b"HTTP/1.1 %d -\r\nContent-Length: 2\r\n\r\n{}" % status)

        do_GET = do_POST = do_PATCH = handle_any

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A generator that has seen enough hangs up."""

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}"
        finally:
            running.shutdown()
            thread.join()
