"""Runs the application on uvicorn: `process` in one process, `workers` in several on one socket, `listener` the socket.

Must not know tasks, nor where the database came from.
"""


class StartFailed(Exception):
    """The workers cannot serve. The message is one sentence."""
