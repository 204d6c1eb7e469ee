"""X-Forwarded-*: believed from a trusted proxy, and from nobody else."""

from typing import Any

import pytest

from service.http.forwarded import trusting
from service.http.request_record import record_of
from service.settings import SettingsError, load

PROXIES = ("10.0.0.1", "10.1.0.0/16")


async def seen(
    client: tuple[str, int] | None, proxies: tuple[str, ...] = PROXIES, /, **headers: str
) -> tuple[Any, str, str]:
    """The client, the scheme and the prefix that the application sees."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "scheme": "http", "client": client, "headers": sent}
    await trusting(app, proxies)(scope, None, None)
    return scopes[0]["client"] and scopes[0]["client"][0], scopes[0]["scheme"], record_of(scopes[0]).prefix


ALL = {"x_forwarded_for": "192.0.2.7", "x_forwarded_proto": "https", "x_forwarded_prefix": "/tasks"}


@pytest.mark.parametrize("peer", [("10.0.0.1", 1), ("10.1.2.3", 1)])
async def test_a_trusted_proxy_is_believed(peer: tuple[str, int]) -> None:
    assert await seen(peer, **ALL) == ("192.0.2.7", "https", "/tasks")


@pytest.mark.parametrize("peer", [("192.0.2.1", 1), None])
async def test_with_a_star_whoever_connects_is_believed(peer: tuple[str, int] | None) -> None:
    assert await seen(peer, ("*",), **ALL) == ("192.0.2.7", "https", "/tasks")


@pytest.mark.parametrize("peer", [("10.0.0.2", 1), ("192.0.2.1", 1), ("::1", 1), ("testclient", 1)])
async def test_anybody_else_is_not(peer: tuple[str, int]) -> None:
    assert await seen(peer, **ALL) == (peer[0], "http", "")


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7", "192.0.2.7"),  # what is left of it, the client may have made up
        ("198.51.100.1, 192.0.2.7, 10.1.0.9", "192.0.2.7"),
        ("10.1.0.8, 10.1.0.9", "10.1.0.8"),
        ("", "10.0.0.1"),
    ],
)
async def test_the_client_is_the_last_hop_that_is_not_trusted(hops: str, client: str) -> None:
    assert (await seen(("10.0.0.1", 1), x_forwarded_for=hops))[0] == client


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "tasks", "/a//b", "/a b", "/a\r\nX: y", "/", "https://evil.example"]
)
async def test_a_prefix_that_is_no_path_is_ignored(prefix: str) -> None:
    assert (await seen(("10.0.0.1", 1), x_forwarded_prefix=prefix))[2] == ""


@pytest.mark.parametrize(
    "text", ["nonsense", "10.0.0.300", "10.0.0.1/33", "proxy.example.com", "10.0.0.1/8", "*, 10.0.0.1"]
)
def test_nonsense_in_trusted_proxies_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        load({"TRUSTED_PROXIES": text}, dotenv=None)
