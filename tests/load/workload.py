"""What is asked for: random tasks of random users. For wrk, the same in Lua is closed_loop.lua."""

import random
from collections.abc import Callable
from urllib.parse import SplitResult, quote

import msgspec

MIX = {"get": 70.0, "list": 20.0, "create": 5.0, "toggle": 5.0}
OPERATIONS = (*MIX, "mixed")
TITLE = "Made under load"


class Account(msgspec.Struct):
    """A user, the token that proves it, and ids of tasks of this user."""

    user: str
    token: str = ""
    ids: list[int] = []


class Workload(msgspec.Struct):
    """Random tasks of the data that database.load made or, with `accounts`, of these."""

    users: int = 1000
    tasks: int = 100_000
    accounts: list[Account] = []
    title: str = TITLE  # how the titles of created tasks begin
    headers: dict[str, str] = {}  # of every request, in place of the generator's own


def weights(operation: str) -> dict[str, float]:
    return MIX if operation == "mixed" else {operation: 1.0}


def head(url: SplitResult, token: str, headers: dict[str, str]) -> str:
    """The header lines that all requests of one user have."""
    own = {"Host": url.netloc.rpartition("@")[2]} | ({"Authorization": f"Bearer {token}"} if token else {})
    replaced = {name.lower() for name in headers}
    lines = {name: value for name, value in own.items() if name.lower() not in replaced} | headers
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items())


def request_maker(
    mix: dict[str, float], workload: Workload, url: SplitResult, source: random.Random
) -> Callable[[], tuple[str, bytes]]:
    """Makes requests, each with the name of its operation. `url` is where the service's paths begin."""
    draw = source.random
    prefix = url.path.rstrip("/") + "/api"
    common = head(url, "", workload.headers)
    known = [
        (f"{prefix}/{quote(account.user, safe='')}/tasks", head(url, account.token, workload.headers), account.ids)
        for account in workload.accounts
    ]

    def owner() -> tuple[str, str]:
        """The path of a user's tasks, and the head."""
        if known:
            return known[int(draw() * len(known))][:2]
        return f"{prefix}/user-{int(draw() * workload.users) + 1}/tasks", common

    def task() -> tuple[str, str]:
        if known:
            path, lines, ids = known[int(draw() * len(known))]
            return f"{path}/{ids[int(draw() * len(ids))]}", lines
        number = int(draw() * workload.tasks)
        return f"{prefix}/user-{number % workload.users + 1}/tasks/{number + 1}", common

    def get() -> bytes:
        path, lines = task()
        return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    def list_() -> bytes:
        path, lines = owner()
        return f"GET {path}?limit=50 HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    def create() -> bytes:
        path, lines = owner()
        body = f'{{"title":"{workload.title} {int(draw() * 1e6)}","description":"Before noon, please"}}'
        framing = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"POST {path} HTTP/1.1\r\n{lines}{framing}\r\n{body}".encode("latin-1")

    def toggle() -> bytes:
        path, lines = task()
        return f"PATCH {path}/complete HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n".encode("latin-1")

    makers = {"get": get, "list": list_, "create": create, "toggle": toggle}
    shares: list[tuple[float, str, Callable[[], bytes]]] = []
    reached = 0.0
    for name, weight in mix.items():
        if weight:
            reached += weight / sum(mix.values())
            shares.append((reached, name, makers[name]))
    *ahead, (_, last, make_last) = shares

    def make() -> tuple[str, bytes]:
        share = draw()
        for end, name, make_one in ahead:
            if share < end:
                return name, make_one()
        return last, make_last()

    return make
