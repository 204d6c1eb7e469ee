"""What psycopg leaves out of libpq, and what libpq's error results say. Must not import connections or calls."""

import ctypes
import sys
from typing import Any

from psycopg import pq

from service.database.failures import ServerError


def _find_send_sync() -> Any:
    """PQsendPipelineSync of the libpq that psycopg has loaded; None where that is older than 17.

    psycopg wraps PQpipelineSync only, which writes to the socket at once: a system call for each statement, a fifth of
    what a call costs. This one leaves the writing to PQflush. `pgconn_ptr` is there for such calls.
    """
    try:
        function = ctypes.PyDLL(sys.modules[pq.PGconn.__module__].__file__ or "").PQsendPipelineSync
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


send_sync = _find_send_sync()


def server_error(result: pq.abc.PGresult) -> ServerError | None:
    """What an error result says; None where the error is libpq's, not PostgreSQL's."""
    sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE)
    if sqlstate is None:
        return None
    constraint = result.error_field(pq.DiagnosticField.CONSTRAINT_NAME)
    routine = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION)
    return ServerError(
        sqlstate.decode(),
        result.get_error_message().strip(),
        constraint.decode() if constraint else None,
        routine.decode() if routine else None,
    )
