"""The ledger itself: books that do not balance are found out."""

import psycopg
import pytest

from tests.faults.conftest import Serve
from tests.support.ledger import Load

FRAUDS: dict[str, tuple[str, str]] = {
    "a promise was broken": ("DELETE FROM tasks WHERE id = (SELECT max(id) FROM tasks)", "not there"),
    "done twice": ("INSERT INTO tasks (user_id, title) SELECT user_id, title FROM tasks LIMIT 1", "twice"),
    "another id": (
        "INSERT INTO tasks (user_id, id, title) OVERRIDING SYSTEM VALUE"
        " SELECT user_id, id + 1000, title FROM tasks WHERE title = '0:1';"
        "DELETE FROM tasks WHERE title = '0:1' AND id < 1000",
        "not there",
    ),
    "nobody asked": ("INSERT INTO tasks (user_id, title) SELECT user_id, 'strange' FROM tasks LIMIT 1", "nobody asked"),
}


@pytest.fixture
async def load(url: str, serve: Serve) -> Load:
    async with Load(serve(url).url, 4) as load:
        await load.more(20)
    return load


async def test_ledger_finds_lost_doubled_and_invented_writes(url: str, load: Load) -> None:
    load.check(url)
    for sql, said in FRAUDS.values():
        with psycopg.connect(url) as admin:
            admin.execute("CREATE TABLE honest AS SELECT * FROM tasks")
            admin.execute(sql.encode())
            admin.commit()
            with pytest.raises(AssertionError, match=said):
                load.check(url)
            admin.execute("DELETE FROM tasks")
            admin.execute("INSERT INTO tasks OVERRIDING SYSTEM VALUE SELECT * FROM honest")
            admin.execute("DROP TABLE honest")
            admin.commit()
    load.check(url)
    load.surprises.append("500")
    with pytest.raises(AssertionError, match="500"):
        load.check(url)
