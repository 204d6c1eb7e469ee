"""Behind a proxy that strips a prefix, and in mode none before web pages."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.http import exchange, request
from tests.support.processes import RunningService, wait_ready

PREFIX = "/some/prefix"


@pytest.fixture(scope="module")
def behind(clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    settings = {"DATABASE_URL": clone(), "AUTH_MODE": "none", "ROOT_PATH": PREFIX, "TRUSTED_PROXIES": "127.0.0.1"}
    with RunningService(tmp_path_factory.mktemp("behind"), **settings, LOG_LEVEL="debug") as running:
        wait_ready(running.url)
        yield running


@pytest.mark.parametrize("forwarded", [None, "/other"])
def test_links_carry_the_prefix_that_the_proxy_strips(behind: RunningService, forwarded: str | None) -> None:
    prefix = forwarded or PREFIX
    headers = {"X-Forwarded-Prefix": forwarded} if forwarded else {}
    tasks = "/api/somebody/tasks"

    def sent(method: str, path: str, body: bytes = b"") -> dict[str, str]:
        reply = exchange(behind.url, request(method, path, body, headers=headers))
        assert reply.status in (200, 201, 307)
        return reply.headers

    location = sent("POST", tasks, b'{"title":"x"}')["location"]
    assert location.startswith(prefix + tasks + "/")
    sent("GET", location.removeprefix(prefix))
    sent("POST", tasks, b'{"title":"y"}')
    assert sent("GET", tasks + "?limit=1")["link"].startswith(f"<{prefix}{tasks}?limit=1&after=")
    assert sent("GET", "/")["location"] == f"{prefix}/docs"


@pytest.mark.parametrize("forwarded", [None, "/other"])
def test_the_description_names_the_prefix_for_clients_that_are_made_from_it(
    behind: RunningService, forwarded: str | None
) -> None:
    headers = {"X-Forwarded-Prefix": forwarded} if forwarded else {}
    described = exchange(behind.url, request("GET", "/openapi.json", headers=headers)).json()
    assert described["servers"] == [{"url": forwarded or PREFIX}]


def test_the_docs_page_has_relative_links(behind: RunningService) -> None:
    page = exchange(behind.url, request("GET", "/docs")).body.decode()
    assert 'src="/' not in page
    assert 'href="/' not in page


def test_a_web_page_cannot_create_a_task(behind: RunningService) -> None:
    """What fetch(…, {method: "POST", mode: "no-cors", body: new Blob([…])}) sends: no Content-Type, no preflight."""
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for extra in ({}, {"Content-Type": "text/plain"}):
        reply = exchange(behind.url, request("POST", "/api/u/tasks", b'{"title":"x"}', headers=headers | extra))
        assert (reply.status, reply.json()) == (403, {"error": "Access denied"})


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/u/tasks", 403),
        ("/", 403),
        ("/docs", 403),
        ("/openapi.json", 403),
        ("/metrics", 403),
        ("/nowhere", 403),
        ("/livez", 200),  # a balancer's probes have any Host
        ("/readyz", 200),
    ],
)
def test_a_page_whose_name_is_made_to_resolve_to_loopback_gets_nothing(
    behind: RunningService, path: str, status: int
) -> None:
    reply = exchange(behind.url, request("GET", path, headers={"Host": "evil.example:8000"}))
    assert reply.status == status
