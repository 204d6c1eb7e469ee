"""Bad input: each of these requests is refused in the one error shape, and nothing is stored or changed by it.

They are sent as bytes, so that no client library mends them on the way.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from tests.support.http import exchange, request
from tests.support.processes import HTTP_PROTOCOL, RunningService

NOT_JSON = "Request body must be valid JSON"
NOT_OBJECT = "Request body must be a JSON object"
NOTHING_GIVEN = "At least one field (title, description or completed) must be provided"
REQUIRED = "Title is required"
EMPTY = "Title cannot be empty"
TITLE_LONG = "Title must be 255 characters or less"
TITLE_TEXT = "Title must be a string"
TITLE_NUL = "Title must not contain the character U+0000"
TEXT_LONG = "Description must be 5000 characters or less"
TEXT_TEXT = "Description must be a string or null"
TEXT_NUL = "Description must not contain the character U+0000"
BOOLEAN = "Completed must be true or false"
BAD_ID = "Invalid task ID"
BAD_USER = "Invalid user ID"
NOT_FOUND = "Not found"
NO_TASK = "Task not found"
NOT_ALLOWED = "Method not allowed"
MEDIA_TYPE = "Request body must be application/json"
TOO_LARGE = "Request body must be 64 KiB or less"
LIMIT = "limit must be between 1 and 1000"
COMPLETED = "completed must be true or false"
AFTER = "after must be a task ID"
QUERY = "Query string must be percent-encoded UTF-8, with up to 100 parameters"
IF_MATCH = "If-Match must be * or a list of up to 1000 entity tags"
IF_NONE_MATCH = "If-None-Match must be * or a list of up to 1000 entity tags"
MALFORMED = "Malformed HTTP request"
NO_SUCH_METHOD = "Method is not implemented"

USER = "bad-input"
TASKS = f"/api/{USER}/tasks"


@dataclass(frozen=True)
class Case:
    name: str
    sent: bytes  # {id} stands for the id of a task that the user has
    status: int
    message: str
    field: str | None = None


class Bad(NamedTuple):
    """A value, and what must be said about it."""

    value: Any
    message: str
    field: str | None = None


def shown(value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return ascii(text)[1:-1][:40]


def bodies(method: str, path: str, table: list[Bad]) -> Iterator[Case]:
    for bad in table:
        body = bad.value if isinstance(bad.value, bytes) else json.dumps(bad.value).encode()
        name = f"{method} {shown(body)} {len(body)}"
        yield Case(name, request(method, path, body), 400, bad.message, bad.field)


def targets(method: str, pattern: str, table: list[Bad], status: int = 400, body: bytes = b"") -> Iterator[Case]:
    """`pattern` with its %s replaced by each value."""
    for bad in table:
        target = pattern.encode().replace(b"%s", bad.value if isinstance(bad.value, bytes) else bad.value.encode())
        yield Case(f"{method} {shown(target)}", request(method, target, body), status, bad.message, bad.field)


def headers(method: str, path: str, name: str, status: int, table: list[Bad], body: bytes = b"") -> Iterator[Case]:
    for bad in table:
        sent = request(method, path, body, {name: bad.value})
        yield Case(f"{method} {name}: {shown(bad.value)}", sent, status, bad.message, bad.field)


def unknown(name: str, said: str | None = None) -> Bad:
    said = name if said is None else said
    return Bad({"title": "x", name: 1}, f'Unknown field: "{said}"', said)


GOOD = b'{"title":"x"}'

# What no JSON parser may accept, whatever the endpoint.
NO_JSON = [
    Bad(b"{", NOT_JSON),
    Bad(b"}", NOT_JSON),
    Bad(b" ", NOT_JSON),
    Bad(b"\x00", NOT_JSON),
    Bad(b"tru", NOT_JSON),
    Bad(b"{'title': 'x'}", NOT_JSON),
    Bad(b'{"title": "x",}', NOT_JSON),
    Bad(b'{"title" "x"}', NOT_JSON),
    Bad(b'{title: "x"}', NOT_JSON),
    Bad(b'{"title": "x"', NOT_JSON),
    Bad(b'{"title": "x}', NOT_JSON),
    Bad(b'{"title": "x"} {}', NOT_JSON),
    Bad(b'{"title": "x"}\x00', NOT_JSON),
    Bad(b'{"title": "x"} // comment', NOT_JSON),
    Bad(b'{"title": NaN}', NOT_JSON),
    Bad(b'{"title": "x", "completed": Infinity}', NOT_JSON),
    Bad(b'{"title": "x", "completed": tru}', NOT_JSON),
    Bad(b'{"title": "x", "completed": True}', NOT_JSON),
    Bad(b'{"title": "x", "version": 01}', NOT_JSON),
    Bad(b'{"title": "a\nb"}', NOT_JSON),
    Bad(b'{"title": "a\x00b"}', NOT_JSON),
    Bad(rb'{"title": "\x41"}', NOT_JSON),
    Bad(rb'{"title": "\u12"}', NOT_JSON),
    Bad(rb'{"title": "\ud800"}', NOT_JSON),
    Bad(rb'{"title": "\udc00"}', NOT_JSON),
    Bad(rb'{"title": "\udc00\ud800"}', NOT_JSON),
    Bad(rb'{"title": "\ud83d and the rest"}', NOT_JSON),
    Bad(rb'{"title": "x", "description": "\udfff"}', NOT_JSON),
    Bad(b'{"title": "\xff"}', NOT_JSON),
    Bad(b'{"title": "\xc0\xaf"}', NOT_JSON),  # an overlong slash
    Bad(b'{"title": "\xed\xa0\x80"}', NOT_JSON),  # a surrogate
    Bad(b'{"title": "\xf4\x90\x80\x80"}', NOT_JSON),  # above U+10FFFF
    Bad(b'{"title": "\xe2\x82"}', NOT_JSON),  # cut off
    Bad(b'{"title": "x", "description": "caf\xe9"}', NOT_JSON),  # Latin-1
    Bad(b"\xef\xbb\xbf" + GOOD, NOT_JSON),  # a byte order mark
    Bad('{"title":"x"}'.encode("utf-16"), NOT_JSON),
    Bad('{"title":"x"}'.encode("utf-32-be"), NOT_JSON),
    Bad(b"title=x", NOT_JSON),
    Bad(b"<title>x</title>", NOT_JSON),
    Bad(b"title: x", NOT_JSON),
    Bad(gzip.compress(GOOD, mtime=0), NOT_JSON),
    Bad(b"[" * 60_000, NOT_JSON),
    Bad(b"[" * 30_000 + b"]" * 30_000, NOT_JSON),  # deeper than the parser goes
    Bad(b'{"title":' * 6_000 + b"1" + b"}" * 6_000, NOT_JSON),
]

NO_OBJECT = [
    Bad([], NOT_OBJECT),
    Bad([{"title": "x"}], NOT_OBJECT),
    Bad("title", NOT_OBJECT),
    Bad(5, NOT_OBJECT),
    Bad(None, NOT_OBJECT),
    Bad(True, NOT_OBJECT),
]

# Values that neither a create nor an update may carry.
FIELDS = [
    Bad({"title": 5}, TITLE_TEXT, "title"),
    Bad({"title": True}, TITLE_TEXT, "title"),
    Bad({"title": ["x"]}, TITLE_TEXT, "title"),
    Bad({"title": {"x": "y"}}, TITLE_TEXT, "title"),
    Bad(b'{"title": "x", "title": 5}', TITLE_TEXT, "title"),
    Bad({"title": ""}, EMPTY, "title"),
    Bad({"title": "   "}, EMPTY, "title"),
    Bad({"title": "\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"}, EMPTY, "title"),
    Bad({"title": "\u00a0\u1680\u2000\u2028\u2029\u202f\u205f\u3000\u0085"}, EMPTY, "title"),
    Bad({"title": "x" * 256}, TITLE_LONG, "title"),
    Bad({"title": "😀" * 256}, TITLE_LONG, "title"),
    Bad({"title": " " + "e\u0301" * 128 + " "}, TITLE_LONG, "title"),
    Bad({"title": "x" * 60_000}, TITLE_LONG, "title"),
    Bad({"title": "a\0b"}, TITLE_NUL, "title"),
    Bad({"title": "\0"}, TITLE_NUL, "title"),
    Bad({"title": "x\0"}, TITLE_NUL, "title"),
    Bad({"title": "x", "description": 5}, TEXT_TEXT, "description"),
    Bad({"title": "x", "description": False}, TEXT_TEXT, "description"),
    Bad({"title": "x", "description": []}, TEXT_TEXT, "description"),
    Bad({"title": "x", "description": "x" * 5001}, TEXT_LONG, "description"),
    Bad({"title": "x", "description": "😀" * 5001}, TEXT_LONG, "description"),
    Bad({"title": "x", "description": "\0"}, TEXT_NUL, "description"),
    Bad({"title": "x", "completed": "true"}, BOOLEAN, "completed"),
    Bad({"title": "x", "completed": 1}, BOOLEAN, "completed"),
    Bad({"title": "x", "completed": 0}, BOOLEAN, "completed"),
    Bad({"title": "x", "completed": None}, BOOLEAN, "completed"),
    Bad({"title": "x", "completed": []}, BOOLEAN, "completed"),
    unknown("titel"),
    unknown("Title"),
    unknown("title "),
    unknown("t\u0131tle"),
    unknown(""),
    unknown("\0", r"\u0000"),
    unknown("a\r\nb\t\x1b[31m\x7f\x85", r"a\r\nb\t\u001b[31m\u007f\u0085"),
    unknown("\u202etitle\u2028\u200b\ufeff", r"\u202etitle\u2028\u200b\ufeff"),  # changes of direction, no width
    unknown("na\u00efve \u4efb\u52a1 \U0001f600"),
    unknown("\0" * 101, r"\u0000" * 100 + "…"),
    unknown("__proto__"),
    unknown("owner"),
    unknown('"; DROP TABLE tasks; --'),
    unknown("n" * 101, "n" * 100 + "…"),
]

CREATES = [
    Bad(b"", NOT_JSON),
    Bad({}, REQUIRED, "title"),
    Bad({"title": None}, REQUIRED, "title"),
    Bad({"description": "x"}, REQUIRED, "title"),
    Bad({"id": 7, "user_id": "x", "version": 1}, REQUIRED, "title"),
]

UPDATES = [
    Bad(b"", NOT_JSON),
    Bad({}, NOTHING_GIVEN),
    Bad({"id": 7, "user_id": "x", "version": 1, "created_at": None, "updated_at": []}, NOTHING_GIVEN),
    Bad({"title": None}, TITLE_TEXT, "title"),
    Bad({"completed": None}, BOOLEAN, "completed"),
]

TOGGLES = [
    Bad(b" ", NOT_JSON),
    Bad(b"completed=true", NOT_JSON),
    Bad({}, "Completed is required", "completed"),
    Bad({"completed": None}, BOOLEAN, "completed"),
    Bad({"completed": "true"}, BOOLEAN, "completed"),
    Bad({"completed": 1}, BOOLEAN, "completed"),
    Bad({"completed": True, "title": "x"}, 'Unknown field: "title"', "title"),
    Bad({"completed": True, "id": 1}, 'Unknown field: "id"', "id"),
    *NO_OBJECT,
]

TASK_IDS = [
    Bad(text, BAD_ID, "task_id")
    for text in (
        *("0", "-1", "+1", "1.0", "1e3", "0x1", "abc", "null", "*", "{task_id}"),
        *("9223372036854775808", "18446744073709551617", "1" * 40, "0" * 19, "9" * 5000),
        *("%00", "1%00", "%FF", "%201", "1%20", "1%0A", "1%2F2", "..", "%2e%2e", "1;--", "1'--", "%EF%BC%91", "%D9%A1"),
    )
]

USER_IDS = [
    Bad(text, BAD_USER, "user_id")
    for text in (
        *("%00", "a%00b", "%FF", "%C0%AF", "%ED%A0%80", "%F4%90%80%80", "a%E2%82", "%80abc"),
        *("x" * 256, "%F0%9F%98%80" * 256, "%2F" * 256, "x" * 10_000),
    )
]

QUERIES = [
    *(
        Bad(f"limit={text}", LIMIT, "limit")
        for text in (
            "0",
            "-1",
            "1001",
            "99999",
            "1" + "0" * 40,
            "abc",
            "1.5",
            "1e2",
            "",
            "%00",
            "%31%20",
            "+5",
            "%D9%A5",
        )
    ),
    *(Bad(f"completed={text}", COMPLETED, "completed") for text in ("TRUE", "1", "yes", "", "null", "true%00", "on")),
    *(Bad(f"after={text}", AFTER, "after") for text in ("0", "-1", "abc", "", "9223372036854775808", "1" * 40, "%00")),
    Bad("limit=1&limit=2", "limit must be given once", "limit"),
    Bad("completed=true&completed=true", "completed must be given once", "completed"),
    Bad("after=1&x=2&after=3", "after must be given once", "after"),
    Bad("limit=5&note=%FF", QUERY),
    Bad("%ED%A0%80=1", QUERY),
    Bad("after=%FE", QUERY),
]

TAGS = ["1", '"1', "W/1", "", " ", ",", '"1" "2"', '"1",*', '*,"1"', '"a"b"', 'w/"1"', "'1'", '"\x01"', "**"]

MEDIA_TYPES = [
    Bad(text, MEDIA_TYPE)
    for text in (
        *("text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", "application/jsonp"),
        *("multipart/form-data; boundary=x", "application/vnd.api+json", "json", "application", "", "*/*", ";"),
    )
]

LARGE = b'{"title":"x","description":"' + b"x" * 65_536 + b'"}'


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def line(name: str, text: str, status: int = 400, message: str = MALFORMED) -> Case:
    """A request as it stands here, but for line ends and the blank line."""
    return Case(name, text.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n", status, message)


ONE = TASKS + "/{id}"
DONE = ONE + "/complete"

CASES = [
    *bodies("POST", TASKS, [*CREATES, *NO_JSON, *NO_OBJECT, *FIELDS]),
    *bodies("PUT", ONE, [*UPDATES, *NO_JSON[::3], *NO_OBJECT, *FIELDS]),
    *bodies("PATCH", DONE, [*TOGGLES, *NO_JSON[::4]]),
    *targets("GET", f"{TASKS}/%s", TASK_IDS),
    *targets("DELETE", f"{TASKS}/%s", TASK_IDS[::5]),
    *targets("PUT", f"{TASKS}/%s", TASK_IDS[::6], body=b'{"title":"y"}'),
    *targets("PATCH", f"{TASKS}/%s/complete", TASK_IDS[::7]),
    *targets("GET", "/api/%s/tasks", USER_IDS),
    *targets("POST", "/api/%s/tasks", USER_IDS, body=GOOD),
    *targets("GET", "/api/%s/tasks/{id}", USER_IDS[::5]),
    *targets("DELETE", "/api/%s/tasks/{id}", USER_IDS[::5]),
    *targets("GET", f"{TASKS}?%s", QUERIES),
    # Users who have no such task, and paths that are none.
    *targets(
        "DELETE",
        "/api/%s/tasks/{id}",
        [
            Bad(text, NO_TASK)
            for text in (
                "%2F",
                "..",
                "%2e%2e",
                "bad-input%2F",
                "bad-input%20",
                "Bad-Input",
                "bad%2Dinput%2Dx",
                "%25",
                "*",
            )
        ],
        404,
    ),
    *targets(
        "GET",
        "/%s",
        [
            Bad(text, NOT_FOUND)
            for text in (
                *("api", "api/", "api/bad-input", "api//tasks", "api/bad-input/tasks/{id}/x", "favicon.ico"),
                *("api/bad-input/tasks/{id}/complete/x", "..%2f..%2fetc/passwd", "../../etc/passwd", ".env", "%00"),
                *(
                    "api/bad/input/tasks",
                    "api/bad-input%2Ftasks",
                    "API/bad-input/tasks",
                    "api/bad-input/tasks%3Flimit=1",
                ),
                *("sql/tasks/get.sql", "%6civez", "livez/x", "x" * 10_000),
            )
        ],
        404,
    ),
    # Methods.
    *(
        Case(f"{method} {shown(path)}", request(method, path, body), 405, NOT_ALLOWED)
        for method, path, body in (
            ("PUT", TASKS, GOOD),
            ("PATCH", TASKS, GOOD),
            ("DELETE", TASKS, b""),
            ("POST", ONE, GOOD),
            ("PATCH", ONE, GOOD),
            ("GET", DONE, b""),
            ("PUT", DONE, GOOD),
            ("DELETE", DONE, b""),
            ("POST", "/livez", b""),
            ("DELETE", "/readyz", b""),
        )
    ),
    # Media types and codings.
    *headers("POST", TASKS, "Content-Type", 415, MEDIA_TYPES, GOOD),
    *headers("PUT", ONE, "Content-Type", 415, MEDIA_TYPES[:3], b'{"title":"y"}'),
    *headers("PATCH", DONE, "Content-Type", 415, MEDIA_TYPES[:3], b'{"completed":true}'),
    *headers("POST", TASKS, "Content-Encoding", 415, [Bad(text, MEDIA_TYPE) for text in ("gzip", "br", "x")], GOOD),
    # Conditions.
    *headers("PUT", ONE, "If-Match", 400, [Bad(tag, IF_MATCH) for tag in TAGS if tag != '"\x01"'], b'{"title":"y"}'),
    *headers("DELETE", ONE, "If-Match", 400, [Bad(tag, IF_MATCH) for tag in TAGS[:4]]),
    *headers("PATCH", DONE, "If-Match", 400, [Bad(tag, IF_MATCH) for tag in TAGS[:4]]),
    *headers("GET", ONE, "If-None-Match", 400, [Bad(tag, IF_NONE_MATCH) for tag in TAGS if tag != '"\x01"']),
    # Bodies too large, however they come.
    Case("POST 64 KiB and a bit", request("POST", TASKS, LARGE), 413, TOO_LARGE),
    Case("PUT 64 KiB and a bit", request("PUT", ONE, LARGE), 413, TOO_LARGE),
    Case("PATCH 64 KiB of white space", request("PATCH", DONE, b" " * 65_537), 413, TOO_LARGE),
    Case("POST 20 MB", request("POST", TASKS, b"x" * 20_000_000), 413, TOO_LARGE),
    Case(
        "POST 20 MB of another type", request("POST", TASKS, b"x" * 20_000_000, {"Content-Type": "x/y"}), 413, TOO_LARGE
    ),
    Case(
        "POST chunked, 64 KiB and a bit",
        request("POST", TASKS, chunked(LARGE), {"Transfer-Encoding": "chunked"}),
        413,
        TOO_LARGE,
    ),
    Case("POST that announces much", request("POST", TASKS, GOOD, {"Content-Length": "9" * 18}), 413, TOO_LARGE),
    # What is not HTTP.
    line("no HTTP at all", "\x16\x03\x01\x02\x00\x01"),
    line("an unknown version", f"GET {TASKS} HTTP/9.9\nHost: x", 505, "HTTP version is not supported"),
    line("an unknown method", f"MAKE {TASKS} HTTP/1.1\nHost: x", 501, NO_SUCH_METHOD),
    line("a method of WebDAV", f"PROPFIND {TASKS} HTTP/1.1\nHost: x", 501, NO_SUCH_METHOD),
    line("a trace", f"TRACE {ONE} HTTP/1.1\nHost: x", 501, NO_SUCH_METHOD),
    line("a lower-case method", f"get {TASKS} HTTP/1.1\nHost: x", 501, NO_SUCH_METHOD),
    line("a space in the path", f"GET {TASKS} x HTTP/1.1\nHost: x"),
    line("a path that is not ASCII", "GET /api/m\xfcller/tasks HTTP/1.1\nHost: x"),
    line("a query that is not ASCII", f"GET {TASKS}?limit=\xfc HTTP/1.1\nHost: x"),
    line("a target without a slash", "GET api HTTP/1.1\nHost: x"),
    line("a tunnel", "CONNECT example.com:443 HTTP/1.1\nHost: x", 501, NO_SUCH_METHOD),
    line("a NUL in a header", f"GET {TASKS} HTTP/1.1\nHost: x\nX-Request-ID: a\0b"),
    line("a control character in a tag", f'GET {TASKS}/1 HTTP/1.1\nHost: x\nIf-None-Match: "\x01"'),
    line("a header without a colon", f"GET {TASKS} HTTP/1.1\nHost: x\nnonsense"),
    line("white space before a colon", f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length : 3\n\nabc"),
    line("a negative length", f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length: -1"),
    line("a length that is no number", f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length: abc"),
    line("two lengths", f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length: 13\nContent-Length: 5\n\n" + '{"title":"x"}'),
    line("a length beyond all bounds", f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length: " + "9" * 40),
    line(
        "a length and chunks",
        f"POST {TASKS} HTTP/1.1\nHost: x\nContent-Length: 5\nTransfer-Encoding: chunked\n\n0",
    ),
    line("a chunk without a size", f"POST {TASKS} HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\nxyz\nabc"),
]


@pytest.fixture(scope="module")
def connection(shared_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def task_id(client: httpx.Client) -> int:
    """A task of the user on whom the bad input is tried."""
    return client.post(TASKS, json={"title": "untouched", "description": "as it was"}).json()["id"]


def stored(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Everything in the database."""
    query = " UNION ALL ".join(
        f"SELECT '{table}', count(*), md5(string_agg(row::text, '|' ORDER BY row::text)) FROM {table} AS row"
        for table in ("users", "tasks", "idempotency_keys")
    )
    return connection.execute(query).fetchall()


def test_there_are_enough_and_no_two_are_alike() -> None:
    assert len(CASES) >= 100
    assert len({case.sent for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_is_refused_and_changes_nothing(
    case: Case, service: RunningService, connection: psycopg.Connection[Any], task_id: int
) -> None:
    before = stored(connection)
    reply = exchange(service.url, case.sent.replace(b"{id}", b"%d" % task_id))
    if HTTP_PROTOCOL and (case.message == MALFORMED or case.status in (501, 505)):
        # uvicorn's class has its own wording, or leaves the method to the application.
        assert 400 <= reply.status < 500
        assert stored(connection) == before
        return
    expected = {"error": case.message} if case.field is None else {"error": case.message, "field": case.field}
    assert (reply.status, reply.json()) == (case.status, expected)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers.get("x-request-id")
    assert stored(connection) == before
