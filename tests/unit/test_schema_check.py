"""When the statements are compared with the schema, and what is known of it meanwhile. No PostgreSQL."""

import asyncio
from collections.abc import Sequence
from typing import Any

from service.database import InternalError, Statement, Unavailable
from service.database.schema_check import SchemaCheck

FIRST: Statement[Any] = Statement("first", "-- One.\nSELECT 1", {}, tuple)
SECOND: Statement[Any] = Statement("second", "-- Two.\nSELECT 2", {}, tuple)
GONE = InternalError("no such table", "42P01")


async def test_a_statement_that_fails_during_the_check_is_compared_again() -> None:
    """It fitted when it was compared, and failed for a request before the check ended."""
    let_go = asyncio.Event()

    async def execute(statement: Statement[Any], values: Sequence[object]) -> int:
        if statement.name == "explain_second":
            await let_go.wait()
        return 0

    check = SchemaCheck([FIRST, SECOND], execute)
    running = asyncio.ensure_future(check.run())
    await asyncio.sleep(0)
    check.doubt(FIRST, GONE)
    let_go.set()
    await running
    assert check.pending
    assert check.mismatch == "first: no such table"
    await check.run()
    assert (check.pending, check.mismatch) == (False, None)


async def test_a_check_that_could_not_end_is_done_again() -> None:
    fails = iter([Unavailable("the connection was lost"), Unavailable("no room", "53300"), GONE])

    async def execute(statement: Statement[Any], values: Sequence[object]) -> int:
        if (error := next(fails, None)) is not None:
            raise error
        return 0

    check = SchemaCheck([FIRST], execute)
    for mismatch in ["no statement was compared with the schema yet"] * 2 + ["first: no such table"]:
        await check.run()
        assert (check.pending, check.mismatch) == (True, mismatch)
    await check.run()
    assert (check.pending, check.mismatch) == (False, None)
