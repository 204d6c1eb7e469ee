"""CORS_ALLOW_ORIGINS: what is an origin, and what is written in its place."""

import pytest

from service.http.cors import CorsPolicy
from service.settings import Secret, Settings, SettingsError, load
from service.settings.origins import origin_problem

GOOD = [
    "*",
    "https://app.example.com",
    "http://localhost:3000",
    "http://127.0.0.1:8080",
    "http://[::1]:3000",
    "https://*.example.com",
    "https://*.example.com:8443",
    "https://app.*.example.com",
    "capacitor://localhost",
    "chrome-extension://abcdefghijklmnop",
    "https://xn--bcher-kva.example",
]
MENDED = {
    "https://app.example.com/": "https://app.example.com",
    "https://App.Example.com": "https://app.example.com",
    "HTTPS://app.example.com": "https://app.example.com",
    "https://app.example.com/path?x#y": "https://app.example.com",
    "https://app.example.com:443": "https://app.example.com",
    "http://app.example.com:80/": "http://app.example.com",
    "http://app.example.com:08080": "http://app.example.com:8080",
    "app.example.com": "https://app.example.com",
    "localhost:3000": "https://localhost:3000",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://user:word@app.example.com": "scheme://host",
}
BAD = [
    "null",
    "NULL",
    "https://*",
    "http*",
    "*.com",
    "https://*.com",
    "https://*.*.example.com",
    "https://app-*.example.com",
    "https://**.example.com",
    "https://example.*",
    "https://app.example.*",
    "*://app.example.com",
    "https://*:8443",
    "https://",
    "://app.example.com",
    "https:app.example.com",
    "https://a b.example.com",
    "https://app..example.com",
    "https://app.example.com;https://b.example.com",
    "'https://app.example.com'",
]


@pytest.mark.parametrize("text", ["https://*", "http://*:8443"])
def test_a_star_for_any_host_is_told_what_allows_any_origin(text: str) -> None:
    assert origin_problem(text) == "is not an origin: `*` alone allows any origin"


@pytest.mark.parametrize("text", GOOD)
def test_origin_is_accepted(text: str) -> None:
    assert origin_problem(text) is None


@pytest.mark.parametrize("text", MENDED)
def test_near_miss_stops_the_start_with_the_mended_form(text: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ALLOW_ORIGINS") as caught:
        load({"CORS_ALLOW_ORIGINS": text}, dotenv=None)
    assert f"write {MENDED[text]}" in str(caught.value)
    if MENDED[text] != "scheme://host":
        assert origin_problem(MENDED[text]) is None


@pytest.mark.parametrize("text", BAD)
def test_what_would_allow_too_much_or_nothing_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="CORS_ALLOW_ORIGINS"):
        load({"CORS_ALLOW_ORIGINS": text}, dotenv=None)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.com", True),
        ("https://a-1.example.com", True),
        ("https://example.com", False),
        ("https://a.b.example.com", False),
        ("https://a.example.com.evil.example", False),
        ("https://a.example.com:8443", False),
        ("http://a.example.com", False),
        ("https://evil.example/.example.com", False),
        ("https://evil.example?.example.com", False),
        ("https://aXexample.com", False),
        ("https://.example.com", False),
        ("null", False),
    ],
)
def test_wildcard_stands_for_one_label(origin: str, allowed: bool) -> None:
    policy = CorsPolicy(Settings(database_url=Secret("x"), cors_allow_origins=("https://*.example.com",)))
    assert policy.is_allowed(origin.encode()) is allowed
