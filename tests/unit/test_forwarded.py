"""X-Forwarded-*: taken from a trusted proxy, and from no other client."""

from typing import Any

import pytest

from service.http.forwarded import trusting
from service.http.request_record import record_of
from service.settings import SettingsError, load

PROXIES = ("10.0.0.1", "10.1.0.0/16")


async def seen(
    client: tuple[str, int] | None, proxies: tuple[str, ...] = PROXIES, /, **headers: str
) -> tuple[Any, str]:
    """The client and the prefix that the application sees."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)

    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "client": client, "headers": sent}
    await trusting(app, proxies)(scope, None, None)
    return scopes[0]["client"] and scopes[0]["client"][0], record_of(scopes[0]).prefix


ALL = {"x_forwarded_for": "192.0.2.7", "x_forwarded_prefix": "/tasks"}


@pytest.mark.parametrize("peer", [("10.0.0.1", 1), ("10.1.2.3", 1), ("::ffff:10.1.2.3", 1)])
async def test_a_trusted_proxy_sets_the_client_and_the_prefix(peer: tuple[str, int]) -> None:
    assert await seen(peer, **ALL) == ("192.0.2.7", "/tasks")


@pytest.mark.parametrize("peer", [("192.0.2.1", 1), None])
async def test_with_a_star_every_peer_sets_them(peer: tuple[str, int] | None) -> None:
    assert await seen(peer, ("*",), **ALL) == ("192.0.2.7", "/tasks")


@pytest.mark.parametrize(
    "peer", [("10.0.0.2", 1), ("192.0.2.1", 1), ("::1", 1), ("::ffff:10.0.0.2", 1), ("testclient", 1)]
)
async def test_another_peer_does_not(peer: tuple[str, int]) -> None:
    assert await seen(peer, **ALL) == (peer[0], "")


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7", "192.0.2.7"),  # what is left of it, the client may have made up
        ("198.51.100.1, 192.0.2.7, 10.1.0.9", "192.0.2.7"),
        ("10.1.0.8, 10.1.0.9", "10.1.0.8"),
        ("", "10.0.0.1"),
        # Some proxies add the port.
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:db8:0::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7, 10.1.0.9:4711", "192.0.2.7"),
        ("198.51.100.1, 192.0.2.7, ::ffff:10.1.0.9", "192.0.2.7"),
        # What is no address ends the list.
        ("unknown", "10.0.0.1"),
        ("198.51.100.1, _hidden, 10.1.0.9", "10.1.0.9"),
        ("198.51.100.1, 192.0.2.7 x", "10.0.0.1"),
        ("198.51.100.1, " + "9" * 20_000, "10.0.0.1"),
        ("198.51.100.1, 300.0.0.1", "10.0.0.1"),
        ("198.51.100.1," + "10.1.0.9," * 3_000 + "10.1.0.8", "10.1.0.9"),
    ],
)
async def test_the_client_is_the_last_hop_that_is_not_trusted(hops: str, client: str) -> None:
    assert (await seen(("10.0.0.1", 1), x_forwarded_for=hops))[0] == client


@pytest.mark.parametrize(
    "prefix",
    ["//evil.example", "tasks", "/a//b", "/a b", "/a\r\nX: y", "/", "https://evil.example", "/..", "/a/./b", "/a,/b"],
)
async def test_a_prefix_that_is_no_path_is_ignored(prefix: str) -> None:
    assert (await seen(("10.0.0.1", 1), x_forwarded_prefix=prefix))[1] == ""


async def test_a_network_of_mapped_addresses_is_that_of_ipv4() -> None:
    assert await seen(("10.1.2.3", 1), ("::ffff:10.1.0.0/112",), **ALL) == ("192.0.2.7", "/tasks")


@pytest.mark.parametrize(
    "text", ["nonsense", "10.0.0.300", "10.0.0.1/33", "proxy.example.com", "10.0.0.1/8", "*, 10.0.0.1"]
)
def test_nonsense_in_trusted_proxies_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        load({"TRUSTED_PROXIES": text}, dotenv=None)
