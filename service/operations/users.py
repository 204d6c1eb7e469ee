"""`tasks-service user …`: what is kept about a user, given out or deleted. Both through the owner's role."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

import click
import msgspec
import psycopg
from click import ClickException

from service.monitoring import logs
from service.operations.group import Group
from service.operations.in_use import owner_url, settings_or_exit
from service.operations.migrate import MigrationError, require_applied
from service.operations.migrate.session import Session, connect, first_line
from service.operations.sql import query

log = logging.getLogger("service.operations")

BATCH_ROWS = 1000  # few enough that locks are short, enough that a million tasks take a minute
FETCH_ROWS = 500


@click.group(cls=Group)
def user() -> None:
    """Exports or deletes what is kept about a user."""


@user.command()
@click.argument("user_id", metavar="ID")
def export(user_id: str) -> None:
    """Prints what is kept about a user, as JSON lines.

    The user, the tasks, the idempotency keys of the last 24 hours; as of one moment, and streamed.
    """
    with _session() as session:
        found = False
        connection = session.connection
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            with connection.cursor("user_export") as cursor:
                cursor.itersize = FETCH_ROWS
                cursor.execute(query("user_export", session.schema), {"user": user_id})
                for (line,) in cursor:
                    found = True
                    click.echo(line)
        if not found:
            raise ClickException("there is no such user")
        log.info("a user was exported", extra={"role": connection.info.user})


@user.command()
@click.argument("user_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def delete(user_id: str, yes: bool, as_json: bool) -> None:
    """Deletes a user with all tasks and idempotency keys.

    In batches, safe while serving. A user whose token still holds can create tasks again.
    """
    with _session() as session:
        if not session.fetch_one("user_exists", user=user_id)[0]:
            raise ClickException("there is no such user")
        if not yes:
            click.confirm("Delete this user and every task? This cannot be undone", abort=True, err=True)
        deleted = 0
        try:
            count = BATCH_ROWS
            while count == BATCH_ROWS:  # one that is not full is the last, however fast the user creates more
                count = session.execute("user_delete_tasks", user=user_id, rows=BATCH_ROWS).rowcount
                deleted += count
            session.execute("user_delete", user=user_id)
        except psycopg.Error as error:
            raise ClickException(
                f"{deleted} tasks were deleted, the rest is still there: {first_line(error)}; run it again"
            ) from None
        left = session.fetch_one("user_exists", user=user_id)[0]
        log.info("a user was deleted", extra={"tasks": deleted, "role": session.connection.info.user})
    if as_json:
        click.echo(msgspec.json.encode({"tasks": deleted, "left": bool(left)}))
    else:
        click.echo(f"deleted the user and {deleted} tasks")
        if left:
            click.echo("the user has created a task meanwhile: run it again once the token has expired", err=True)


@contextmanager
def _session() -> Generator[Session]:
    settings = settings_or_exit()
    logs.configure("info", settings.log_format)
    try:
        with owner_url(settings) as url, connect(url, "tasks-service user") as session:
            require_applied(session)
            yield session
    except MigrationError as error:
        raise ClickException(str(error)) from None
    except psycopg.Error as error:
        raise ClickException(f"the database refused: {first_line(error)}") from None
