"""What the log says, line by line, and what it never says."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.http.request_record import record_of
from service.monitoring import logs
from service.monitoring.request_log import RequestLog, as_is, hashed


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """The root logger is as pytest wants it, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).propagate = True


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_is_a_json_object_with_time_level_and_message(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("service.test").warning("%s ü\n%d", "two lines", 2, extra={"worker": 7, "sqlstate": None})
    (line,) = lines(capfd)
    assert line.keys() == {"time", "level", "logger", "message", "worker"}  # what is None is left out
    assert (line["level"], line["logger"], line["worker"]) == ("warning", "service.test", 7)
    assert line["message"] == "two lines ü\n2"
    assert line["time"].endswith("Z")
    assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_traceback_stays_in_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("service.test").exception("a defect")
    (line,) = lines(capfd)
    assert line["traceback"].startswith("Traceback")
    assert line["traceback"].endswith("ValueError: why")


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", ["debug", "info", "warning", "error"]), ("warning", ["warning", "error"]), ("error", ["error"])],
)
def test_nothing_below_the_level_is_logged(capfd: pytest.CaptureFixture[str], level: str, said: list[str]) -> None:
    logs.configure(level, "json")
    log = logging.getLogger("service.test")
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        log.log(number, "x")
    assert [line["level"] for line in lines(capfd)] == said


def test_libraries_do_not_chat(capfd: pytest.CaptureFixture[str]) -> None:
    """Not even at debug: an SQL library's or an HTTP client's tales hold values."""
    logs.configure("debug", "json")
    for name in ("psycopg", "httpx", "httpcore", "asyncio", "yoyo"):
        logging.getLogger(name).info("SELECT 'secret'")
    logging.getLogger("uvicorn.access").info("GET /api/user-1/tasks")
    assert lines(capfd) == []


def test_on_a_terminal_lines_are_plain(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logging.getLogger("service.test").warning("hello", extra={"worker": 7})
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning hello worker=7\n", capfd.readouterr().err)


def test_a_reader_that_is_gone_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A closed terminal, a full disk behind the file."""

    class Full:
        def write(self, _: str) -> None:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Full())
        logs.configure("info", "json")
        logging.getLogger("service.test").warning("x")
    assert capfd.readouterr().err == ""


class App:
    """An application that notes what the parts below would, and answers nothing."""

    def __init__(self, **noted: Any) -> None:
        self._noted = noted

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for name, value in self._noted.items():
            setattr(record_of(scope), name, value)


class Unobserved:
    """Takes no figures."""

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        pass


async def asked(app: App, path: str = "/api/user-1/tasks/7", *headers: tuple[bytes, bytes], slow_s: float = 1) -> None:
    async def nothing(*_: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": headers}
    await RequestLog(app, Unobserved(), slow_s=slow_s)(scope, nothing, nothing)


NOTED = {"route": "/api/{user_id}/tasks/{task_id}", "request_id": b"r-1"}


async def test_a_failed_request_is_one_line_with_all_that_matters(capfd: pytest.CaptureFixture[str]) -> None:
    failure = type("Failure", (Exception,), {"sqlstate": "57P01"})("the first line\nDETAIL: a title")
    logs.configure("info", "json")
    await asked(App(status=503, failure=failure, **NOTED))
    (line,) = lines(capfd)
    assert isinstance(line.pop("duration_ms"), float)
    del line["time"]
    assert line == {
        "level": "warning",
        "logger": "service.request",
        "message": "a request failed",
        "request_id": "r-1",
        "method": "GET",
        "route": "/api/{user_id}/tasks/{task_id}",
        "status": 503,
        "lane_wait_ms": 0.0,
        "database_ms": 0.0,
        "sqlstate": "57P01",
        "reason": "the first line",
    }


@pytest.mark.parametrize(
    ("status", "level"), [(200, "debug"), (404, "debug"), (499, "debug"), (500, "warning"), (503, "warning")]
)
async def test_failures_are_always_logged_and_the_rest_at_debug(
    capfd: pytest.CaptureFixture[str], status: int, level: str
) -> None:
    logs.configure("debug", "json")
    await asked(App(status=status, **NOTED))
    assert [(line["level"], line["status"]) for line in lines(capfd)] == [(level, status)]
    logs.configure("info", "json")
    await asked(App(status=status, **NOTED))
    assert len(lines(capfd)) == (level == "warning")


async def test_a_slow_request_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    noted = NOTED | {"user_id": "user-1", "lane_wait_s": 0.5, "database_s": 0.25}
    await asked(App(status=200, **noted), "/x", (b"traceparent", trace), slow_s=-1)
    (line,) = lines(capfd)
    assert (line["lane_wait_ms"], line["database_ms"]) == (500.0, 250.0)
    assert line["user"] == hashed("user-1") == "9aac5a8621eae188"
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert (line["level"], line["message"], line["status"]) == ("warning", "a request was slow", 200)


async def test_the_raw_path_is_never_logged(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json")
    for status in (200, 404, 500):
        await asked(App(status=status), "/api/somebody@example.com/tasks/77")
    assert "somebody" not in capfd.readouterr().err


async def test_a_request_id_that_came_in_is_logged_whatever_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json")
    await asked(App(status=200), "/x", (b"x-request-id", b"from-the-client"))
    assert [line["request_id"] for line in lines(capfd)] == ["from-the-client"]


async def test_the_access_log_has_every_request_with_its_client(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")

    async def nothing(*_: Any) -> None:
        pass

    app = RequestLog(App(status=200, user_id="a@b.c"), Unobserved(), slow_s=1, access_log=True, show_user=as_is)
    await app(
        {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 5)}, nothing, nothing
    )
    (line,) = lines(capfd)
    assert (line["level"], line["client"], line["user"], line["status"]) == ("info", "192.0.2.1", "a@b.c", 200)
