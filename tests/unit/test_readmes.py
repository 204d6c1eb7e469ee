"""The documentation is right where a machine can tell: links, anchors, names in linked files, settings, sample code."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from service.database import call, lane
from service.http import connection, errors
from service.operations.cli import cli
from service.settings import describe
from tests.support.processes import ROOT

READMES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
NAME = re.compile(r"`(\w+)`")


def prose(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path: Path) -> list[tuple[str, str]]:
    return [
        (match["text"], match["target"])
        for match in LINK.finditer(prose(path.read_text()))
        if not re.match(r"https?:|mailto:", match["target"])
    ]


def readme(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", READMES, ids=readme)
def test_every_relative_link_and_anchor_exists(path: Path) -> None:
    broken: list[str] = []
    for _, target in links(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        page = file / "README.md" if file.is_dir() else file
        if not file.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", READMES, ids=readme)
def test_a_name_linked_to_a_source_file_is_in_that_file(path: Path) -> None:
    wrong: list[str] = []
    for text, target in links(path):
        name = NAME.fullmatch(text)
        file = path.parent / target
        if name and file.suffix == ".py" and not re.search(rf"\b{name[1]}\b", file.read_text()):
            wrong.append(f"{text} is not in {target}")
    assert wrong == []


def test_every_folder_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        for _, target in links(page):
            file = (page.parent / target.partition("#")[0]).resolve()
            file = file / "README.md" if file.is_dir() and (file / "README.md").exists() else file
            if file.suffix == ".md" and file.exists():
                ahead.append(file)
    assert set(READMES) == reached


def test_the_settings_table_is_that_of_the_code() -> None:
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {description} |"
        for name, default, description, _ in describe()
    ]
    table = "\n".join(["| name | default | |", "|---|---|---|", *rows])
    assert table in (ROOT / "deploy" / "README.md").read_text()


def test_the_bodies_of_readyz_are_those_of_the_code() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    reasons = (
        errors.database_unreachable(),
        errors.schema_mismatch(),
        errors.database_read_only(),
        errors.shutting_down(),
    )
    assert [error.message for error in reasons if f'`{{"error":"{error.message}"}}`' not in text] == []


def test_every_row_of_the_failure_table_names_its_test() -> None:
    """That the named tests exist is checked with all other links to source files."""
    text = (ROOT / "deploy" / "README.md").read_text()
    table = re.search(r"^\| what happens \|.*\| test \|\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    unproven = [row for row in table[1].splitlines() if not re.search(r"\[`test_\w+`\]\([^)]+\.py\)[^|]* \|$", row)]
    assert unproven == []


def arrows(path: Path) -> list[set[tuple[str, str]]]:
    """Of each state diagram of a page: which state follows which."""
    diagrams = re.findall(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.MULTILINE)) for diagram in diagrams]


def test_the_state_diagrams_are_those_of_the_code() -> None:
    """Any state of a connection can be followed by CLOSED, which the page says in words."""
    of_call = {(state.name, to.name) for state in call.CallState for to in call.TRANSITIONS[state]}
    of_lane = {(state.name, to.name) for state in lane.LaneState for to in lane.LANE_TRANSITIONS[state]}
    of_connection = {(state.name, to.name) for state, after in connection.TRANSITIONS.items() for to in after}
    in_words = {(state.name, "CLOSED") for state in connection.State} - {("CLOSING", "CLOSED")}
    assert arrows(ROOT / "service" / "database" / "README.md") == [of_call, of_lane]
    assert arrows(ROOT / "service" / "http" / "README.md") == [of_connection - in_words]


def commands(group: click.Group, path: str) -> Iterator[tuple[str, str]]:
    """Every command below a group, by the words that run it, with the first sentence of its help."""
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command.get_short_help_str(400)


def test_the_commands_table_is_that_of_the_help() -> None:
    rows = [f"| `{words}` | {help} |" for words, help in commands(cli, "tasks-service")]
    table = "\n".join(["| command | |", "|---|---|", *rows])
    assert table in (ROOT / "deploy" / "README.md").read_text()
