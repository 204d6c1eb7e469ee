"""What an operator can set: read from the environment and `.env`, checked as a whole before anything starts.

Knows names, types, defaults, units and which combinations are unsafe. Must not know how a setting is used.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from dotenv import dotenv_values
from msgspec import Meta


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds one sentence for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Secret:
    """Text that does not print: its repr, and so a log or a traceback that shows it, says nothing."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


Text = Annotated[str, Meta(min_length=1)]
Names = tuple[str, ...]  # comma-separated in the environment


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, named as in the environment but in lower case. A name's ending says its unit."""

    database_url: Annotated[
        Secret | None,
        Meta(
            description="PostgreSQL 15 or newer, as a libpq URL or conninfo; Neon's strings work unchanged, pooled or "
            "direct. Unset: the service starts a PostgreSQL of its own (extra `embedded`).",
            examples=["postgresql://tasks:secret@ep-name-pooler.eu-central-1.aws.neon.tech/tasks?sslmode=require"],
        ),
    ] = None
    migration_database_url: Annotated[
        Secret | None,
        Meta(description="The owner's role on the direct endpoint, for migrations. Default: DATABASE_URL."),
    ] = None
    migrate_on_start: Annotated[
        bool | None,
        Meta(description="Apply pending migrations when `serve` starts. Default: true when embedded, else false."),
    ] = None
    tasks_data_dir: Annotated[Text, Meta(description="Where the embedded PostgreSQL keeps its data.")] = ".data"

    host: Annotated[Text, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; all workers share it. 0: any free.")] = (
        8000
    )
    workers: Annotated[int, Meta(ge=1, le=64, description="Processes that serve.")] = 1
    http_protocol: Annotated[
        Literal["httptools"] | None,
        Meta(
            description="`httptools`: uvicorn's own HTTP protocol class. Unset: the service's, which limits what slow "
            "and malformed clients can hold and costs less."
        ),
    ] = None

    auth_mode: Annotated[
        Literal["none", "jwt"] | None,
        Meta(
            description="`none`: the path's user is believed; only behind a gateway that checks. `jwt`: a bearer token "
            "proves it. Default: none when embedded on loopback, else it must be set."
        ),
    ] = None
    auth_jwt_secret: Annotated[
        Secret | None, Meta(description="HS256 secret, at least 32 bytes. BETTER_AUTH_SECRET means the same.")
    ] = None
    auth_jwks_url: Annotated[
        Text | None,
        Meta(
            description="Where the provider publishes its keys (EdDSA, ES256, RS256). Not together with a secret.",
            examples=["https://auth.example.com/api/auth/jwks"],
        ),
    ] = None
    auth_issuer: Annotated[Text | None, Meta(description="The `iss` a token must have. Unset: not checked.")] = None
    auth_audience: Annotated[Text | None, Meta(description="The `aud` a token must have. Unset: not checked.")] = None
    auth_subject_claim: Annotated[Text, Meta(description="The claim that names the user.")] = "sub"
    auth_leeway_s: Annotated[
        int, Meta(ge=0, le=300, description="Seconds by which clocks may differ, for exp, nbf and iat.")
    ] = 10

    cors_allow_origins: Annotated[
        Names,
        Meta(description="Comma-separated origins that browsers may call from.", examples=["https://app.example.com"]),
    ] = ()
    cors_allow_credentials: Annotated[bool, Meta(description="Let browsers send credentials across origins.")] = False
    trusted_proxies: Annotated[
        Names,
        Meta(description="Comma-separated addresses whose X-Forwarded-* is believed.", examples=["10.0.0.1"]),
    ] = ()

    db_connections: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="The most connections a process opens; opened as load asks, given back when idle. "
            "At least 2, because reads and writes have connections of their own.",
        ),
    ] = 10
    db_prepare: Annotated[
        bool, Meta(description="Off: unnamed statements, for poolers that know no prepared statements.")
    ] = True
    connect_timeout_s: Annotated[
        int, Meta(ge=1, le=120, description="Seconds to wait for a connection to be made.")
    ] = 5
    statement_timeout_ms: Annotated[
        int, Meta(ge=1, le=600_000, description="Milliseconds after which a statement is cancelled: 504.")
    ] = 5000
    request_deadline_ms: Annotated[
        int, Meta(ge=1, le=600_000, description="Milliseconds a request may take in all, waiting included.")
    ] = 10_000
    max_in_flight: Annotated[
        int, Meta(ge=1, le=100_000, description="Requests a process works on at once; above it 503.")
    ] = 512
    max_in_flight_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Requests of one user a process works on at once; above it 429. 0: a quarter of MAX_IN_FLIGHT.",
        ),
    ] = 0
    max_buffer_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Megabytes a process holds for bodies and for responses that clients have not read; above it "
            "503. 0: a quarter of the memory that the machine or its cgroup has, divided by WORKERS.",
        ),
    ] = 0
    shutdown_grace_s: Annotated[
        int, Meta(ge=0, le=3600, description="Seconds to finish what is in flight after SIGTERM.")
    ] = 20

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least level that is logged: `debug`, `info`, `warning` or `error`."),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"] | None,
        Meta(description="How a log line looks: `console` or `json`. Default: console on a terminal, else json."),
    ] = None

    @property
    def embedded(self) -> bool:
        """Whether the service runs on a PostgreSQL of its own."""
        return self.database_url is None

    @property
    def migrates_on_start(self) -> bool:
        return self.embedded if self.migrate_on_start is None else self.migrate_on_start

    @property
    def user_share(self) -> int:
        return self.max_in_flight_per_user or max(1, self.max_in_flight // 4)

    @property
    def buffer_bytes(self) -> int:
        if self.max_buffer_mb:
            return self.max_buffer_mb * 1_000_000
        return max(16_000_000, memory_bytes() // 4 // self.workers)

    @property
    def authenticates(self) -> Literal["none", "jwt"]:
        return self.auth_mode or "none"


ALIASES = {"BETTER_AUTH_SECRET": "AUTH_JWT_SECRET"}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


def memory_bytes() -> int:
    """The memory that this process may use: its cgroup's limit, version 2 or 1, or the machine's memory."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    root = Path("/sys/fs/cgroup")
    limits = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    with contextlib.suppress(OSError):  # version 2, where the process sees its own group's path
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip().lstrip("/")
        limits += [root / part / "memory.max" for part in (own, *map(str, Path(own).parents))]
    for limit in limits:
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            found = min(found, int(limit.read_text()))
    return found


def load(
    environ: Mapping[str, str] = os.environ,
    dotenv: Path | None = Path(".env"),
    options: Mapping[str, str | int | None] | None = None,
) -> Settings:
    """Reads the settings: `options` (from the command line; None means not given) win over `environ`, which wins over
    the file `dotenv`. An empty value in the environment counts as not set.

    Raises SettingsError with every problem at once.
    """
    texts: dict[str, str] = {}
    if dotenv is not None and dotenv.is_file():
        try:
            given = dotenv_values(dotenv, interpolate=False)  # a password may hold a $
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError([f"{dotenv} cannot be read: {error}"]) from None
        texts |= {name: value for name, value in given.items() if value is not None}
    texts |= environ
    texts = {name: text for name, text in texts.items() if text.strip()}
    for alias, name in ALIASES.items():
        if alias in texts:
            texts.setdefault(name, texts[alias])

    problems: list[str] = []
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        name = field.encode_name.upper()
        given = (options or {}).get(field.name)
        if given is None and name not in texts:
            continue
        try:
            values[field.name] = _convert(texts[name] if given is None else given, field.type)
        except msgspec.ValidationError:
            problems.append(
                f"{name} must be {_expected(field.type)}, not {texts.get(name) if given is None else given!r}"
            )
    settings = Settings(**values)
    problems += _unsafe(settings, environ=texts)
    if problems:
        raise SettingsError(problems)
    return settings


def describe() -> list[tuple[str, str, str, str]]:
    """Every setting as (name in the environment, default as text, description, example)."""
    rows: list[tuple[str, str, str, str]] = []
    for field in msgspec.structs.fields(Settings):
        meta = next(part for part in field.type.__metadata__ if part.description)
        default = as_text(field.default)
        rows.append((field.encode_name.upper(), default, meta.description, as_text((meta.examples or [""])[0])))
    return rows


def as_text(value: object) -> str:
    """A setting's value as it is written in the environment. A secret is revealed: for handing on, not for showing."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return "" if value is None else str(value)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, for the processes that `serve` starts."""
    texts = {
        field.encode_name.upper(): as_text(getattr(settings, field.name)) for field in msgspec.structs.fields(Settings)
    }
    return {name: text for name, text in texts.items() if text}


def _convert(given: object, kind: Any) -> object:
    expected = kind.__origin__
    if not isinstance(given, str):
        return msgspec.convert(given, kind)
    text = given.strip()
    if expected in (Secret, Secret | None):
        return Secret(text)
    if expected is Names or expected == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if expected in (bool, bool | None):
        if text.lower() not in _BOOLEANS:
            raise msgspec.ValidationError
        return _BOOLEANS[text.lower()]
    return msgspec.convert(text, kind, strict=False)


def _expected(kind: Any) -> str:
    """What a setting may be, in words."""
    for alternative in (kind.__origin__, *get_args(kind.__origin__)):
        if get_origin(alternative) is Literal:
            choices = get_args(alternative)
            return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    (meta,) = kind.__metadata__
    return "true or false" if meta.ge is None else f"a whole number from {meta.ge} to {meta.le}"


def _unsafe(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    problems: list[str] = []
    loopback = settings.host in LOOPBACK
    secret, jwks = settings.auth_jwt_secret, settings.auth_jwks_url
    at_home = settings.embedded and loopback and secret is None and jwks is None
    if settings.auth_mode is None and "AUTH_MODE" not in environ and not at_home:
        problems.append(
            "AUTH_MODE must be set when DATABASE_URL, AUTH_JWT_SECRET or AUTH_JWKS_URL is set or HOST is not loopback: "
            "jwt, or none if a gateway in front checks who is calling"
        )
    if settings.auth_mode == "jwt":
        if secret is None and jwks is None:
            problems.append("AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL")
        if secret is not None and jwks is not None:
            problems.append("AUTH_JWT_SECRET and AUTH_JWKS_URL cannot be used together: choose one")
        if secret is not None and len(secret.reveal().encode()) < 32:
            problems.append("AUTH_JWT_SECRET must be at least 32 bytes")
        if jwks is not None and not _fetchable(jwks):
            problems.append("AUTH_JWKS_URL must be https, or http on loopback")
    if (
        "AUTH_JWT_SECRET" in environ
        and environ.get("BETTER_AUTH_SECRET", environ["AUTH_JWT_SECRET"]) != (environ["AUTH_JWT_SECRET"])
    ):
        problems.append("AUTH_JWT_SECRET and BETTER_AUTH_SECRET differ: set one of them")
    if "*" in settings.cors_allow_origins and settings.cors_allow_credentials:
        problems.append("CORS_ALLOW_ORIGINS=* cannot be used together with CORS_ALLOW_CREDENTIALS=true")
    if settings.statement_timeout_ms > settings.request_deadline_ms:
        problems.append("STATEMENT_TIMEOUT_MS must not exceed REQUEST_DEADLINE_MS")
    return problems


def _fetchable(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))
