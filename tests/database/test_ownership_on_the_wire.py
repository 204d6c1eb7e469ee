"""A reply repeated, lost, swapped or delayed on the way from PostgreSQL never shows a user what is another's."""

import asyncio
import random
from collections.abc import Callable

import pytest

from service.database import Database, Failure, InternalError
from service.http.conditional import NO_PRECONDITIONS
from service.tasks.queries import GET, Queries
from service.tasks.schemas import TaskCreate
from tests.database.ground import ECHO, opened
from tests.support.noisy_wire import NoisyWire, RepeatedReply
from tests.support.proxy import Proxy
from tests.support.waiting import until

USERS = 40


class User:
    """One user of forty. Whatever a query returns must be this user's."""

    def __init__(self, queries: Queries, name: str, seed: int) -> None:
        self.queries, self.name = queries, name
        self.ids: list[int] = []
        self.foreign: list[object] = []
        self.failures: list[Failure] = []
        self._random = random.Random(seed)

    async def act(self) -> None:
        try:
            await self._act(self._random.random())
        except Failure as failure:
            self.failures.append(failure)

    async def _act(self, draw: float) -> None:
        queries, name = self.queries, self.name
        if draw < 0.2 or not self.ids:
            task = await queries.create(name, TaskCreate(f"{name} {len(self.ids)}"))
            self._check(task.user_id, task)
            self.ids.append(task.id)
        elif draw < 0.6:
            wanted = self._random.choice(self.ids)
            found = await queries.get(name, wanted)
            if found is not None:
                self._check(found.user_id, found)
                assert found.id == wanted
        elif draw < 0.7:
            for task in await queries.list(name, None, None, 20):
                self._check(task.user_id, task)
        elif draw < 0.95:
            changed = await queries.toggle(name, self._random.choice(self.ids), None, NO_PRECONDITIONS)
            if changed is not None:
                self._check(changed.task.user_id, changed)
        else:
            made = await queries.create_idempotent(name, f"{draw}", b"x", TaskCreate(name))
            self._check(made.user_id, made)

    def _check(self, user_id: str, what: object) -> None:
        if user_id != self.name:
            self.foreign.append(what)


async def act(database: Database, enough: Callable[[], bool]) -> list[User]:
    users = [User(Queries(database), f"user-{n}", n) for n in range(USERS)]

    async def go_on(user: User) -> None:
        while not enough():
            await user.act()

    await asyncio.gather(*(go_on(user) for user in users))
    return users


@pytest.mark.parametrize("disturbances", [20, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("connections", [2, 8])
async def test_no_user_ever_gets_a_row_of_another(
    clone: Callable[[], str], connections: int, disturbances: int
) -> None:
    wire = NoisyWire(seed=connections, every=100)
    # A message that is lost can leave a reply that never ends: the statement limit ends it.
    short = {"connect_timeout_s": 0.5, "statement_timeout_s": 0.3, "grace_s": 0.5}
    async with Proxy(clone()) as proxy, opened(proxy.url, connections=connections, **short) as database:
        await database.fetch_one(ECHO, 1)
        proxy.edit = wire
        users = await act(database, lambda: wire.made.total() >= disturbances)
        wire.on = False
        assert [user.foreign for user in users if user.foreign] == []
        assert database.stats.lost >= disturbances / 10
        assert await database.fetch_one(ECHO, 7) == 7


async def test_a_reply_too_many_shows_nobody_anothers_task(clone: Callable[[], str]) -> None:
    """The one reply that a proxy repeats shifts all that follow on its connection by one."""
    wire = RepeatedReply(every=15)
    async with Proxy(clone()) as proxy, opened(proxy.url, connections=2, grace_s=0.5) as database:
        await database.fetch_one(ECHO, 1)
        proxy.edit = wire
        users = await act(database, lambda: wire.made >= 20)
        wire.on = False
        assert [user.foreign for user in users if user.foreign] == []
        assert database.stats.lost >= 3
        failures = [failure for user in users for failure in user.failures if isinstance(failure, InternalError)]
        assert failures
        assert all("PostgreSQL's reply" in str(failure) for failure in failures)


async def test_what_arrives_while_nothing_is_in_flight_ends_the_lane(url: str) -> None:
    """Left there, it would be the reply to the next statement."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=2) as database:
        await database.fetch_one(ECHO, 1)
        reply = b""

        def repeat(message: bytes) -> bytes:
            nonlocal reply
            reply += message
            return message + reply if message[:1] == b"Z" else message

        proxy.edit = repeat
        assert await database.fetch_one(ECHO, 2) == 2
        proxy.edit = None
        await until(lambda: database.stats.lost == 1)
        assert await database.fetch_one(ECHO, 3) == 3


async def test_the_foreign_row_itself_is_an_internal_error_and_ends_the_lane(clone: Callable[[], str]) -> None:
    """PostgreSQL answers with another user's task."""
    async with Proxy(clone()) as proxy, opened(proxy.url, connections=2) as database:
        queries = Queries(database)
        mine = await queries.create("mine", TaskCreate("x"))
        await queries.get("mine", mine.id)
        proxy.edit = lambda message: message.replace(b"mine", b"your") if message[:1] == b"D" else message
        with pytest.raises(InternalError, match=f"{GET.name}: .* a row that was not asked for"):
            await queries.get("mine", mine.id)
        assert database.stats.lost == 1
        proxy.edit = None
        assert await queries.get("mine", mine.id) == mine
