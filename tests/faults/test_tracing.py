"""Traces arrive at a collector as OTLP. One that is away, hangs or is full costs a line of the log.

The collector is a receiver of OTLP over HTTP, read with the official protobufs.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.faults.conftest import Serve
from tests.support import http
from tests.support.waiting import wait_until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.faults

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "200"}  # milliseconds between two exports


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """Its endpoint, and the spans that came."""
    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/traces"
            for resource in request.resource_spans:
                names = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
                spans.extend((names, span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}


def ask(url: str, method: str, path: str, body: bytes = b"") -> int:
    traceparent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    return http.exchange(url, http.request(method, path, body, traceparent)).status


@pytest.mark.parametrize("workers", ["1", "2"])
def test_spans_of_requests_and_their_statements_arrive(url: str, serve: Serve, workers: str) -> None:
    with collector() as (endpoint, spans):
        service = serve(url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="mine", WORKERS=workers, **SOON)
        assert ask(service.url, "POST", "/api/u/tasks", b'{"title": "x"}') == 201
        assert ask(service.url, "GET", "/api/u/tasks/1") == 200
        assert ask(service.url, "GET", "/api/u/tasks/99") == 404
        assert service.stop() == 0  # what is left is exported at the stop
        assert {names["service.name"] for names, _ in spans} == {"mine"}
        ours = [span for _, span in spans if span.trace_id.hex() == TRACE]
        servers = {span.span_id: span for span in ours if span.kind == span.SPAN_KIND_SERVER}
        assert all(span.parent_span_id.hex() == PARENT for span in servers.values())
        described = {
            (span.name, attributes(span)["http.response.status_code"], attributes(span)["user.id"])
            for span in servers.values()
        }
        assert described == {
            ("POST /api/{user_id}/tasks", 201, "u"),
            ("GET /api/{user_id}/tasks/{task_id}", 200, "u"),
            ("GET /api/{user_id}/tasks/{task_id}", 404, "u"),
        }
        statements = [span for span in ours if span.kind == span.SPAN_KIND_CLIENT]
        assert sorted(span.name for span in statements) == ["create", "get", "get"]
        for span in statements:
            assert span.parent_span_id in servers
            assert {"tasks.lane_wait_s", "tasks.database_s", "db.system.name"} <= attributes(span).keys()


def lines_about_the_collector(lines: list[str]) -> list[str]:
    return [line for line in lines if '"opentelemetry.' in line]


@pytest.mark.parametrize("fault", ["away", "hangs", "full"])
def test_a_collector_that_takes_nothing_costs_a_line_and_no_request(url: str, serve: Serve, fault: str) -> None:
    with collector(503) as (full, _), socket.create_server(("127.0.0.1", 0)) as hangs:
        endpoint = {"away": "http://127.0.0.1:1", "hangs": f"http://127.0.0.1:{hangs.getsockname()[1]}", "full": full}
        settings = SOON | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        service = serve(url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint[fault], **settings)
        began, slowest = time.monotonic(), 0.0
        while time.monotonic() - began < 8:
            before = time.monotonic()
            assert ask(service.url, "GET", "/api/u/tasks") == 200
            slowest = max(slowest, time.monotonic() - before)
        wait_until(lambda: lines_about_the_collector(service.lines), 15)
        assert slowest < 0.5
        before = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - before < 10
        assert len(lines_about_the_collector(service.lines)) == 1
