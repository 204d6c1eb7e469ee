"""The command line: what it takes, what it rejects, and what it says then. In this process;
tests/operations/test_serve.py runs the service as its own process.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from service.operations.cli import cli

AWAY = "postgresql://nobody:secret@127.0.0.1:1/nowhere"


@pytest.fixture(autouse=True)
def folder(empty_folder: Path) -> Path:
    return empty_folder


def run(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=settings)


def refused(*arguments: str, **settings: str) -> tuple[int, str]:
    """The exit status and all output of `serve`, which is not expected to serve."""
    done = run("serve", *arguments, **{"LOG_FORMAT": "console"} | settings)
    return done.exit_code, done.output


@pytest.mark.parametrize("group", [(), ("migrate",), ("user",)])
def test_help_cuts_no_sentence(group: tuple[str, ...]) -> None:
    output = run(*group, "--help").output
    assert "Commands:" in output
    assert "..." not in output.partition("Commands:")[2]


def test_every_problem_of_the_settings_is_listed_at_once() -> None:
    status, output = refused(DATABASE_URL=AWAY, PORT="web", WORKERS="0", DB_PREPARE="perhaps", HTTP_PROTOCOL="h11")
    assert status == 1
    lines = output.splitlines()
    assert lines[0] == "Error: the settings cannot be used"
    assert [line.split()[0].rstrip(":") for line in lines[1:]] == [
        "PORT",
        "WORKERS",
        "HTTP_PROTOCOL",
        "DB_PREPARE",
        "AUTH_MODE",
    ]
    assert "secret" not in output


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ((), {"DATABASE_URL": AWAY}),
        (("--host", "0.0.0.0"), {}),
        ((), {"HOST": "::"}),
        ((), {"DATABASE_URL": AWAY, "HOST": "127.0.0.1"}),
    ],
)
def test_it_does_not_believe_everybody_by_accident(
    folder: Path, arguments: tuple[str, ...], settings: dict[str, str]
) -> None:
    status, output = refused(*arguments, **settings)
    assert status == 1
    assert "AUTH_MODE must be set" in output
    assert not list(folder.iterdir())  # and no database was begun


@pytest.mark.parametrize(
    "arguments",
    [("--port", "65536"), ("--port", "web"), ("--workers", "0"), ("--no-such-option",), ("x",)],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    status, output = refused(*arguments, DATABASE_URL=AWAY, AUTH_MODE="none")
    assert status == 2
    assert "Usage: " in output


def test_dotenv_is_read_the_environment_wins_and_an_option_over_both(folder: Path) -> None:
    (folder / ".env").write_text("PORT=nonsense\nWORKERS=nonsense\nLOG_LEVEL=nonsense\n")
    settings = {"DATABASE_URL": AWAY, "AUTH_MODE": "none"}
    status, output = refused(**settings | {"WORKERS": "nothing", "PORT": "0"})
    assert status == 1
    assert "LOG_LEVEL" in output
    assert "WORKERS" in output
    assert "PORT" not in output
    status, output = refused("--workers", "1", **settings | {"WORKERS": "nothing"})
    assert "LOG_LEVEL" in output
    assert "WORKERS" not in output


@pytest.mark.parametrize(
    "arguments",
    [(), ("serve",), ("prune",), ("migrate",), ("migrate", "apply"), ("migrate", "rollback"), ("migrate", "status")],
)
def test_there_is_help_at_every_level(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "--help")
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")


def test_the_version_is_said() -> None:
    assert run("--version").output.startswith("tasks-service, version ")


@pytest.mark.parametrize("arguments", [("nothing",), ("prune", "now"), ("--nothing",), ("migrate", "nothing")])
def test_an_unknown_command_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_psql_opens_the_database_in_use_and_hands_on_its_status(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run("psql", "-XAtc", "SELECT current_database(), count(*) FROM tasks", DATABASE_URL=database_url)
    assert done.exit_code == 0
    assert capfd.readouterr().out == f"{conninfo_to_dict(database_url)['dbname']}|0\n"
    assert run("psql", "-Xc", "SELECT nonsense", DATABASE_URL=database_url).exit_code == 1
    assert run("psql", "--no-such-option", DATABASE_URL=database_url).exit_code == 1


def test_a_password_is_in_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments stand in the process list."""
    seen: list[Any] = []

    def note(arguments: list[str], env: dict[str, str], **_: Any) -> SimpleNamespace:
        seen.append((arguments[1:], env["PGPASSWORD"], env["PGHOST"], env["PGPORT"], env["PGUSER"], env["PGDATABASE"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("subprocess.run", note)
    assert run("psql", "-c", "x", DATABASE_URL=AWAY).exit_code == 0
    assert seen == [(["-c", "x"], "secret", "127.0.0.1", "1", "nobody", "nowhere")]


def test_a_database_url_that_is_none_is_said_in_a_line() -> None:
    done = run("psql", DATABASE_URL="nonsense")
    problem = "DATABASE_URL must be a URL, postgresql://…, or name=value pairs"
    assert (done.exit_code, done.output) == (1, f"Error: the settings cannot be used\n  {problem}\n")


def test_a_database_that_is_away_is_said_in_a_line() -> None:
    done = run("prune", DATABASE_URL=AWAY)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith("Error: ")
    assert "secret" not in done.output
