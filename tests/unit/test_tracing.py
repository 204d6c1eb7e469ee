"""Tracing: which variables turn it on, whose trace a request belongs to, and the spans that are made of a record."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.app import create_app
from service.http.request_record import RequestRecord, record_of
from service.monitoring.request_log import RequestLog
from service.monitoring.tracing import check_environment, is_wanted, trace_of
from service.settings import SettingsError, load

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_turn_it_on(environ: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environ) is wanted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{PARENT}-01", (TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-00", (TRACE, PARENT, False)),
        (f"01-{TRACE}-{PARENT}-03-more", (TRACE, PARENT, True)),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(text: str, found: tuple[str, str, bool] | None) -> None:
    assert trace_of(text.encode()) == found


def test_without_the_variables_nothing_is_loaded() -> None:
    program = "import sys, service.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_is_not_there_stops_the_start(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, text)
    settings = load({"DATABASE_URL": "host=/nonexistent", "AUTH_MODE": "none"}, None)
    for start in (check_environment, lambda: create_app(settings)):
        with pytest.raises(SettingsError, match=f"{name}={text}"):
            start()


class Unobserved:
    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        pass


async def spans_of(
    record_with: dict[str, Any],
    headers: list[tuple[bytes, bytes]],
    meanwhile: Callable[[], None] = lambda: None,
) -> list[Any]:
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from service.monitoring.tracing import Tracing

    exporter = memory.InMemorySpanExporter()
    tracing = Tracing(exporter)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        record: RequestRecord = record_of(scope)
        for name, value in record_with.items():
            setattr(record, name, value)
        meanwhile()
        record.timed("get", 0.001, 0.004)
        record.timed("update", 0.0, 0.002)

    log = RequestLog(app, Unobserved(), slow_s=1, tracer=tracing)
    await log({"type": "http", "method": "PUT", "path": "/secret", "headers": headers}, None, None)
    tracing.close()
    return list(exporter.get_finished_spans())


async def test_a_request_is_a_server_span_with_a_client_span_for_each_statement() -> None:
    record = {"route": "/api/{user_id}/tasks/{task_id}", "status": 503, "user_id": "user-1"}
    get, update, server = await spans_of(record, [(b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())])
    assert (server.name, server.kind.name) == ("PUT /api/{user_id}/tasks/{task_id}", "SERVER")
    assert server.status.status_code.name == "ERROR"
    assert server.attributes["http.response.status_code"] == 503
    assert server.attributes["user.id"] == "user-1"
    assert f"{server.context.trace_id:032x}" == TRACE
    assert f"{server.parent.span_id:016x}" == PARENT
    for child, name, wait, took in ((get, "get", 0.001, 0.004), (update, "update", 0.0, 0.002)):
        assert (child.name, child.kind.name, child.parent.span_id) == (name, "CLIENT", server.context.span_id)
        assert (child.attributes["tasks.lane_wait_s"], child.attributes["tasks.database_s"]) == (wait, took)
        assert (child.end_time - child.start_time) / 1e9 == pytest.approx(wait + took, abs=1e-6)
    assert "/secret" not in str(server.to_json())


async def test_after_a_step_of_the_clock_spans_have_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    step_ns = 3600 * 10**9
    real = time.time_ns

    def step() -> None:
        monkeypatch.setattr(time, "time_ns", lambda: real() + step_ns)

    *_, server = await spans_of({"status": 200}, [], meanwhile=step)
    assert abs(server.end_time - (real() + step_ns)) < 60 * 10**9


async def test_a_trace_that_is_not_sampled_is_not_recorded() -> None:
    assert await spans_of({"status": 200}, [(b"traceparent", f"00-{TRACE}-{PARENT}-00".encode())]) == []


async def test_without_a_user_there_is_no_user_attribute() -> None:
    server = (await spans_of({"status": 200}, []))[-1]
    assert "user.id" not in server.attributes
    assert server.parent is None
