"""Which values and combinations are unsafe or cannot work, in one sentence each that says what to write instead."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from service.settings.fields import LOOPBACK, PREFIX, UNIX, Settings
from service.settings.origins import origin_problem


def unsafe(settings: Settings, environ: Mapping[str, str], *, serves: bool, wrong: Iterable[str]) -> list[str]:
    """What cannot be used together, or not at all. A setting in `wrong` has been named already."""
    problems = [*(_authentication(settings, wrong) if serves else ()), *_addresses(settings)]
    if (
        "AUTH_JWT_SECRET" in environ
        and environ.get("BETTER_AUTH_SECRET", environ["AUTH_JWT_SECRET"]) != (environ["AUTH_JWT_SECRET"])
    ):
        problems.append("AUTH_JWT_SECRET and BETTER_AUTH_SECRET differ: set one of them")
    problems += [
        f"CORS_ALLOW_ORIGINS: {origin!r} {reason}"
        for origin in settings.cors_allow_origins
        if (reason := origin_problem(origin)) is not None
    ]
    if "*" in settings.cors_allow_origins and settings.cors_allow_credentials:
        problems.append("CORS_ALLOW_ORIGINS=* cannot be used together with CORS_ALLOW_CREDENTIALS=true")
    if settings.statement_timeout_ms > settings.request_deadline_ms:
        problems.append("STATEMENT_TIMEOUT_MS must not exceed REQUEST_DEADLINE_MS")
    return problems


def _authentication(settings: Settings, wrong: Iterable[str]) -> list[str]:
    problems: list[str] = []
    secret, jwks = settings.auth_jwt_secret, settings.auth_jwks_url
    at_home = settings.embedded and settings.on_loopback and secret is None and jwks is None
    if settings.auth_mode is None and "AUTH_MODE" not in wrong and not at_home:
        problems.append(
            "AUTH_MODE must be set when DATABASE_URL, AUTH_JWT_SECRET or AUTH_JWKS_URL is set or HOST is not loopback: "
            "jwt, or none if a gateway in front checks who is calling"
        )
    if settings.auth_mode == "none":
        given = [name for name in ("auth_jwt_secret", "auth_jwks_url") if getattr(settings, name) is not None]
        problems += [f"AUTH_MODE=none checks no token: remove {name.upper()}, or set AUTH_MODE=jwt" for name in given]
    if settings.auth_mode == "jwt":
        if secret is None and jwks is None:
            problems.append("AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL")
        if secret is not None and jwks is not None:
            problems.append("AUTH_JWT_SECRET and AUTH_JWKS_URL cannot be used together: choose one")
        if secret is not None and len(secret.reveal().encode()) < 32:
            problems.append("AUTH_JWT_SECRET must be at least 32 bytes")
        if jwks is not None and not _fetchable(jwks):
            problems.append("AUTH_JWKS_URL must be https, or http on loopback")
    return problems


def _addresses(settings: Settings) -> list[str]:
    """What is wrong with the settings of addresses: those to listen on, and those of clients and proxies."""
    problems: list[str] = []
    if settings.admin_port and settings.admin_port == settings.port and not settings.host.startswith(UNIX):
        problems.append("ADMIN_PORT must be another port than PORT")
    if settings.admin_host is not None and not settings.admin_port:
        problems.append("ADMIN_HOST is of no use without ADMIN_PORT")
    if settings.admin_host is not None and settings.admin_host.startswith(UNIX):
        problems.append("ADMIN_HOST must be an address: ADMIN_PORT is no unix socket")
    if settings.host.startswith(UNIX) and not settings.host.removeprefix(UNIX).startswith("/"):
        problems.append("HOST=unix: must name a file by its absolute path, as in unix:/run/tasks.sock")
    for name, host in (("HOST", settings.host), ("ADMIN_HOST", settings.admin_host or "")):
        if host == "*":
            problems.append(f"{name}=* is not an address: write 0.0.0.0 or ::")
        elif not host.startswith(UNIX) and ("/" in host or "[" in host or re.fullmatch(r"[^:]*:[0-9]*", host)):
            port = name.replace("HOST", "PORT")
            problems.append(
                f"{name} must be an address or a name alone, without http://, [] and port: the port is {port}"
            )
    problems += [
        f"ALLOWED_HOSTS: {host!r} is not what a Host header has: write a name or name:port"
        for host in settings.allowed_hosts
        if host != "*" and not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]+)?", host)
    ]
    if settings.trusted_proxies != ("*",):
        for proxy in settings.trusted_proxies:
            if proxy == "*":
                problems.append("TRUSTED_PROXIES=* trusts everybody: remove the other addresses")
            elif not (mended := _network(proxy)):
                problems.append(f"TRUSTED_PROXIES: {proxy!r} is neither an address nor a network such as 10.0.0.0/8")
            elif mended != proxy and "/" in proxy:
                problems.append(f"TRUSTED_PROXIES: {proxy} is not the start of a network; write {mended}")
    if settings.root_path is not None and not PREFIX.fullmatch(settings.root_path):
        problems.append("ROOT_PATH must begin with /, not end with one and have no . or .. in it, as in /tasks-service")
    return problems


def _network(text: str) -> str | None:
    """The address or network as it should be written; None: it is neither."""
    try:
        return str(ipaddress.ip_network(text, strict=False)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _fetchable(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))
