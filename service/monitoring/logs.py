"""Logs: a JSON object a line, or plain lines for people on a terminal. No titles, descriptions or tokens get here."""

import logging
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

import msgspec

_log = logging.getLogger("service")

UNCAUGHT = "an error that nothing caught"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def extras(record: logging.LogRecord) -> dict[str, object]:
    """The fields given as `extra=`, but for those that are None."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}


class JsonFormatter(logging.Formatter):
    """time (RFC 3339, UTC), level, logger, message, then the extras and, for an exception, its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class ConsoleFormatter(logging.Formatter):
    """time, level and message, then the extras as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}"
        line += "".join(f" {name}={value}" for name, value in extras(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to standard error; a reader that went away, or a full disk behind it, does not stop the service."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def is_console(form: str | None) -> bool:
    """Whether lines are for people: as `form` says, or where it is None and standard error is a terminal."""
    return form == "console" or (form is None and sys.stderr is not None and sys.stderr.isatty())


def configure(level: str, form: str | None) -> None:
    """Sends everything that is logged to standard error. `form`: console or json; None: console on a terminal."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(ConsoleFormatter() if is_console(form) else JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name != "uvicorn.access"
    # The servers' own tales of connections and start-up are for debugging; what an operator needs is said by serve.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if level == "debug" else "WARNING")
    for name in ("psycopg", "httpx", "httpcore", "asyncio", "yoyo"):
        logging.getLogger(name).setLevel("WARNING")


@contextmanager
def uncaught_logged() -> Generator[None]:
    """Exceptions that nothing catches, and warnings, are logged: where the log is JSON, all that is written is.

    An exception that leaves this block ends the process with status 1.
    """

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and args.exc_type is not SystemExit:
            _log.critical(UNCAUGHT, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        error = args.exc_value
        _log.error(
            f"{args.err_msg or 'an error was ignored in'} {args.object!r}",
            exc_info=error and (type(error), error, args.exc_traceback),
        )

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    logging.captureWarnings(True)
    try:
        yield
    except Exception:
        _log.critical(UNCAUGHT, exc_info=True)
        sys.exit(1)
    finally:
        threading.excepthook, sys.unraisablehook = before
        logging.captureWarnings(False)
