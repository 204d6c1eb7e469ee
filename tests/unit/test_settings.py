"""Settings: sources, precedence, rejected values, and that .env.example has them all."""

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.settings import Secret, Settings, SettingsError, as_text, describe, environment, load
from service.settings.memory import memory_bytes
from tests.support.processes import ROOT

NEEDED = {"DATABASE_URL": "postgresql://db", "AUTH_MODE": "none"}


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, dotenv=None)
    return caught.value.problems


def example() -> list[tuple[str, str, str, str]]:
    """.env.example, as describe() would have it: name, default, description, example."""
    rows = []
    for block in (ROOT / ".env.example").read_text().strip().split("\n\n")[1:]:
        *comments, assignment = block.splitlines()
        name, _, default = assignment.removeprefix("#").partition("=")
        shown = [line.removeprefix("# Example: ") for line in comments if line.startswith("# Example: ")]
        description = " ".join(line.removeprefix("# ") for line in comments if not line.startswith("# Example: "))
        rows.append((name, default, description, "".join(shown)))
    return rows


def test_the_example_holds_every_setting_as_the_struct_has_it() -> None:
    assert example() == describe()


def test_the_example_can_be_copied(tmp_path: Path) -> None:
    """As it is, and with every line in use."""
    text = (ROOT / ".env.example").read_text()
    for number, content in enumerate((text, re.sub(r"(?m)^#(?=[A-Z_]+=)", "", text))):
        dotenv = tmp_path / str(number)
        dotenv.write_text(content)
        assert load({}, dotenv) == Settings()


def test_a_name_says_its_unit_and_so_does_its_description() -> None:
    for name, _, description, _ in describe():
        if name.endswith("_S"):
            assert description.startswith("Seconds")
        if name.endswith("_MS"):
            assert description.startswith("Milliseconds")


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = load({}, dotenv=None)
    assert (settings.embedded, settings.migrates_on_start, settings.authenticates) == (True, True, "none")
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.db_connections, settings.max_in_flight, settings.shutdown_grace_s) == (10, 512, 20)
    assert load(NEEDED, dotenv=None).migrates_on_start is False


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("DATABASE_URL", " host=/tmp dbname=x ", Secret("host=/tmp dbname=x")),
        ("PORT", "0", 0),
        ("PORT", " 65535 ", 65535),
        ("DB_PREPARE", "off", False),
        ("DB_PREPARE", "ON", True),
        ("DB_PREPARE", "No", False),
        ("MIGRATE_ON_START", "1", True),
        ("CORS_ALLOW_ORIGINS", "https://a.example , https://b.example,", ("https://a.example", "https://b.example")),
        ("TRUSTED_PROXIES", ",", ()),
        ("LOG_FORMAT", "json", "json"),
        ("LOG_LEVEL", "", "info"),
        ("LOG_LEVEL", "WARNING", "warning"),
        ("PORT", "  ", 8000),
    ],
)
def test_a_text_becomes_a_value(name: str, text: str, value: Any) -> None:
    assert getattr(load(NEEDED | {name: text}, dotenv=None), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("PORT", "web", "PORT must be a whole number from 0 to 65535, not 'web'"),
        ("PORT", "-1", "PORT must be a whole number from 0 to 65535, not '-1'"),
        ("PORT", "80.5", "PORT must be a whole number from 0 to 65535, not '80.5'"),
        ("WORKERS", "0", "WORKERS must be a whole number from 1 to 64, not '0'"),
        ("DB_CONNECTIONS", "1", "DB_CONNECTIONS must be a whole number from 2 to 1000, not '1'"),
        ("DB_PREPARE", "perhaps", "DB_PREPARE must be true or false, not 'perhaps'"),
        ("MIGRATE_ON_START", "2", "MIGRATE_ON_START must be true or false, not '2'"),
        ("HTTP_PROTOCOL", "h11", "HTTP_PROTOCOL must be httptools, not 'h11'"),
        ("AUTH_MODE", "nobody", "AUTH_MODE must be one of none, jwt, not 'nobody'"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be one of console, json, not 'xml'"),
        ("STATEMENT_TIMEOUT_MS", "10001", "STATEMENT_TIMEOUT_MS must not exceed REQUEST_DEADLINE_MS"),
        ("AUTH_MODE", "jwt", "AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL"),
    ],
)
def test_what_cannot_be_used_is_one_problem(name: str, text: str, problem: str) -> None:
    assert problems(**NEEDED | {name: text}) == [problem]


ACCIDENT = "AUTH_MODE must be set when DATABASE_URL, AUTH_JWT_SECRET or AUTH_JWKS_URL is set or HOST is not loopback"


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgresql://db"},
        {"HOST": "0.0.0.0"},
        {"HOST": "::"},
        {"HOST": "192.168.1.1"},
        {"AUTH_JWT_SECRET": "x" * 32},
        {"BETTER_AUTH_SECRET": "x" * 32},
        {"AUTH_JWKS_URL": "https://auth.example.com/jwks"},
    ],
)
def test_nobody_is_believed_by_accident(environ: dict[str, str]) -> None:
    (problem,) = problems(**environ)
    assert problem.startswith(ACCIDENT)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_at_home_everybody_is_believed(host: str) -> None:
    assert load({"HOST": host}, dotenv=None).authenticates == "none"


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"AUTH_JWT_SECRET": "x" * 31}, "AUTH_JWT_SECRET must be at least 32 bytes"),
        (
            {"AUTH_JWT_SECRET": "x" * 32, "AUTH_JWKS_URL": "https://a.example"},
            "AUTH_JWT_SECRET and AUTH_JWKS_URL cannot be used together: choose one",
        ),
        (
            {"AUTH_JWT_SECRET": "x" * 32, "BETTER_AUTH_SECRET": "y" * 32},
            "AUTH_JWT_SECRET and BETTER_AUTH_SECRET differ: set one of them",
        ),
        ({"AUTH_JWKS_URL": "http://a.example"}, "AUTH_JWKS_URL must be https, or http on loopback"),
        ({"AUTH_JWKS_URL": "file:///etc/passwd"}, "AUTH_JWKS_URL must be https, or http on loopback"),
        ({"AUTH_JWKS_URL": "http://[::1"}, "AUTH_JWKS_URL must be https, or http on loopback"),
        (
            {"AUTH_JWT_SECRET": "x" * 32, "CORS_ALLOW_ORIGINS": "*", "CORS_ALLOW_CREDENTIALS": "true"},
            "CORS_ALLOW_ORIGINS=* cannot be used together with CORS_ALLOW_CREDENTIALS=true",
        ),
    ],
)
def test_unsafe_combinations_are_refused(environ: dict[str, str], problem: str) -> None:
    assert problems(AUTH_MODE="jwt", **environ) == [problem]


def test_the_secrets_other_name_means_the_same() -> None:
    settings = load({"AUTH_MODE": "jwt", "BETTER_AUTH_SECRET": "s" * 32}, dotenv=None)
    assert settings.auth_jwt_secret == Secret("s" * 32)


def test_every_problem_is_listed_at_once() -> None:
    listed = problems(PORT="x", HTTP_PROTOCOL="x", DATABASE_URL="postgresql://db", STATEMENT_TIMEOUT_MS="20000")
    assert [problem.split()[0] for problem in listed] == ["PORT", "HTTP_PROTOCOL", "AUTH_MODE", "STATEMENT_TIMEOUT_MS"]


def test_no_secret_is_shown() -> None:
    settings = load({"AUTH_MODE": "jwt", "DATABASE_URL": "postgresql://u:hush@db", "AUTH_JWT_SECRET": "hush" * 8}, None)
    assert "hush" not in repr(settings) + str(settings) + f"{settings.database_url}"
    assert "hush" not in str(problems(AUTH_MODE="jwt", DATABASE_URL="postgresql://u:hush@db", AUTH_JWT_SECRET="hush"))


def test_the_environment_wins_over_dotenv_and_an_option_over_both(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text('HOST=localhost\nPORT=1\nexport WORKERS="3"  # comment\nAUTH_SUBJECT_CLAIM=${HOME}\n')
    settings = load({"PORT": "2", "WORKERS": ""}, dotenv, {"port": 3, "host": None})
    assert (settings.host, settings.port) == ("localhost", 3)
    assert settings.workers == 3  # empty in the environment: not set
    assert settings.auth_subject_claim == "${HOME}"
    assert load({"PORT": "2"}, dotenv).port == 2
    assert load({}, dotenv).workers == 3


def test_an_option_is_checked_like_any_other() -> None:
    with pytest.raises(SettingsError, match="PORT must be a whole number from 0 to 65535, not '70000'"):
        load({}, None, {"port": 70000})


def test_a_dotenv_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"HOST=\xff\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, dotenv)


def test_settings_survive_the_way_to_a_worker() -> None:
    given = Settings(
        database_url=Secret("postgresql://u:p@h/d?x=%20"),
        auth_mode="none",
        workers=4,
        cors_allow_origins=("https://a.example", "https://b.example"),
        db_prepare=False,
        migrate_on_start=False,
    )
    assert load(environment(given), dotenv=None) == given


def test_every_kind_of_value_has_its_text() -> None:
    for field in msgspec.structs.fields(Settings):
        assert isinstance(as_text(field.default), str)
    assert [as_text(value) for value in (None, True, False, (), ("a", "b"), 5)] == ["", "true", "false", "", "a,b", "5"]


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "50000000\n"}, 50_000_000),  # a container, version 2
        ("0::/a.slice/b\n", {"a.slice/b/memory.max": "60000000\n", "a.slice/memory.max": "50000000\n"}, 50_000_000),
        ("0::/a\n", {"a/memory.max": "max\n", "a/memory.high": "50000000\n"}, 50_000_000),  # above it, all gets slow
        ("4:memory:/docker/1\n0::/\n", {"memory/memory.limit_in_bytes": "50000000\n"}, 50_000_000),  # version 1
        ("4:cpu,memory:/a/b\n", {"memory/a/memory.limit_in_bytes": "50000000\n"}, 50_000_000),  # systemd, version 1
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "50000000\n"}, None),
        ("what is this\n", {"memory.max": "50000000\n"}, 50_000_000),
    ],
)
def test_memory_is_that_of_the_cgroup_or_the_machine(
    tmp_path: Path, own: str, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_bytes(tmp_path, tmp_path / "own") == (expected or machine)
