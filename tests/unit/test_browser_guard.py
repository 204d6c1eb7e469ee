"""In mode none, no web page can write, and none whose name resolves to loopback can read."""

import pytest

from service.http.asgi import Headers
from service.http.browser_guard import browser_guard
from service.http.cors import CorsPolicy
from service.http.errors import ApiError
from service.settings import Secret, Settings


def accepted(method: str, headers: dict[str, str], **settings: str | tuple[str, ...]) -> bool:
    used = Settings(database_url=Secret("x"), cors_allow_origins=("https://app.example.com",), **settings)  # type: ignore[arg-type]
    sent: Headers = [(name.encode(), value.encode()) for name, value in headers.items()]
    try:
        browser_guard(used, CorsPolicy(used))(method, sent)
    except ApiError as error:
        assert (error.status, error.message) == (403, "Access denied")
        return False
    return True


HERE = "127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:8000"}, True),  # /docs
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://app.example.com", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example", "content-type": "application/json"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "evil://127.0.0.1:8000"}, False),
        ({"origin": "http://127.0.0.1:8000.evil.example"}, False),
        ({"origin": "https://evil.example", "x-forwarded-host": "tasks.example.com"}, False),
        ({"origin": "https://tasks.example.com", "x-forwarded-host": "tasks.example.com"}, True),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_write_from_another_origin_is_403(method: str, headers: dict[str, str], good: bool) -> None:
    assert accepted(method, {"host": HERE} | headers) is good
    assert accepted("GET", {"host": HERE} | headers)


@pytest.mark.parametrize(
    "pair",
    [
        [(b"origin", b"http://127.0.0.1:8000"), (b"origin", b"https://evil.example")],
        [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")],
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_each_of_two_headers_counts(pair: Headers, first: bool) -> None:
    used = Settings(database_url=Secret("x"))
    with pytest.raises(ApiError):
        browser_guard(used, None)("POST", [(b"host", HERE.encode()), *(pair if first else pair[::-1])])


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LocalHost.", True),
        ("tasks.localhost:8000", True),
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("tasks", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.0.1", False),
        ("[fd00::1]", False),
    ],
)
def test_on_loopback_only_loopback_names_are_hosts(host: str, good: bool) -> None:
    assert accepted("GET", {"host": host}) is good
    assert accepted("GET", {"host": host}, host="0.0.0.0")
    assert accepted("GET", {"host": host}, allowed_hosts=("*",))


def test_allowed_hosts_are_the_only_ones_with_loopback() -> None:
    for address in ("127.0.0.1", "0.0.0.0"):
        settings = {"allowed_hosts": ("tasks.example.com",), "host": address}
        assert accepted("GET", {"host": "Tasks.example.com:443"}, **settings)
        assert accepted("GET", {"host": "localhost"}, **settings)
        assert not accepted("GET", {"host": "other.example.com"}, **settings)


@pytest.mark.parametrize(
    ("allowed", "host", "good"),
    [
        ("tasks.example.com:8443", "tasks.example.com:8443", True),
        ("Tasks.example.com:8443", "tasks.Example.com:8443", True),
        ("tasks.example.com:8443", "tasks.example.com:8444", False),
        ("tasks.example.com:8443", "tasks.example.com", False),
        ("[2001:db8::1]", "[2001:db8::1]:80", True),
        ("[2001:db8::1]:80", "[2001:db8::1]:80", True),
        ("[2001:db8::1]:80", "[2001:db8::1]", False),
        ("[2001:db8::1]", "[2001:db8::2]", False),
    ],
)
def test_allowed_host_with_a_port_is_served_on_that_port_alone(allowed: str, host: str, good: bool) -> None:
    assert accepted("GET", {"host": host}, allowed_hosts=(allowed,)) is good
