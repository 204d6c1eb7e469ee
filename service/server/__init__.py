"""Runs the application on uvicorn: `uvicorn` is one process, `workers` several on one socket, `listener` the socket.

Must not know tasks, nor where the database came from.
"""
