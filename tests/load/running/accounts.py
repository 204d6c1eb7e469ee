"""Whose tasks a run uses, and the tasks that it makes: their titles carry the run's id, and only those are deleted."""

import base64
import binascii
import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from tests.load.generator.engine import Engine
from tests.load.generator.job import Job, Tick
from tests.load.workload import Account, Workload, head

BATCH = 1000
PAGE = 1000
PASSES = 5  # of listing and deleting, before what is left is reported
PAUSE_S = 1.0
MIN_TIMEOUT_S = 10.0  # a batch may take longer than the --timeout that a request under load is given
STALLED_S = 15  # without a task deleted: the rest is left
DELETERS = 8
TRIES = 5  # of a request that is answered with 429 or 503
NO_SUCH_ENDPOINT = (404, 405, 501)
NO_BATCH = (400, 415, 422, *NO_SUCH_ENDPOINT)  # `batch` may be read as a task's id


class ServiceError(Exception):
    """The service cannot be used for a run. The text says why, in one sentence."""


def user_of(token: str) -> str:
    """The user that a JWT names; whether it holds is for the service to say. Raises ValueError for what is no JWT, or
    one without `sub`.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("the token is not a JWT: --user says whose it is")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        raise ValueError("the token looks like a JWT, but its claims cannot be read") from None
    user = claims.get("sub") if isinstance(claims, dict) else None
    if not isinstance(user, str) or not user:
        raise ValueError("the token has no `sub`: --user says whose it is")
    return user


def read_tokens(file: Path) -> list[Account]:
    """One account a line: a JWT, or a user and a token with a space between. A line that begins with # is a comment.
    Raises ValueError, which never quotes a token.
    """
    accounts: list[Account] = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts or line.lstrip().startswith("#"):
            continue
        if len(parts) > 2:
            raise ValueError(f"{file}, line {number}: expected a JWT, or a user and a token")
        try:
            user = parts[0] if len(parts) == 2 else user_of(parts[0])
        except ValueError:
            raise ValueError(f"{file}, line {number}: not a JWT with `sub`, and no user before the token") from None
        accounts.append(Account(user, check_token(parts[-1], f"{file}, line {number}")))
    if not accounts:
        raise ValueError(f"{file} has no tokens")
    if len({account.user for account in accounts}) < len(accounts):
        raise ValueError(f"{file} names a user twice")
    return accounts


def check_token(token: str, where: str) -> str:
    """The token, where it can be sent in a header. Raises ValueError."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{where}: the token holds characters that no header can carry")
    return token


class Tasks:
    """The tasks of a run. `made`: some were. `in_doubt`: one may have been, a POST having had no response. Raises
    ServiceError for a response that is no success, and for none.
    """

    made = in_doubt = False

    def __init__(
        self, url: str, workload: Workload, *, insecure: bool, timeout: float, say: Callable[[str], None]
    ) -> None:
        self._url = url
        self._workload = workload
        self._insecure = insecure
        self._say = say
        secure = urlsplit(url).scheme == "https"
        # From OpenSSL's own places and SSL_CERT_FILE; without the environment's proxies, which the generator has not.
        verify = ssl.create_default_context() if secure and not insecure else False
        self._client = httpx.Client(verify=verify, trust_env=False, timeout=max(timeout, MIN_TIMEOUT_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    _stalled = False

    def check(self) -> None:
        """Makes a task and deletes it, so that a service that cannot be used, or not left as it was, is told before
        anything else is made.
        """
        account = self._workload.accounts[0]
        [task_id] = self._make(account, 1, batch=False)
        try:
            self._request("DELETE", account, f"/{task_id}")
        except ServiceError as error:
            raise ServiceError(
                f"{error}. So the service cannot be left as it was (one task of {account.user} is left: "
                f"{self._workload.title}). --keep says that tasks may stay"
            ) from None

    def make(self, count: int) -> None:
        """`count` tasks for each account, whose ids it gets."""
        for number, account in enumerate(self._workload.accounts, 1):
            account.ids = self._make(account, count, batch=True)
            if number % 100 == 0:
                self._say(f"{number:,} of {len(self._workload.accounts):,} accounts have their tasks")

    def _make(self, account: Account, count: int, *, batch: bool) -> list[int]:
        new = [
            {"title": f"{self._workload.title} {number}", "description": "Before noon, please"}
            for number in range(count)
        ]
        ids: list[int] = []
        while batch and len(ids) < count:
            made = self._request("POST", account, "/batch", new[len(ids) : len(ids) + BATCH], NO_BATCH)
            if not made.is_success:
                break
            ids += [task["id"] for task in _decoded(made, list)]
        for task in new[len(ids) :]:
            ids.append(_decoded(self._request("POST", account, "", task), dict)["id"])
        return ids

    def left(self, account: Account) -> Iterator[int]:
        """Ids of the run's tasks that are there. Reads to the last page: on Citus ids need not be in the order of
        creation.
        """
        after = ""
        while True:
            page = _decoded(self._request("GET", account, f"?limit={PAGE}{after}"), list)
            yield from (task["id"] for task in page if str(task["title"]).startswith(self._workload.title + " "))
            if len(page) < PAGE:
                return
            after = f"&after={page[-1]['id']}"

    def delete(self, *, in_doubt: bool) -> tuple[int, int]:
        """Deletes what the run has made, and returns how many tasks that were and how many are left. `in_doubt`:
        there were requests without a response, which the service may still be working on.
        """
        deleted = 0
        for turn in range(PASSES):
            if turn or in_doubt:
                time.sleep(PAUSE_S)
            found = [(account, list(self.left(account))) for account in self._workload.accounts]
            count = sum(len(ids) for _, ids in found)
            if not count and not (in_doubt and turn == 0):
                return deleted, 0
            if count > BATCH:
                self._say(f"{count:,} tasks are to be deleted")
            gone = self._delete(found)
            deleted += gone
            if self._stalled:
                break
        return deleted, sum(len(list(self.left(account))) for account in self._workload.accounts)

    def _delete(self, found: Iterable[tuple[Account, list[int]]]) -> int:
        """By the generator's engine: tens of times as fast as httpx."""
        url = urlsplit(self._url)
        requests = iter(
            [
                f"DELETE {url.path}/api/{quote(account.user, safe='')}/tasks/{task_id} HTTP/1.1\r\n"
                f"{head(url, account.token, self._workload.headers)}\r\n".encode("latin-1")
                for account, ids in found
                for task_id in ids
            ]
        )

        def make() -> tuple[str, bytes] | None:
            request = next(requests, None)
            return None if request is None else ("delete", request)

        job = Job(self._url, {}, self._workload, 3600, connections=DELETERS, insecure=self._insecure, grace=10)
        idle_s = 0
        self._stalled = False

        def tick(second: Tick) -> None:
            nonlocal idle_s
            idle_s = 0 if second.requests > second.errors else idle_s + 1
            if idle_s >= STALLED_S:
                self._stalled = True
                engine.stop()

        engine = Engine(job, make, tick)
        outcomes = engine.run().outcomes
        return sum(count for outcome, count in outcomes.items() if outcome in ("200", "202", "204"))

    def _request(
        self, method: str, account: Account, path: str, body: object = None, expected: tuple[int, ...] = ()
    ) -> httpx.Response:
        url = f"{self._url}/api/{quote(account.user, safe='')}/tasks{path}"
        headers = {"Authorization": f"Bearer {account.token}"} if account.token else {}
        headers |= {"Accept": "application/json"} | self._workload.headers
        turn = 1
        while True:
            creates = method == "POST" and not self.made
            self.in_doubt |= creates
            try:
                response = self._client.request(method, url, json=body, headers=headers)
            except httpx.HTTPError as error:
                if creates and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    self.in_doubt = False
                raise ServiceError(f"{method} {url}: {self._reason(error)}") from None
            if creates:
                self.made, self.in_doubt = response.is_success, False
            if response.is_success or response.status_code in expected:
                return response
            if response.status_code not in (429, 503) or turn == TRIES:
                break
            turn += 1
            time.sleep(PAUSE_S)
        text = " ".join(response.text.split())[:200]
        said = f"{method} {url} is answered with {response.status_code}" + (f": {text}" if text else "")
        raise ServiceError(said + self._hint(response))

    def _reason(self, error: httpx.HTTPError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"no response within {self._client.timeout.read:g} s"
        text = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return f"{text}. --insecure does not check certificates"
        if "[SSL" in text:
            return f"{text}. Is this http, not https?"
        if isinstance(error, httpx.RemoteProtocolError):
            return f"{text}. Is this https, or another protocol?"
        return text

    def _hint(self, response: httpx.Response) -> str:
        """What to do about a response that is no success."""
        if response.has_redirect_location:
            return f" to {response.headers['Location']}. Redirects are not followed: --url has to be the final URL"
        if response.status_code in (401, 403):
            return " (--token, LOAD_TOKEN or --tokens prove who you are)"
        if response.status_code == 404 and "/api" in urlsplit(self._url).path:
            return ". --url is what comes before /api"
        return ""


def _decoded(response: httpx.Response, kind: type[Any]) -> Any:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ServiceError(f"{response.request.method} {response.url} is not answered as by a task service")
    return value
