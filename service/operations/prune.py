"""`tasks-service prune`: removes idempotency records past their 24 hours, in small batches, so that no statement holds
locks for long.
"""

import asyncio

import click
import msgspec
from click import ClickException

from service.database import Database, Failure, Statement, Unavailable, read
from service.monitoring import logs
from service.operations.in_use import service_url, settings_or_exit
from service.operations.migrate import MigrationError, require_applied
from service.operations.migrate.session import connect
from service.paths import root
from service.settings import Settings

BATCH_ROWS = 1000


def _statement(name: str) -> Statement[None]:
    return Statement(name, read(root() / "sql" / "operations", name), {"rows": int}, lambda *_: None)


PRUNE = _statement("prune")
PRUNE_CITUS = _statement("prune_citus")
CITUS: Statement[bool] = Statement("citus", read(root() / "sql" / "operations", "citus"), {}, bool)


async def remove_expired(database: Database) -> int:
    """The number of records removed. Raises service.database.Failure."""
    statement = PRUNE_CITUS if await database.fetch_one(CITUS) else PRUNE
    removed = 0
    while count := await database.execute(statement, BATCH_ROWS):
        removed += count
    return removed


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def prune(as_json: bool) -> None:
    """Removes expired idempotency records.

    Those older than 24 hours, in small batches; safe while serving.
    """
    settings = settings_or_exit()
    logs.configure("error", settings.log_format)
    try:
        with service_url(settings) as url:
            with connect(url, "tasks-service prune") as session:
                require_applied(session)
            removed = asyncio.run(_prune(url, settings))
    except MigrationError as error:
        raise ClickException(str(error)) from None
    except Failure as failure:
        named = " (DATABASE_URL)" if isinstance(failure, Unavailable) and not settings.embedded else ""
        raise ClickException(f"nothing more could be removed: {failure}{named}") from None
    click.echo(msgspec.json.encode({"removed": removed}) if as_json else f"removed {removed} idempotency records")


async def _prune(url: str, settings: Settings) -> int:
    database = Database(url, connections=2, prepare=settings.db_prepare, connect_timeout_s=settings.connect_timeout_s)
    await database.open()
    try:
        return await remove_expired(database)
    finally:
        await database.close()
