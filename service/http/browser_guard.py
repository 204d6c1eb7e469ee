"""Rejects requests of web pages to a service that takes the user from the path (AUTH_MODE=none).

Without a token to prove the caller, any page that a user opens could write: browsers send simple requests across
origins without asking, a body without Content-Type among them. And a page whose host name is made to resolve to
loopback (DNS rebinding) is of the same origin as the service.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from service.http import errors
from service.http.asgi import ASGIApp, Headers
from service.http.cors import CorsPolicy
from service.http.error_handler import error_response
from service.http.errors import ApiError
from service.http.operator_paths import PROBES, is_for_operators
from service.http.request_record import record_of
from service.settings import LOOPBACK, Settings

Guard = Callable[[str, Headers], None]

_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
_SCHEMES = (b"http://", b"https://")  # of a page that this service has sent
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def browser_guard(settings: Settings, cors: CorsPolicy | None) -> Guard:
    """A check of (method, headers). Raises ApiError (403) for a write from an origin that is neither the service's nor
    allowed, and for a Host that is not the service's."""
    hosts = frozenset(name.lower() for name in settings.allowed_hosts)
    any_host = "*" in hosts or (not settings.on_loopback and not hosts)

    def check(method: str, headers: Headers) -> None:
        if not any_host:
            for name, value in headers:
                if name == b"host" and value and not _is_served(value, hosts):
                    raise errors.access_denied()
        if method in _READS:
            return
        cross_site = False
        origins: list[bytes] = []
        hosts_sent: list[bytes] = []
        for name, value in headers:
            if name in (b"host", b"x-forwarded-host"):  # a page cannot send the latter without a preflight
                hosts_sent.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"sec-fetch-site":
                cross_site = cross_site or value == b"cross-site"  # of two, one
        for origin in origins:
            if not (
                (not cross_site and origin.startswith(_SCHEMES) and origin.partition(b"://")[2] in hosts_sent)
                or (cors is not None and cors.is_allowed(origin))
            ):
                raise errors.access_denied()
        if cross_site and not origins:
            raise errors.access_denied()

    return check


def guarding(app: ASGIApp, guard: Guard, *, admin_port: int | None) -> ASGIApp:
    """ASGI: `app`, which serves other paths than tasks, with a 403 in its stead where `guard` rejects the request.

    The guard is not asked about probes, with which a balancer sends any Host, nor about what is on ADMIN_PORT, which
    need not be on loopback.
    """
    is_open = is_for_operators if admin_port else PROBES.__contains__

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not is_open(scope["path"]):
            try:
                guard(scope["method"], scope["headers"])
            except ApiError as error:
                await error_response(error, record_of(scope))(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


@lru_cache(256)  # clients send the same few; to parse one costs 1.5 µs
def _is_served(host: bytes, hosts: frozenset[str]) -> bool:
    """`hosts`: names, each for every port, or names with a port."""
    sent = host.decode("latin-1").lower()
    try:
        name = (urlsplit("//" + sent).hostname or "").rstrip(".")
    except ValueError:
        return False
    if {sent, name, f"[{name}]"} & hosts or name in LOOPBACK:
        return True
    if name.endswith(".localhost") or _LOOPBACK.fullmatch(name):
        return True
    return "." not in name and ":" not in name  # no name of the public DNS, so not in an attacker's hand
