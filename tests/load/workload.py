"""What is asked for: random tasks of random users. Its twin in Lua, for wrk, is closed_loop.lua."""

import random
from collections.abc import Callable
from pathlib import Path

import msgspec

OPERATIONS = ("get", "list", "create", "toggle", "mixed")


class Workload(msgspec.Struct):
    """Random tasks of the data that database.load made or, with `ids`, of one user."""

    users: int = 1000
    tasks: int = 100_000
    token: str = ""
    user: str = ""
    ids: str = ""  # a file with a task id on each line


def request_maker(operation: str, workload: Workload, host: str, source: random.Random) -> Callable[[], bytes]:
    """Makes requests, each of them another."""
    draw = source.random
    head = f"Host: {host}\r\n" + (f"Authorization: Bearer {workload.token}\r\n" if workload.token else "")
    ids = Path(workload.ids).read_text().split() if workload.ids else []

    def owner() -> str:
        return workload.user or f"user-{int(draw() * workload.users) + 1}"

    def task() -> str:
        if ids:
            return f"{workload.user}/tasks/{ids[int(draw() * len(ids))]}"
        number = int(draw() * workload.tasks)
        return f"user-{number % workload.users + 1}/tasks/{number + 1}"

    def get() -> bytes:
        return f"GET /api/{task()} HTTP/1.1\r\n{head}\r\n".encode()

    def list_() -> bytes:
        return f"GET /api/{owner()}/tasks?limit=50 HTTP/1.1\r\n{head}\r\n".encode()

    def create() -> bytes:
        body = f'{{"title":"Made under load {int(draw() * 1e6)}","description":"Before noon, please"}}'
        return (
            f"POST /api/{owner()}/tasks HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def toggle() -> bytes:
        return f"PATCH /api/{task()}/complete HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n".encode()

    def mixed() -> bytes:
        share = draw()
        return get() if share < 0.7 else list_() if share < 0.9 else create() if share < 0.95 else toggle()

    return {"get": get, "list": list_, "create": create, "toggle": toggle, "mixed": mixed}[operation]
