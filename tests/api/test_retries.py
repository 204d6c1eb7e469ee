"""A network that loses requests and answers: who retries with a key has everything done, and nothing twice."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
import urllib3

from tests.support.http import exchange, request
from tests.support.lossy_network import Fault, Proxy, cut, delay, eat, lose
from tests.support.processes import RunningService

SAME = {"title": "Buy milk"}
THREE = [{"title": "Buy milk"}, {"title": "Buy bread"}, {"title": "Call home"}]


@pytest.mark.parametrize(("suffix", "body", "count"), [("", SAME, 1), ("/batch", THREE, 3)], ids=["create", "batch"])
def test_an_answer_that_was_lost_is_given_to_the_retry(
    service: RunningService, client: httpx.Client, tasks: str, suffix: str, body: Any, count: int
) -> None:
    sent = request("POST", tasks + suffix, json.dumps(body).encode(), {"Idempotency-Key": "k"})
    with Proxy(service.url, lambda: eat) as proxy, pytest.raises(ConnectionError):
        exchange(proxy.url, sent)
    (lost,) = proxy.answers
    made = client.get(tasks).json()
    assert len(made) == count
    reply = exchange(service.url, sent)
    assert (reply.status, reply.headers["idempotency-replayed"]) == (201, "true")
    assert lost.endswith(b"\r\n\r\n" + reply.body)
    assert f"location: {reply.headers['location']}\r\n".encode() in lost if count == 1 else b"location" not in lost
    assert client.get(tasks).json() == made


@pytest.mark.parametrize(
    ("method", "suffix", "body"),
    [("PUT", "", {"title": "Buy bread"}), ("PATCH", "/complete", {"completed": True})],
    ids=["update", "set"],
)
def test_a_set_whose_answer_was_lost_can_be_sent_again(
    service: RunningService, client: httpx.Client, tasks: str, method: str, suffix: str, body: Any
) -> None:
    path = client.post(tasks, json=SAME).headers["location"]
    sent = request(method, path + suffix, json.dumps(body).encode())
    with Proxy(service.url, lambda: eat) as proxy, pytest.raises(ConnectionError):
        exchange(proxy.url, sent)
    reply = exchange(service.url, sent)
    assert (reply.status, reply.headers["etag"]) == (200, '"2"')
    assert proxy.answers[0].endswith(b"\r\n\r\n" + reply.body)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_stock_client_with_retries_creates_everything_once(
    service: RunningService, client: httpx.Client, tasks: str, count: int
) -> None:
    """Every fourth request meets a fault, and so do the retries."""
    chance = random.Random(1)
    retries = urllib3.Retry(total=30, allowed_methods={"POST"}, backoff_factor=0)

    def choose() -> Fault | None:
        return chance.choice([lose, eat, cut, delay]) if chance.random() < 0.25 else None

    def create(n: int) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        answer = pool.request("POST", tasks, json={"title": str(n)}, headers=headers)
        assert answer.status == 201
        return answer.json()

    with Proxy(service.url, choose) as proxy:
        timeout = urllib3.Timeout(connect=10, read=0.3)  # what a delayed request costs
        with (
            urllib3.connection_from_url(proxy.url, maxsize=8, block=True, retries=retries, timeout=timeout) as pool,
            ThreadPoolExecutor(8) as threads,
        ):
            made = list(threads.map(create, range(count)))
    assert [task["title"] for task in made] == [str(n) for n in range(count)]
    assert client.get(tasks).json() == sorted(made, key=lambda task: task["id"], reverse=True)
    assert len(made) == len({task["id"] for task in made}) == count
    # There was something to get wrong.
    assert min(proxy.faults[fault.__name__] for fault in (lose, eat, cut, delay)) > count / 50
    assert sum(b"\r\nidempotency-replayed: true\r\n" in answer for answer in proxy.answers) > count / 10
