"""Every setting: its name, type, default, unit and description.

The struct is what `.env.example`, the table in deploy/README.md and `serve --help` are made from or held to. One file,
although it is long, because most of it is the settings' descriptions.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from service.settings.memory import memory_bytes

UNIX = "unix:"  # HOST of a unix socket
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
# ROOT_PATH and X-Forwarded-Prefix. An empty first segment would make a link lead to another host, dots to another path.
PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~!$&'()*+;=:@-]+)+")
ALIASES = {"BETTER_AUTH_SECRET": "AUTH_JWT_SECRET"}


class Secret:
    """Text that its repr does not show, so that logs and tracebacks do not show it either."""

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
            "direct. Unset: the service starts an embedded PostgreSQL (extra `embedded`).",
            examples=["postgresql://tasks:secret@ep-name-pooler.eu-central-1.aws.neon.tech/tasks?sslmode=require"],
        ),
    ] = None
    migration_database_url: Annotated[
        Secret | None,
        Meta(description="The owner's role on the direct endpoint, for `migrate` and `check`. Default: DATABASE_URL."),
    ] = None
    migrate_on_start: Annotated[
        bool | None,
        Meta(description="Apply pending migrations when `serve` starts. Default: true when embedded, else false."),
    ] = None
    migrations_dir: Annotated[
        Text | None,
        Meta(
            description="The folder of migrations, the project's own included. Default: the project's.",
            examples=["/etc/tasks/migrations"],
        ),
    ] = None
    tasks_data_dir: Annotated[Text, Meta(description="Where the embedded PostgreSQL keeps its data.")] = ".data"

    host: Annotated[
        Text,
        Meta(description="Address to listen on, or `unix:/path` for a unix socket.", examples=["unix:/run/tasks.sock"]),
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port to listen on; all workers share it. 0: any free port.")
    ] = 8000
    admin_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Another port for `/metrics`, `/docs`, `/openapi.json`, `/livez` and `/readyz`, which PORT "
            "then does not have. 0: PORT has them.",
        ),
    ] = 0
    admin_host: Annotated[
        Text | None,
        Meta(description="Address for ADMIN_PORT. Default: HOST, or 127.0.0.1 where that is a unix socket."),
    ] = None
    workers: Annotated[int, Meta(ge=1, le=64, description="Number of processes that serve.")] = 1
    http_protocol: Annotated[
        Literal["httptools"] | None,
        Meta(
            description="`httptools`: uvicorn's own HTTP protocol class. Unset: the service's, which costs less and "
            "limits what slow and malformed clients can hold."
        ),
    ] = None

    keep_alive_s: Annotated[
        int,
        Meta(
            ge=1,
            le=3600,
            description="Seconds for which an idle HTTP connection stays open. Set it higher than the proxy in front "
            "does, so that the proxy closes first; Google's load balancers use 600.",
        ),
    ] = 75
    drain_s: Annotated[
        int,
        Meta(
            ge=0,
            le=600,
            description="Seconds after SIGTERM for which `/readyz` is 503 while new connections are still accepted, so "
            "that a load balancer stops sending requests first.",
        ),
    ] = 0
    root_path: Annotated[
        Text | None,
        Meta(
            description="Prefix that the proxy in front strips from paths. Location, Link and /docs have it.",
            examples=["/tasks-service"],
        ),
    ] = None

    auth_mode: Annotated[
        Literal["none", "jwt"] | None,
        Meta(
            description="`jwt`: a bearer token proves who is calling. `none`: no proof; the user is taken from the "
            "path. Use `none` only behind a gateway that checks. Default: none when embedded on loopback, else it must "
            "be set."
        ),
    ] = None
    auth_jwt_secret: Annotated[
        Secret | None, Meta(description="HS256 secret, at least 32 bytes. BETTER_AUTH_SECRET is another name for it.")
    ] = None
    auth_jwks_url: Annotated[
        Text | None,
        Meta(
            description="URL of the provider's keys (EdDSA, ES256, RS256). Not together with a secret.",
            examples=["https://auth.example.com/api/auth/jwks"],
        ),
    ] = None
    auth_issuer: Annotated[Text | None, Meta(description="The `iss` that a token must have. Unset: not checked.")] = (
        None
    )
    auth_audience: Annotated[Text | None, Meta(description="The `aud` that a token must have. Unset: not checked.")] = (
        None
    )
    auth_subject_claim: Annotated[Text, Meta(description="The claim that names the user.")] = "sub"
    auth_leeway_s: Annotated[
        int, Meta(ge=0, le=300, description="Seconds by which clocks may differ, for `exp`, `nbf` and `iat`.")
    ] = 10

    cors_allow_origins: Annotated[
        Names,
        Meta(description="Comma-separated origins whose pages may call the API.", examples=["https://app.example.com"]),
    ] = ()
    cors_allow_credentials: Annotated[bool, Meta(description="Browsers may send credentials across origins.")] = False
    allowed_hosts: Annotated[
        Names,
        Meta(
            description="Comma-separated values of Host that AUTH_MODE=none serves, but for probes; `*`: any. Default: "
            "loopback names if HOST is loopback, else any.",
            examples=["tasks.example.com"],
        ),
    ] = ()
    trusted_proxies: Annotated[
        Names,
        Meta(
            description="Comma-separated addresses and networks of proxies whose X-Forwarded-For and -Prefix are "
            "trusted. `*`: every client, for a unix socket.",
            examples=["10.0.0.1,192.168.0.0/16"],
        ),
    ] = ()

    db_connections: Annotated[
        int,
        Meta(
            ge=2,
            le=1000,
            description="Maximum number of database connections of each process. They are opened under load and closed "
            "when idle. At least 2, because reads and writes use separate connections.",
        ),
    ] = 10
    db_prepare: Annotated[
        bool, Meta(description="False: unnamed statements, for poolers without prepared statements.")
    ] = True
    connect_timeout_s: Annotated[
        int, Meta(ge=1, le=120, description="Seconds to wait for a new database connection.")
    ] = 5
    statement_timeout_ms: Annotated[
        int,
        Meta(ge=1, le=600_000, description="Milliseconds after which a statement is cancelled; the response is 504."),
    ] = 5000
    request_deadline_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=600_000,
            description="Milliseconds that one call to the database may take, queues and retries included. Most "
            "requests make one; a streamed list makes one for each of its pages.",
        ),
    ] = 10_000
    max_in_flight: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Maximum number of requests in flight in each process; above it the response is 503.",
        ),
    ] = 512
    max_in_flight_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Maximum number of one user's requests in flight in each process; more wait for up to 2 s, "
            "then the response is 429. 0: a quarter of MAX_IN_FLIGHT.",
        ),
    ] = 0
    max_buffer_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Maximum memory in each process for request bodies and unread responses, in MB; above it the "
            "response is 503. One user's may take a quarter of it, then the response is 429. 0: a quarter of the "
            "memory of the machine or its cgroup, divided by WORKERS; at least 16.",
        ),
    ] = 0
    shutdown_grace_s: Annotated[
        int,
        Meta(ge=0, le=3600, description="Seconds after SIGTERM and DRAIN_S in which requests in flight may finish."),
    ] = 20

    slow_request_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="Milliseconds above which a request is logged as slow.")
    ] = 1000

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Lowest level that is logged: `debug`, `info`, `warning` or `error`."),
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"] | None,
        Meta(description="Format of log lines: `console` or `json`. Default: console on a terminal, else json."),
    ] = None

    log_users: Annotated[
        Literal["hash", "id"],
        Meta(
            description="How a log line names the user: `id`, or `hash`, which `printf %s ID | b2sum -l 64` prints "
            "for an ID. The hash has no key: a reader who guesses an ID can confirm it."
        ),
    ] = "hash"
    access_log: Annotated[bool, Meta(description="Log every request at level info, with the client's address.")] = False

    @property
    def embedded(self) -> bool:
        """Whether the service runs on its embedded PostgreSQL."""
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
    def on_loopback(self) -> bool:
        """Whether only this machine can connect. A unix socket is for the proxy in front, which others reach."""
        return self.host in LOOPBACK

    @property
    def authenticates(self) -> Literal["none", "jwt"]:
        return self.auth_mode or "none"


def names() -> list[str]:
    """Every setting's name in the environment."""
    return [field.encode_name.upper() for field in msgspec.structs.fields(Settings)]


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
