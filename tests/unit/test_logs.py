"""Log lines: one JSON object each, or plain text for people."""

import io
import json
import logging
from datetime import datetime

import pytest

from service import logs


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("service.x", logging.WARNING, __file__, 1, message, arguments, None)
    vars(made).update(extra)
    return made


def test_a_line_is_one_json_object() -> None:
    line = logs.JsonFormatter().format(record("a %s\nb", "name", status=503, sqlstate=None, request_id="é\n"))
    assert "\n" not in line
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).utcoffset() is not None
    assert entry == {
        "level": "warning",
        "logger": "service.x",
        "message": "a name\nb",
        "status": 503,
        "request_id": "é\n",
    }


def test_what_json_does_not_know_is_written_as_text() -> None:
    assert json.loads(logs.JsonFormatter().format(record("x", what=ValueError("v"))))["what"] == "v"


def test_an_exception_brings_its_traceback() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        made = record("x")
        made.exc_info = (type(error), error, error.__traceback__)
    for formatter in (logs.JsonFormatter(), logs.ConsoleFormatter()):
        assert "ValueError: why" in formatter.format(made)


def test_people_get_a_plain_line() -> None:
    line = logs.ConsoleFormatter().format(record("a request failed", status=503))
    assert line.endswith("warning a request failed status=503")


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_reader_that_went_away_stops_nothing(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    handler = logs._Handler(Gone())
    handler.setFormatter(logs.JsonFormatter() if form == "json" else logs.ConsoleFormatter())
    handler.emit(record("x"))
    assert capsys.readouterr().err == ""
