"""Every token of the table, sent to every endpoint of the real service: 2xx, 401 or 403 as the contract says."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import tokens
from tests.support.http import Client, Headers, Response
from tests.support.identity_provider import Provider
from tests.support.processes import RunningService, wait_ready
from tests.support.tokens import CASES, ED, GOOD, ISSUER, REQUIRED, SECRET_CASES, Case

MISSING = 2**62


@dataclass(frozen=True)
class Endpoint:
    name: str
    method: str
    below: str  # the user's tasks
    status: int
    body: bytes = b""

    def path(self, user: str, task_id: int) -> str:
        return tasks_of(user) + self.below.format(task_id)


TITLE = b'{"title": "Buy milk"}'
# In an order in which each can succeed: delete is the last that needs the task.
ENDPOINTS = [
    Endpoint("list", "GET", "", 200),
    Endpoint("create", "POST", "", 201, TITLE),
    Endpoint("get", "GET", "/{}", 200),
    Endpoint("update", "PUT", "/{}", 200, b'{"title": "Buy bread"}'),
    Endpoint("toggle", "PATCH", "/{}/complete", 200),
    Endpoint("delete", "DELETE", "/{}", 204),
    Endpoint("batch", "POST", "/batch", 201, b"[" + TITLE + b"]"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(tokens.PUBLISHED) as provider:
        yield provider


def guarded(cwd: Path, database_url: str, **more: str) -> RunningService:
    settings = {
        "DATABASE_URL": database_url,
        "AUTH_MODE": "jwt",
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": tokens.AUDIENCE,
    }
    return RunningService(cwd, **settings | more)


@pytest.fixture(scope="module")
def by_jwks(provider: Provider, clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with guarded(tmp_path_factory.mktemp("jwks"), clone(), AUTH_JWKS_URL=provider.url) as running:
        wait_ready(running.url)
        with Client(running.url) as client:
            yield client


@pytest.fixture(scope="module")
def by_secret(clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with guarded(tmp_path_factory.mktemp("secret"), clone(), BETTER_AUTH_SECRET=tokens.SECRET) as running:
        wait_ready(running.url)
        with Client(running.url) as client:
            yield client


def tasks_of(user: str) -> str:
    return f"/api/{quote(user, safe='')}/tasks"


def with_headers(values: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """These Authorization headers."""
    return [("Authorization", value) for value in values]


def as_user(user: str) -> list[tuple[str, bytes]]:
    return with_headers([tokens.bearer(tokens.token(ED, tokens.claims(sub=user)))])


def new_task(client: Client, authorization: Headers, user: str) -> int:
    answer = client.send("POST", tasks_of(user), TITLE, authorization)
    assert answer.status == 201
    return answer.json()["id"]


def hold_to(case: Case, client: Client, any_good: Headers) -> None:
    """Asks every endpoint with the case's headers, and sees that what is refused has done nothing."""
    authorization = with_headers(case.make())
    if case.expected == GOOD:
        task_id = new_task(client, authorization, case.user)
        for endpoint in ENDPOINTS:
            answer = client.send(endpoint.method, endpoint.path(case.user, task_id), endpoint.body, authorization)
            assert answer.status == endpoint.status, endpoint.name
        return
    task_id = new_task(client, any_good, case.user)
    before = client.send("GET", tasks_of(case.user), headers=any_good).json()
    challenge = "Bearer" if case.expected == REQUIRED else 'Bearer error="invalid_token"'
    for endpoint in ENDPOINTS:
        answer = client.send(endpoint.method, endpoint.path(case.user, task_id), endpoint.body, authorization)
        assert (answer.status, answer.json()) == (401, {"error": case.expected}), endpoint.name
        assert answer.headers["www-authenticate"] == challenge, endpoint.name
        assert answer.headers["x-request-id"]
    assert client.send("GET", tasks_of(case.user), headers=any_good).json() == before


@pytest.mark.parametrize("case", [case for case in CASES if case.by_http], ids=lambda case: case.name)
def test_a_token_on_every_endpoint(case: Case, by_jwks: Client) -> None:
    hold_to(case, by_jwks, as_user(case.user))


@pytest.mark.parametrize("case", SECRET_CASES, ids=lambda case: case.name)
def test_a_token_on_every_endpoint_with_a_shared_secret(case: Case, by_secret: Client) -> None:
    hold_to(case, by_secret, with_headers([tokens.bearer(tokens.token(tokens.SHARED))]))


def same_for_all(answers: list[Response]) -> set[tuple[int, bytes, tuple[tuple[str, str], ...]]]:
    told_apart = ("x-request-id", "date")
    return {
        (
            answer.status,
            answer.body,
            tuple(sorted(item for item in answer.headers.items() if item[0] not in told_apart)),
        )
        for answer in answers
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_another_user_is_denied_whether_or_not_there_is_a_task(endpoint: Endpoint, by_jwks: Client) -> None:
    task_id = new_task(by_jwks, as_user("owner"), "owner")
    before = by_jwks.send("GET", tasks_of("owner"), headers=as_user("owner")).json()
    asked = [("owner", task_id), ("owner", MISSING), ("nobody", task_id), ("OWNER", task_id), ("owner ", task_id)]
    answers = [
        by_jwks.send(endpoint.method, endpoint.path(user, number), endpoint.body, as_user("intruder"))
        for user, number in asked
    ]
    assert {(answer.status, answer.json()["error"]) for answer in answers} == {(403, "Access denied")}
    assert len(same_for_all(answers)) == 1
    assert by_jwks.send("GET", tasks_of("owner"), headers=as_user("owner")).json() == before


def test_a_task_of_one_user_is_absent_for_another(by_jwks: Client) -> None:
    task_id = new_task(by_jwks, as_user("owner"), "owner")
    for endpoint in ENDPOINTS:
        if "{}" in endpoint.below:
            answers = [
                by_jwks.send(endpoint.method, endpoint.path("other", number), endpoint.body, as_user("other"))
                for number in (task_id, MISSING)
            ]
            assert {answer.status for answer in answers} == {404}
            assert len(same_for_all(answers)) == 1


ORDER = {
    "an unknown path": ("GET", "/api/owner/lists", {}, 404),
    "a method that is not there": ("PATCH", "/api/owner/tasks", {}, 405),
    "an invalid task ID": ("GET", "/api/owner/tasks/abc", {}, None),
    "a user ID that is no text": ("GET", "/api/%FF/tasks", {}, None),
    "an empty user ID": ("GET", "/api/%00/tasks", {}, None),
    "an invalid limit": ("GET", "/api/owner/tasks?limit=0", {}, None),
    "a body too large": ("POST", "/api/owner/tasks", {"Content-Length": "999999999"}, None),
    "a body that is no JSON": ("POST", "/api/owner/tasks", {"Content-Length": "9", "Content-Type": "text/plain"}, None),
    "a body that never comes": ("PUT", "/api/owner/tasks/1", {"Content-Length": "9"}, None),
    "a malformed If-Match": ("DELETE", "/api/owner/tasks/1", {"If-Match": "5"}, None),
    "a malformed Idempotency-Key": ("POST", "/api/owner/tasks", {"Idempotency-Key": "é"}, None),
}


@pytest.mark.parametrize(("method", "path", "headers", "first"), ORDER.values(), ids=ORDER)
def test_who_calls_is_asked_before_anything_else(
    method: str, path: str, headers: dict[str, str], first: int | None, by_jwks: Client
) -> None:
    """After the path and the method, and without waiting for a body."""

    def status(authorization: list[tuple[str, bytes]]) -> int:
        return by_jwks.send(method, path, headers=[*headers.items(), *authorization]).status

    assert status([]) == (first or 401)
    assert status(with_headers([tokens.bearer("x")])) == (first or 401)
    assert status(as_user("intruder")) == (first or 403)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_what_is_beside_the_tasks_needs_no_token(path: str, by_jwks: Client) -> None:
    assert by_jwks.send("GET", path).status == 200


def test_no_token_gets_into_a_log(provider: Provider, clone: Callable[[], str], tmp_path: Path) -> None:
    with guarded(tmp_path, clone(), AUTH_JWKS_URL=provider.url, LOG_LEVEL="debug") as running:
        wait_ready(running.url)
        with Client(running.url) as client:
            sent = [tokens.bearer(tokens.token(ED)), tokens.bearer(tokens.token(tokens.STRANGER, kid="made-up-key-id"))]
            for value in sent:
                client.send("GET", tasks_of(tokens.USER), headers=with_headers([value]))
    said = "\n".join(running.lines)
    assert "made-up-key-id" not in said
    for value in sent:
        assert not any(part in said for part in value.decode().removeprefix("Bearer ").split("."))
