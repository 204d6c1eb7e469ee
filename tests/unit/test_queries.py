"""What becomes of a write that other writes of the task overtake."""

from datetime import UTC, datetime
from typing import cast

import pytest

from service.database import Database, Unavailable
from service.http.conditional import NO_PRECONDITIONS
from service.tasks.queries import MAX_OVERTAKEN, Changed, Queries
from service.tasks.schemas import Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Overtaken:
    """A database in which another write is always faster. A real one does that only by chance."""

    def __init__(self) -> None:
        self.sent = 0

    async def fetch_one(self, *_: object) -> Changed:
        self.sent += 1
        return Changed(False, Task(1, "u", "t", None, False, self.sent, NOW, NOW))


async def test_a_write_that_others_always_overtake_is_given_up() -> None:
    database = Overtaken()
    with pytest.raises(Unavailable):
        await Queries(cast(Database, database)).toggle("u", 1, True, NO_PRECONDITIONS)
    assert database.sent == MAX_OVERTAKEN == 10
