"""What the `migrate` commands print."""

import sys
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from service.operations.migrate.files import Migration
from service.operations.migrate.history import State

COLOURS = {"applied": "green", "pending": "yellow", "changed": "red", "incomplete": "red", "unknown": "red"}
MEANINGS = {
    "changed": "the file is not the one that was applied",
    "incomplete": "begun and not finished: the same command finishes it",
    "unknown": "no such file here: the schema is ahead",
}


class Progress:
    """A line for each migration; on a terminal it is there from when the migration begins."""

    def __init__(self, done: str, *, quiet: bool) -> None:
        self._done = done
        self._quiet = quiet

    def __call__(self, migration: Migration, seconds: float | None) -> None:
        if self._quiet:
            return
        if seconds is not None:
            click.echo(f"{click.style(self._done, fg='green')} {migration.id} ({seconds:.2f} s)")
        elif sys.stdout.isatty():
            click.echo(f"{migration.id} …\r", nl=False)


def print_states(states: Sequence[State]) -> None:
    width = max(len(state.id) for state in states)
    for state in states:
        text = click.style(f"{state.state:7}", fg=COLOURS[state.state])
        when = f"  {state.applied_at:%Y-%m-%d %H:%M:%S} UTC" if state.applied_at else ""
        meaning = f"  ({MEANINGS[state.state]})" if state.state in MEANINGS else ""
        click.echo(f"{state.id:{width}}  {(text + when + meaning).rstrip()}")


def print_plan(plan: list[Migration], direction: str, as_json: bool) -> None:
    """The statements as they are run: what is printed can be given to psql."""
    steps = [
        (m.id, m.transactional, m.statements)
        if direction == "apply"
        else (m.id, m.rollback_transactional, m.rollback or ())
        for m in plan
    ]
    if as_json:
        print_json([{"id": name, "transactional": whole, "statements": texts} for name, whole, texts in steps])
        return
    for name, transactional, statements in steps:
        click.echo(f"-- {direction} {name}" + ("" if transactional else ", outside a transaction"))
        body = [text.strip().rstrip(";") + ";" for text in statements]
        for text in ["BEGIN;", *body, "COMMIT;"] if transactional else body:
            click.echo(text)
        click.echo()


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))
