"""/openapi.json against the service: the routes, the structs, the sentences and the headers that it really has."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
from litestar import Litestar
from openapi_spec_validator import OpenAPIV31SpecValidator

from service import app
from service.database import TimedOut, Unavailable
from service.http.body import read_body
from service.http.capacity import Capacity
from service.http.error_handler import api_error_of
from service.http.errors import ApiError, ErrorBody
from service.http.limits import BATCH_BYTES, BODY_BYTES
from service.http.place import Place
from service.settings import Secret, Settings
from service.tasks import openapi
from service.tasks.schemas import Task, TaskCreate, TaskToggle, TaskUpdate
from tests.support import http
from tests.support.processes import HTTP_PROTOCOL, RunningService, wait_ready
from tests.support.tokens import SECRET, SHARED, claims, in_s, token

Json = dict[str, Any]

DOCUMENT: Json = json.loads(openapi.document(token_needed=True))
OPERATIONS: dict[str, tuple[str, str, Json]] = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
# Accepted and ignored where a client sends them, so that it can send back a task that it got.
READ_ONLY = {"id", "user_id", "version", "created_at", "updated_at"}
TASK_OPERATIONS = [name for name, (_, path, _) in OPERATIONS.items() if path.startswith("/api/")]
GOOD_BODIES: Json = {
    "create_task": {"title": "x"},
    "batch_tasks": [{"title": "x"}],
    "update_task": {"title": "x"},
    "toggle_task": {"completed": True},
}


def test_it_is_served(client: httpx.Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == openapi.document(token_needed=False)


@pytest.mark.parametrize("token_needed", [True, False])
def test_it_is_valid(token_needed: bool) -> None:
    OpenAPIV31SpecValidator(json.loads(openapi.document(token_needed=token_needed))).validate()


def test_every_route_is_described_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Litestar] = []

    def make(**options: Any) -> Litestar:
        made.append(Litestar(**options))
        return made[0]

    monkeypatch.setattr(app, "Litestar", make)
    app.create_app(Settings(database_url=Secret("host=nowhere.invalid"), auth_mode="none"))
    routes = {
        (method, route.path_format)
        for route in made[0].routes
        for method in route.methods
        if method not in ("HEAD", "OPTIONS")
    }
    routes -= {("GET", "/docs/{name}"), ("GET", "/")}  # the page's own files, and what leads to it
    assert {(method, path) for method, path, _ in OPERATIONS.values()} == routes


def test_a_token_is_demanded_exactly_where_one_is_needed() -> None:
    for token_needed, security in ((True, [{"bearer": []}]), (False, [{}, {"bearer": []}])):
        document = json.loads(openapi.document(token_needed=token_needed))
        for path, item in document["paths"].items():
            for operation in item.values():
                assert operation["security"] == (security if path.startswith("/api/") else [])


@pytest.mark.parametrize("kind", [Task, TaskCreate, TaskUpdate, TaskToggle, ErrorBody])
def test_a_schema_has_the_fields_of_its_struct(kind: type[msgspec.Struct]) -> None:
    schema = DOCUMENT["components"]["schemas"]["ApiError" if kind is ErrorBody else kind.__name__]
    fields = [field for field in msgspec.structs.fields(kind) if kind is Task or field.name not in READ_ONLY]
    assert set(schema["properties"]) == {field.name for field in fields}
    assert set(schema.get("required", [])) == {field.name for field in fields if field.required}
    assert ("additionalProperties" in schema) == kind.__struct_config__.forbid_unknown_fields


def _contents(node: Any) -> Iterator[Json]:
    if isinstance(node, dict):
        if "schema" in node and "examples" in node:
            yield node
        for value in node.values():
            yield from _contents(value)
    elif isinstance(node, list):
        for value in node:
            yield from _contents(value)


def test_every_example_fits_its_schema() -> None:
    contents = list(_contents(DOCUMENT["paths"]))
    for content in contents:
        validator = jsonschema.Draft202012Validator(content["schema"] | {"components": DOCUMENT["components"]})
        for example in content["examples"].values():
            validator.validate(example["value"])
    assert len(contents) > len(OPERATIONS)


# ---- Every error that an operation is said to answer is provoked ----

# What is sent instead of something good: user, task_id, query, headers, body; `item` is the object in the body, which
# for a batch is the fourth of the array.
BAD: dict[str, Json] = {
    "Malformed HTTP request": {"headers": {"X-Request-ID": "\0"}},
    "Request target is too long": {"query": "x" * 40_000},
    "Request headers are too large": {"headers": {"X-Large": "x" * 40_000}},
    "Invalid user ID": {"user": "%00"},
    "Invalid task ID": {"task_id": "0"},
    "Task not found": {"task_id": str(2**63 - 1)},
    "completed must be true or false": {"query": "completed=1"},
    "limit must be between 1 and 1000": {"query": "limit=1001"},
    "after must be a task ID": {"query": "after=0"},
    "limit must be given once": {"query": "limit=1&limit=1"},
    "Query string must be percent-encoded UTF-8, with up to 100 parameters": {"query": "x=%FF"},
    "If-None-Match must be * or a list of up to 1000 entity tags": {"headers": {"If-None-Match": "1"}},
    "If-Match must be * or a list of up to 1000 entity tags": {"headers": {"If-Match": "1"}},
    "Task was changed by another request": {"headers": {"If-Match": '"2"'}},
    "Idempotency-Key must be given once, as 1 to 255 visible characters": {"headers": {"Idempotency-Key": "a b"}},
    "Request body must be valid JSON": {"body": b"["},
    "Request body must be a JSON object": {"body": b"[]"},
    "Request body must be a JSON array": {"body": b"{}"},
    "Request body must be 64 KiB or less": {"body": b" " * (BODY_BYTES + 1)},
    "Request body must be 8192 KiB or less": {"body": b" " * (BATCH_BYTES + 1)},
    "Request body must be application/json": {"headers": {"Content-Type": "text/plain"}},
    "A batch must hold between 1 and 1000 tasks": {"body": b"[]"},
    "Each task of a batch must be a JSON object": {"item": 5},
    "Each task of a batch must be 64 KiB or less": {"item": {"title": "x", "id": "x" * 70_000}},
    'Unknown field: "titel"': {"item": {"titel": "x"}},
    "Title is required": {"item": {"description": "x"}},
    "Title must be a string": {"item": {"title": 5}},
    "Title cannot be empty": {"item": {"title": " "}},
    "Title must be 255 characters or less": {"item": {"title": "x" * 256}},
    "Title must not contain the character U+0000": {"item": {"title": "x\0x"}},
    "Description must be a string or null": {"item": {"title": "x", "description": 5}},
    "Description must be 5000 characters or less": {"item": {"title": "x", "description": "x" * 5001}},
    "Description must not contain the character U+0000": {"item": {"title": "x", "description": "\0"}},
    "Completed must be true or false": {"item": {"title": "x", "completed": 1}},
    "Completed is required": {"item": {}},
    "At least one field (title, description or completed) must be provided": {"item": {}},
}
CALLER = {
    "Authentication required": lambda: None,
    "Invalid token": lambda: "x",
    "Token has expired": lambda: token(SHARED, claims(exp=in_s(-60))),
    "Access denied": lambda: token(SHARED),
}
USED_KEY = "Idempotency-Key was already used for another request"
# 408 takes ten seconds over HTTP, 429 as many requests as a user may have; these are made in the process instead.
NOT_BY_A_REQUEST = {408, 429, 500, 503, 504}


def _examples(wanted: Callable[[int], bool]) -> list[Any]:
    return [
        pytest.param(name, int(status), example["value"], id=f"{name}-{example['value']['error']}")
        for name in TASK_OPERATIONS
        for status, answer in OPERATIONS[name][2]["responses"].items()
        if int(status) >= 400 and wanted(int(status))
        for example in answer["content"]["application/json"]["examples"].values()
    ]


def _request(name: str, user: str, bad: Json, task_id: Any) -> bytes:
    method, path, _ = OPERATIONS[name]
    path = path.format(user_id=bad.get("user", user), task_id=bad.get("task_id", task_id))
    content = GOOD_BODIES.get(name)
    if "item" in bad:
        item = bad["item"]
        if name == "toggle_task" and isinstance(item, dict):
            item = {field: value for field, value in item.items() if field != "title"}
        content = [{"title": "x"}, {"title": "x"}, {"title": "x"}, item] if name == "batch_tasks" else item
    body = bad.get("body", b"" if content is None else json.dumps(content).encode())
    return http.request(method, f"{path}?{bad.get('query', '')}", body, bad.get("headers"))


BY_THE_PROTOCOL = ("Malformed HTTP request", "Request target is too long", "Request headers are too large")


def _check(reply: http.Response, name: str, status: int, example: Json) -> None:
    assert (reply.status, reply.json()) == (status, example)
    documented = OPERATIONS[name][2]["responses"][str(status)]["headers"]
    assert {header.lower() for header in documented} <= set(reply.headers)


@pytest.mark.parametrize(
    ("name", "status", "example"), _examples(lambda status: status not in NOT_BY_A_REQUEST | {401, 403})
)
def test_an_error_is_answered_as_described(
    client: httpx.Client, user: str, name: str, status: int, example: Json
) -> None:
    if HTTP_PROTOCOL and example["error"] in BY_THE_PROTOCOL:
        pytest.skip("only service.http.protocol promises this")
    task_id = client.post(f"/api/{user}/tasks", json={"title": "x"}).json()["id"]
    bad: Json = {"headers": {"Idempotency-Key": "1"}} if example["error"] == USED_KEY else BAD[example["error"]]
    if example["error"] == USED_KEY:
        first = bad | {"body": json.dumps([{"title": "y"}] if name == "batch_tasks" else {"title": "y"}).encode()}
        assert http.exchange(str(client.base_url), _request(name, user, first, task_id)).status == 201
    _check(http.exchange(str(client.base_url), _request(name, user, bad, task_id)), name, status, example)


@pytest.fixture(scope="module")
def proving(clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that demands tokens."""
    with RunningService(
        tmp_path_factory.mktemp("proving"), DATABASE_URL=clone(), AUTH_MODE="jwt", AUTH_JWT_SECRET=SECRET
    ) as running:
        wait_ready(running.url)
        yield running


@pytest.mark.parametrize(("name", "status", "example"), _examples(lambda status: status in (401, 403)))
def test_who_calls_is_proven_as_described(proving: RunningService, name: str, status: int, example: Json) -> None:
    sent = CALLER[example["error"]]()
    bad = {"headers": {"Authorization": f"Bearer {sent}"} if sent else {}}
    _check(http.exchange(proving.url, _request(name, "somebody", bad, 1)), name, status, example)


def test_a_service_that_demands_tokens_says_so(proving: RunningService) -> None:
    assert httpx.get(f"{proving.url}/openapi.json").json() == DOCUMENT


async def test_the_other_errors_have_the_sentences_described() -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        return next(messages, None) or await asyncio.Event().wait()

    capacity = Capacity(1, max_per_user=0, max_buffered=100_000)
    with pytest.raises(ApiError) as late:
        await read_body(Place(capacity), [], receive, BODY_BYTES, timeout_s=0.01)
    many = capacity.reject_caller()
    problems = [late.value, many, *map(api_error_of, (RuntimeError(), Unavailable("x"), TimedOut("x")))]
    real = {(problem.status, problem.message) for problem in problems}
    for name in TASK_OPERATIONS:
        described = {
            (int(status), example["value"]["error"])
            for status in OPERATIONS[name][2]["responses"].keys() & {str(problem.status) for problem in problems}
            for example in OPERATIONS[name][2]["responses"][status]["content"]["application/json"]["examples"].values()
        }
        assert described == (real if name in GOOD_BODIES else {pair for pair in real if pair[0] != 408})


# ---- Every header that a success is said to bring ----


def test_a_success_brings_the_headers_described(client: httpx.Client, tasks: str) -> None:
    with httpx.Client(base_url=client.base_url, headers={"X-Request-ID": "seen"}) as own:
        answers = _successes(own, tasks)
    described = {
        (name, int(status)): answer
        for name, (_, _, operation) in OPERATIONS.items()
        for status, answer in operation["responses"].items()
        if int(status) < 400
    }
    assert answers.keys() == described.keys()
    for (name, status), answer in answers.items():
        assert answer.status_code == status
        assert {header.lower() for header in described[name, status]["headers"]} <= set(answer.headers), name
        content = described[name, status].get("content", {"": None})
        assert answer.headers.get("content-type", "").partition(";")[0] in content, name


def _successes(client: httpx.Client, tasks: str) -> dict[tuple[str, int], httpx.Response]:
    keyed = {"Idempotency-Key": "1"}
    body, batch = {"title": "x"}, [{"title": "x"}]
    client.post(tasks, json=body, headers=keyed)
    client.post(f"{tasks}/batch", json=batch, headers=keyed)
    created = client.post(tasks, json=body, headers=keyed)
    one = created.headers["location"]
    return {
        ("create_task", 201): created,
        ("batch_tasks", 201): client.post(f"{tasks}/batch", json=batch, headers=keyed),
        ("list_tasks", 200): client.get(tasks, params={"limit": 1}),
        ("get_task", 200): client.get(one),
        ("list_tasks", 304): client.get(tasks, params={"limit": 1}, headers={"If-None-Match": "*"}),
        ("get_task", 304): client.get(one, headers={"If-None-Match": '"1"'}),
        ("update_task", 200): client.put(one, json={"title": "y"}),
        ("toggle_task", 200): client.patch(f"{one}/complete"),
        ("delete_task", 204): client.delete(one),
    } | {(name, 200): client.get(path) for name, (_, path, _) in OPERATIONS.items() if not path.startswith("/api/")}
