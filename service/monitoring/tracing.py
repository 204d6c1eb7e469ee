"""Tracing with OpenTelemetry: a server span for each request, a client span for each of its statements.

Configured by the standard OTEL_* variables, with the extra `otel`; without them, OpenTelemetry is not imported. While a
request is served, its record only lists the times of its statements: spans are made when it has ended.
"""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from service.http.asgi import header
from service.http.request_record import RequestRecord
from service.settings import SettingsError

LOG_S = 60  # between two lines about a collector that cannot be reached

# W3C Trace Context: version, trace ID, parent ID, flags. Versions after 00 may append to it; ff is invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def trace_of(traceparent: bytes | None) -> tuple[str, str, bool] | None:
    """The trace ID, the parent span's ID and whether it is sampled; None: there is no trace."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    return match and (match[1].decode(), match[2].decode(), bool(int(match[3], 16) & 1))


def is_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the OTEL_* variables ask for traces: an endpoint or an exporter is named, and nothing turns it off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(environ.get("OTEL_TRACES_EXPORTER")) or any(environ.get(name) for name in _ENDPOINTS)


def from_environment() -> "Tracing | None":
    """The tracing that the OTEL_* variables ask for. Raises SettingsError."""
    return Tracing(_otlp_exporter()) if is_wanted() else None


def check_environment() -> None:
    """Raises SettingsError where `from_environment` would. Starts nothing."""
    if is_wanted():
        _otlp_exporter()


def _otlp_exporter() -> Any:
    """Raises SettingsError where the variables ask for what is not there or not installed."""
    if (problem := _problem()) is not None:
        raise SettingsError([problem])
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(["OTEL_* variables need the extra: pip install 'tasks-service[otel]'"]) from None
    return OTLPSpanExporter()


def _problem(environ: Mapping[str, str] = os.environ) -> str | None:
    """What the variables ask for that is not there: it would end in traces that arrive nowhere."""
    if (exporter := environ.get("OTEL_TRACES_EXPORTER") or "otlp") != "otlp":
        return f"OTEL_TRACES_EXPORTER={exporter}: the service has otlp alone, or none"
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environ.get(name) or "http/protobuf") != "http/protobuf":
            return f"{name}={protocol}: the service has http/protobuf alone, usually on port 4318"
    return None


class Tracing:
    """Makes spans of records. A SpanExporter exports them in batches, from a thread in the background."""

    def __init__(self, exporter: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._trace = trace
        service = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "tasks-service")}
        self._provider = TracerProvider(resource=Resource.create(service), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tasks-service")
        seldom = _Seldom()
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("opentelemetry.")]:
            logging.getLogger(name).addFilter(seldom)

    def trace(self, record: RequestRecord, status: int, seconds: float) -> None:
        """See service.monitoring.request_log.Tracer."""
        trace = self._trace
        epoch_ns = time.time_ns() - time.perf_counter_ns()  # for each trace: the wall clock may be set

        def at(moment: float) -> int:
            """Nanoseconds since the epoch of a time of perf_counter."""
            return epoch_ns + int(moment * 1e9)

        context = None
        if (sent := trace_of(header(record.request_headers, b"traceparent"))) is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sent[2] else trace.TraceFlags.DEFAULT)
            remote = trace.SpanContext(int(sent[0], 16), int(sent[1], 16), is_remote=True, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        attributes: dict[str, str | int | float] = {
            "http.request.method": record.method,
            "http.response.status_code": status,
            "http.route": record.route,
            "tasks.request_id": record.request_id.decode(),
        }
        if record.user_id is not None:
            attributes["user.id"] = record.user_id
        span = self._tracer.start_span(
            f"{record.method} {record.route}".rstrip(),
            context,
            trace.SpanKind.SERVER,
            attributes,
            start_time=at(record.began),
        )
        if status >= 500:
            span.set_status(trace.Status(trace.StatusCode.ERROR))
        if span.is_recording():
            inside = trace.set_span_in_context(span)
            for name, wait_s, database_s, ended in record.statements or ():
                child = self._tracer.start_span(
                    name,
                    inside,
                    trace.SpanKind.CLIENT,
                    {
                        "db.system.name": "postgresql",
                        "db.operation.name": name,
                        "tasks.lane_wait_s": wait_s,
                        "tasks.database_s": database_s,
                    },
                    start_time=at(ended - wait_s - database_s),
                )
                child.end(at(ended))
        span.end(at(record.began + seconds))

    def close(self) -> None:
        """Exports the remaining spans."""
        self._provider.shutdown()


class _Seldom(logging.Filter):
    """Lets a line about the collector pass once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOG_S
        return True
