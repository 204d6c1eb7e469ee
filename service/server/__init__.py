"""Runs the application on uvicorn: `process` in one process, `workers` in several on one socket, `listener` the socket.

Must not import tasks.
"""


class StartFailed(Exception):
    """The workers cannot serve. The message is one sentence."""
