"""Mishaps of operators, as data: what stands in `.env` and in the environment, and the sentence that answers it.

None reaches a database. What needs a process is in tests/faults/test_outputs.py.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from service.database.conninfo import problem_of
from service.operations.in_use import settings_of
from service.settings import SettingsError, load, near_misses

LOCAL = {"DATABASE_URL": "postgresql://u:s3cret@db/d", "AUTH_MODE": "none"}
QUOTE = "cannot be read: write NAME=value, and close every quote"
ESCAPE = "has an unescaped character in the user or the password: write @ as %40"
SCHEME = "must begin with postgresql:// or postgres://, without the name of a driver"


class Mishap(NamedTuple):
    name: str
    said: str  # the start of one of the problems
    dotenv: str | bytes = ""
    environ: Mapping[str, str] = MappingProxyType({})


def url(text: str) -> dict[str, str]:
    return {"DATABASE_URL": text, "AUTH_MODE": "none"}


MISHAPS = [
    # .env
    Mishap("a quote that is not closed", f".env, line 1 {QUOTE}", 'DATABASE_URL="postgresql://u:s3cret@db/d\n'),
    Mishap("a quote that closes two lines below", f".env, line 1 {QUOTE}", 'AUTH_ISSUER="x\n\nAUTH_MODE="none"\n'),
    Mishap("two lines in one value", ".env, line 1: the value of AUTH_ISSUER goes on", 'AUTH_ISSUER="x\ny"\n'),
    Mishap("an = that is missing", f".env, line 3 {QUOTE}", "# x\n\nDATABASE_URL postgresql://u:s3cret@db/d\n"),
    Mishap("a name alone", ".env, line 1 has no =: write LOG_LEVEL=value", "LOG_LEVEL\n"),
    Mishap("a colon for an =", f".env, line 1 {QUOTE}", "PORT: 80\n"),
    Mishap(
        "a quote at the end only", ".env, line 1: the value of HOST has a quote at one end only", 'HOST=127.0.0.1"\n'
    ),
    Mishap("a quote of the other kind", f".env, line 1 {QUOTE}", "HOST='127.0.0.1\"\n"),
    Mishap("text behind a quote", f".env, line 1 {QUOTE}", 'HOST="localhost" or so\n'),
    Mishap(
        "a letter left out", ".env, line 1: DATABSE_URL is not a setting; did you mean DATABASE_URL?", "DATABSE_URL=x"
    ),
    Mishap(
        "a wrong letter", ".env, line 1: AUTH_AUDIANCE is not a setting; did you mean AUTH_AUDIENCE?", "AUTH_AUDIANCE=x"
    ),
    Mishap("lower case", ".env, line 1: port is not a setting; did you mean PORT?", "port=80"),
    Mishap(
        "another tool's name",
        ".env, line 1: DATABASE_URI is not a setting; did you mean DATABASE_URL?",
        "DATABASE_URI=x",
    ),
    Mishap(
        "a setting that is gone", ".env, line 1: SERVER is not a setting; the names are in .env.example", "SERVER=x"
    ),
    Mishap("Latin-1", ".env cannot be read: it is not UTF-8", b"HOST=\xff\n"),
    Mishap("UTF-16", ".env cannot be read: it is not UTF-8", "PORT=80\n".encode("utf-16")),
    Mishap("a bad value behind a byte order mark", "PORT must be a whole number", b"\xef\xbb\xbfPORT=x\n"),
    Mishap("two values", ".env, line 3: PORT has another value in an earlier line", b"PORT=1\nWORKERS=1\nPORT=2\n"),
    # Values
    Mishap(
        "a port with a unit", "PORT must be a whole number from 0 to 65535, not '80/tcp'", environ={"PORT": "80/tcp"}
    ),
    Mishap("a port that is too large", "PORT must be a whole number from 0 to 65535", environ={"PORT": "99999"}),
    Mishap("Kubernetes' service variable", "PORT must be a whole number", environ={"PORT": "tcp://10.0.0.1:80"}),
    Mishap("no worker", "WORKERS must be a whole number from 1 to 64", environ={"WORKERS": "0"}),
    Mishap("as many workers as there are", "WORKERS must be a whole number from 1 to 64", environ={"WORKERS": "auto"}),
    Mishap("perhaps", "DB_PREPARE must be true or false, not 'perhaps'", environ={"DB_PREPARE": "perhaps"}),
    Mishap("seconds with a unit", "KEEP_ALIVE_S must be a whole number", environ={"KEEP_ALIVE_S": "75s"}),
    Mishap("a level of another library", "LOG_LEVEL must be one of debug", environ={"LOG_LEVEL": "verbose"}),
    Mishap("another protocol class", "HTTP_PROTOCOL must be httptools, not 'h11'", environ={"HTTP_PROTOCOL": "h11"}),
    # Who is calling
    Mishap("a database and no mode", "AUTH_MODE must be set", environ={"DATABASE_URL": "postgresql://db/d"}),
    Mishap("open to all and no mode", "AUTH_MODE must be set", environ={"HOST": "0.0.0.0"}),
    Mishap("a unix socket and no mode", "AUTH_MODE must be set", environ={"HOST": "unix:/run/x.sock"}),
    Mishap("an empty mode", "AUTH_MODE must be set", environ={"HOST": "::", "AUTH_MODE": " "}),
    Mishap(
        "none with a secret",
        "AUTH_MODE=none checks no token: remove AUTH_JWT_SECRET",
        environ=LOCAL | {"AUTH_JWT_SECRET": "s" * 32},
    ),
    Mishap(
        "none with keys",
        "AUTH_MODE=none checks no token: remove AUTH_JWKS_URL",
        environ=LOCAL | {"AUTH_JWKS_URL": "https://a/jwks"},
    ),
    Mishap("jwt with nothing", "AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL", environ={"AUTH_MODE": "jwt"}),
    Mishap(
        "a short secret",
        "AUTH_JWT_SECRET must be at least 32 bytes",
        environ={"AUTH_MODE": "jwt", "AUTH_JWT_SECRET": "s3cret"},
    ),
    Mishap(
        "keys in the clear",
        "AUTH_JWKS_URL must be https",
        environ={"AUTH_MODE": "jwt", "AUTH_JWKS_URL": "http://a/jwks"},
    ),
    # Addresses
    Mishap("a URL to listen on", "HOST must be an address or a name alone", environ=LOCAL | {"HOST": "http://0.0.0.0"}),
    Mishap("a host with its port", "HOST must be an address or a name alone", environ=LOCAL | {"HOST": "0.0.0.0:8000"}),
    Mishap("an address in brackets", "HOST must be an address or a name alone", environ=LOCAL | {"HOST": "[::1]"}),
    Mishap(
        "another port's host with its port",
        "ADMIN_HOST must be an address or a name alone, without http://, [] and port: the port is ADMIN_PORT",
        environ=LOCAL | {"ADMIN_PORT": "9000", "ADMIN_HOST": "0.0.0.0:9000"},
    ),
    Mishap("a port alone", "HOST must be an address or a name alone", environ=LOCAL | {"HOST": ":8000"}),
    Mishap("every address", "HOST=* is not an address: write 0.0.0.0 or ::", environ=LOCAL | {"HOST": "*"}),
    Mishap(
        "an origin as a host",
        "ALLOWED_HOSTS: 'https://a.example' is not what a Host header has",
        environ=LOCAL | {"ALLOWED_HOSTS": "b.example:80,https://a.example"},
    ),
    # Proxies
    Mishap(
        "a host name that is trusted",
        "TRUSTED_PROXIES: 'nginx' is neither an address nor a network",
        environ=LOCAL | {"TRUSTED_PROXIES": "nginx"},
    ),
    Mishap(
        "a network with host bits",
        "TRUSTED_PROXIES: 10.0.0.1/8 is not the start of a network; write 10.0.0.0/8",
        environ=LOCAL | {"TRUSTED_PROXIES": "10.0.0.1/8"},
    ),
    Mishap(
        "everybody and somebody",
        "TRUSTED_PROXIES=* trusts everybody",
        environ=LOCAL | {"TRUSTED_PROXIES": "*,10.0.0.1"},
    ),
    Mishap("a prefix with a slash at its end", "ROOT_PATH must begin with /", environ=LOCAL | {"ROOT_PATH": "/tasks/"}),
    Mishap("a prefix without a slash", "ROOT_PATH must begin with /", environ=LOCAL | {"ROOT_PATH": "tasks"}),
    Mishap("a prefix with dots", "ROOT_PATH must begin with /", environ=LOCAL | {"ROOT_PATH": "/tasks/../x"}),
    Mishap(
        "a socket by a relative path",
        "HOST=unix: must name a file by its absolute path",
        environ=LOCAL | {"HOST": "unix:x.sock"},
    ),
    # The database's URL
    Mishap(
        "quotes that docker leaves", "DATABASE_URL must not be in quotes", environ=url('"postgresql://u:s3cret@db/d"')
    ),
    Mishap("an @ in the password", f"DATABASE_URL {ESCAPE}", environ=url("postgresql://u:s3c@ret@db/d")),
    Mishap("a / in the password", f"DATABASE_URL {ESCAPE}", environ=url("postgresql://u:s3c/ret@db/d")),
    Mishap("a ? in the password", f"DATABASE_URL {ESCAPE}", environ=url("postgresql://u:s3c?ret@db/d")),
    Mishap(
        "a % in the password",
        "DATABASE_URL has a % that begins no escape: write % as %25",
        environ=url("postgresql://u:s3c%ret@db/d"),
    ),
    Mishap(
        "Prisma's schema",
        "DATABASE_URL has a parameter that libpq does not know, schema: remove it",
        environ=url("postgresql://u:s3cret@db/d?schema=public"),
    ),
    Mishap("SQLAlchemy's driver", f"DATABASE_URL {SCHEME}", environ=url("postgresql+asyncpg://u:s3cret@db/d")),
    Mishap("another database", f"DATABASE_URL {SCHEME}", environ=url("mysql://u:s3cret@db/d")),
    Mishap("JDBC", f"DATABASE_URL {SCHEME}", environ=url("jdbc:postgresql://db/d?user=u&password=s3cret")),
    Mishap(
        "a port of five nines",
        "DATABASE_URL must have a port from 1 to 65535",
        environ=url("postgresql://u:s3cret@db:99999/d"),
    ),
    Mishap(
        "a port that is a word",
        "DATABASE_URL must have a port from 1 to 65535",
        environ=url("postgresql://u:s3cret@db:pg/d"),
    ),
    Mishap(
        "a mode that TLS has not",
        'DATABASE_URL cannot be used: invalid sslmode value: "requierd"',
        environ=url("postgresql://u:s3cret@db/d?sslmode=requierd"),
    ),
    Mishap(
        "a value without a name",
        "DATABASE_URL must be a URL, postgresql://…, or name=value pairs",
        environ=url("s3cret"),
    ),
    Mishap(
        "the other URL",
        f"MIGRATION_DATABASE_URL {ESCAPE}",
        environ=LOCAL | {"MIGRATION_DATABASE_URL": "postgresql://o:s3c@ret@db/d"},
    ),
]


@pytest.fixture(autouse=True)
def folder(empty_folder: Path) -> Path:
    return empty_folder


def test_there_are_fifty() -> None:
    assert len({mishap.name for mishap in MISHAPS}) == len(MISHAPS) >= 50


@pytest.mark.parametrize("mishap", MISHAPS, ids=lambda mishap: mishap.name)
def test_mishap_stops_the_start_with_a_sentence(folder: Path, mishap: Mishap, monkeypatch: pytest.MonkeyPatch) -> None:
    content = mishap.dotenv if isinstance(mishap.dotenv, bytes) else mishap.dotenv.encode()
    (folder / ".env").write_bytes(content)
    for name, text in mishap.environ.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as stopped:
        settings_of(serves=True)
    assert [problem for problem in stopped.value.problems if problem.startswith(mishap.said)]
    assert not [part for part in ("s3c", "ret@") if part in str(stopped.value)]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"DATABSE_URL": "x"}, ["DATABSE_URL in the environment is not a setting: did you mean DATABASE_URL?"]),
        ({"LOGLEVEL": "x"}, ["LOGLEVEL in the environment is not a setting: did you mean LOG_LEVEL?"]),
        ({"AUTH_SECRET": "x"}, ["AUTH_SECRET in the environment is not a setting: did you mean AUTH_JWT_SECRET?"]),
        ({"DATABSE_URL": ""}, []),
        (
            {"AUTH_JWT_SECRET": "'s3cret'"},
            ["AUTH_JWT_SECRET in the environment is in quotes, which belong to the value then: remove them"],
        ),
        ({"AUTH_JWT_SECRET": "'s3cret"}, []),
        (
            {
                "HOSTNAME": "x",
                "PGHOST": "x",
                "PGCONNECT_TIMEOUT": "x",
                "HOME": "x",
                "PATH": "x",
                "TASKS_PORT": "x",
                "BETTER_AUTH_URL": "x",
            },
            [],
        ),
    ],
)
def test_names_that_are_near_to_a_setting_are_warned_of(environ: dict[str, str], said: list[str]) -> None:
    assert near_misses(environ) == said


@pytest.mark.parametrize("name", ["DATABASE_URL", "AUTH_MODE", "HOST", "WORKERS", "CORS_ALLOW_ORIGINS"])
def test_an_empty_variable_is_unset_wherever_it_stands(folder: Path, name: str) -> None:
    (folder / ".env").write_text(f'{name}=""\n')
    assert load({name: " "}) == load({}, dotenv=None)


def test_an_empty_variable_does_not_hide_the_one_in_dotenv(folder: Path) -> None:
    (folder / ".env").write_text("PORT=81\n")
    assert load({"PORT": ""}).port == 81


def test_a_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    (folder / ".env").write_bytes(b"\xef\xbb\xbfPORT=81\r\nWORKERS=2\r\n")
    assert (load({}).port, load({}).workers) == (81, 2)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p@h/d",
        "postgresql://u:p%40ss%2F@h:5432/d?sslmode=require&channel_binding=require",
        "postgresql://u:p@h1,h2:5433/d?target_session_attrs=read-write",
        "postgresql://u:p#x@[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "host=/tmp dbname=d password='a b@c/d'",
    ],
)
def test_what_libpq_takes_is_taken(text: str) -> None:
    assert problem_of(text) is None
