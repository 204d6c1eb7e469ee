"""A client that retries what is safe to retry. Needs httpx."""

import random
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx

Task = dict[str, Any]

RETRIED = {408, 429, 502, 503, 504}
TRIES = 6
TIMEOUT_S = 15  # of one try; above the service's REQUEST_DEADLINE_MS
LONGEST_WAIT_S = 30


class Retries(httpx.HTTPTransport):
    """Where a second try could make a second change, it retries only a 429, and raises when a response is lost."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        safe = is_safe_to_retry(request)
        for attempt in count(1):
            wait_s = 0.0
            try:
                response = super().handle_request(request)
                response.read()  # here, since a connection can also be lost within the body
                wait_s = retry_after_s(response)
                again = response.status_code in RETRIED and (safe or response.status_code == 429)
                if not again or attempt == TRIES or wait_s > LONGEST_WAIT_S:
                    return response
            except httpx.TransportError:
                if not safe or attempt == TRIES:
                    raise
            time.sleep(wait_s + random.random() * 0.05 * 2**attempt)
        raise AssertionError("unreachable")


def is_safe_to_retry(request: httpx.Request) -> bool:
    if request.method == "POST":
        return "Idempotency-Key" in request.headers
    return request.method != "PATCH" or request.content != b""  # without a body it flips


def retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "0")
    if value.isdecimal():
        return float(value)
    try:  # a proxy's date
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


class Token(httpx.Auth):
    """Calls `token` for each request, because tokens expire."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token()}"
        yield request


def task_client(base_url: str, token: Callable[[], str] | None = None) -> httpx.Client:
    """Make one and share it: it keeps connections open."""
    auth = Token(token) if token else None
    return httpx.Client(base_url=base_url, auth=auth, transport=Retries(), timeout=TIMEOUT_S)


def tasks_url(user_id: str) -> str:
    return f"/api/{quote(user_id, safe='')}/tasks"


def create_task(client: httpx.Client, user_id: str, task: dict[str, Any], key: str) -> Task:
    """Creates one task for each key. If this raises, the task may exist: call it again with the same key."""
    return one(client.post(tasks_url(user_id), json=task, headers={"Idempotency-Key": key}))


def update_task(client: httpx.Client, task: Task, change: Callable[[Task], dict[str, Any]]) -> Task:
    """Updates a task, and overwrites nothing: if others changed it, `change` decides again from what it is now.

    That can be after this update was applied, if its response was lost and another change followed: let `change` set
    values, not count up.
    """
    url = f"{tasks_url(task['user_id'])}/{task['id']}"
    while True:
        sent = dict(change(task))
        if "title" in sent:
            sent["title"] = sent["title"].strip()  # as the service does
        response = client.put(url, json=sent, headers={"If-Match": f'"{task["version"]}"'})
        if response.status_code != 412:
            return one(response)
        next_version = task["version"] + 1
        task = one(client.get(url))
        # This update may have been applied and its response lost: then its retry is the one that got 412.
        if task["version"] == next_version and all(task[name] == value for name, value in sent.items()):
            return task


def poll(client: httpx.Client, user_id: str, limit: int = 50) -> Callable[[], list[Task] | None]:
    """A function that gets the newest tasks, or None if nothing has changed since its last call."""
    known: dict[str, str] = {}

    def changed() -> list[Task] | None:
        response = client.get(tasks_url(user_id), params={"limit": limit}, headers=known)
        if response.status_code == 304:
            return None
        tasks = many(response)
        known["If-None-Match"] = response.headers["ETag"]
        return tasks

    return changed


def all_tasks(client: httpx.Client, user_id: str, limit: int = 500) -> Iterator[Task]:
    """All tasks, newest first, page by page."""
    url: httpx.URL | None = httpx.URL(tasks_url(user_id), params={"limit": limit})
    while url is not None:
        response = client.get(url)
        yield from many(response)
        link = response.links.get("next")
        url = response.url.join(link["url"]) if link else None


def one(response: httpx.Response) -> Task:
    """Raises httpx.HTTPStatusError, whose `response` has the service's sentence or a proxy's page."""
    task: Task = response.raise_for_status().json()
    return task


def many(response: httpx.Response) -> list[Task]:
    """Raises as `one`."""
    tasks: list[Task] = response.raise_for_status().json()
    return tasks
