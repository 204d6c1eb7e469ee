"""Connections: opening and closing them, within one bound for reads and writes together.

A lane keeps its connection for minutes. Lanes are opened as load asks for them, given back when they are idle, and
replaced when they are old. While the database cannot be reached, attempts go on in the background with a random
backoff.

A `Connector` opens and closes the connections, so that tests need no PostgreSQL.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from service.database.failures import Unavailable
from service.database.lane import Lane, LaneState
from service.database.lane_pool import LanePool
from service.database.stats import Stats

log = logging.getLogger("service.database")

BACKOFF_S = (0.05, 0.5)  # between attempts to connect, random: many processes must not try in step
# A lane without work for so long gives its connection back, except the last of each kind.
MAX_IDLE_S = 60.0
# A lane older than this (random within the range) drains and gives its connection back, so that failovers and
# rebalancing are followed.
MAX_LIFETIME_S = (600.0, 900.0)
HOUSEKEEPING_S = 5.0


class Connector(Protocol):
    async def open(self, lifetime_s: float) -> Lane:
        """A new lane. Raises Unavailable."""
        ...

    async def close(self, lane: Lane) -> None:
        """Closes a closed lane's connection."""
        ...


class Connections:
    """The connections of two pools, `max_open` at most, at least one for each pool. `on_reachable` is called after each
    connection that was opened, and from time to time.
    """

    def __init__(
        self,
        connector: Connector,
        pools: tuple[LanePool, LanePool],
        stats: Stats,
        *,
        max_open: int,
        on_reachable: Callable[[], None],
    ) -> None:
        self.opened = 0  # those being opened or closed included
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing = False
        self._connector = connector
        self._pools = pools
        self._stats = stats
        self._max_open = max_open
        self._on_reachable = on_reachable
        self._opening: dict[LanePool, asyncio.Task[None]] = {}
        self._next_attempt: dict[LanePool, float] = dict.fromkeys(pools, 0.0)
        self._connected = False  # ever
        self._complaints: dict[LanePool, str] = {}  # why the last attempt failed, as it was logged
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reachable(self) -> bool:
        """Whether connections can be had, for reads and for writes, by what is already known."""
        return self._connected and all(pool.down_since is None for pool in self._pools)

    @property
    def lanes(self) -> int:
        return sum(len(pool.lanes) + len(pool.retiring) for pool in self._pools)

    def pool_of(self, lane: Lane) -> LanePool:
        reads, writes = self._pools
        return reads if lane in reads.lanes or lane in reads.retiring else writes

    def grow(self, pool: LanePool) -> None:
        """Begins to open one lane more, unless one is being opened; at the bound, takes over one that idles."""
        if pool in self._opening or self.closing:
            return
        other = self._other(pool)
        kept = 0 if other.lanes or other in self._opening else 1  # the other kind's first lane
        if self.opened + kept < self._max_open:
            self.opened += 1
            self._opening[pool] = self.spawn(self._open(pool))
        elif len(other.lanes) > 1:
            for lane in other.lanes:
                if lane.idle and lane.state is LaneState.OPEN:
                    other.lanes.remove(lane)
                    self._add(pool, lane)
                    break

    def give_back(self, pool: LanePool, lane: Lane) -> None:
        """Closes an empty lane."""
        self._drop(pool, lane)
        lane.close()
        self.spawn(self._discard(lane))

    def lose(self, lane: Lane) -> None:
        """The lane's connection broke."""
        self._drop(self.pool_of(lane), lane)
        self._stats.lost += 1
        self.spawn(self._discard(lane))

    def empty_retired(self, pool: LanePool) -> None:
        """Retired lanes that are empty by now are given back, or go to the other kind where that can get none."""
        other = self._other(pool)
        for lane in [lane for lane in pool.retiring if lane.idle]:
            if other.lanes or other.down_since is None:
                self.give_back(pool, lane)
            else:
                pool.retiring.remove(lane)
                lane.move(LaneState.OPEN)
                self._add(other, lane)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def housekeep(self) -> None:
        """Gives back what is idle or old. Goes on by itself until `stop`."""
        self._timer = self._loop.call_later(HOUSEKEEPING_S, self.housekeep)  # first: a bug below must not end it
        now = self._loop.time()
        for pool in self._pools:
            for lane in tuple(pool.lanes):
                idle_s = now - lane.idle_since if lane.idle else 0.0
                if idle_s > MAX_IDLE_S and len(pool.lanes) > 1:
                    self.give_back(pool, lane)
                elif now > lane.retires_at and idle_s < HOUSEKEEPING_S:
                    self.grow(pool)  # in use: its successor comes first, where there is room for one
            if pool not in self._opening:
                self._retire(pool, now)
            self.empty_retired(pool)
        if self.reachable:
            self._on_reachable()

    async def stop(self, timeout_s: float, reason: str) -> None:
        """Opens nothing more, and closes what there is."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._opening.values():
            task.cancel()
        for pool in self._pools:
            for lane in (*pool.lanes, *pool.retiring):
                if lane.groups:
                    lane.lose(reason)
                else:
                    self.give_back(pool, lane)
            pool.close(reason)
        while self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=timeout_s)
            for task in late:
                task.cancel()

    def _other(self, pool: LanePool) -> LanePool:
        return self._pools[pool is self._pools[0]]

    def _drop(self, pool: LanePool, lane: Lane) -> None:
        (pool.lanes if lane in pool.lanes else pool.retiring).remove(lane)

    def _add(self, pool: LanePool, lane: Lane) -> None:
        pool.lanes.append(lane)
        pool.down_since = None
        pool.dispatch()

    def _retire(self, pool: LanePool, now: float) -> None:
        """Old lanes take nothing new."""
        for lane in [lane for lane in pool.lanes if now > lane.retires_at]:
            pool.lanes.remove(lane)
            lane.move(LaneState.RETIRING)
            pool.retiring.append(lane)

    async def _open(self, pool: LanePool) -> None:
        lane = None
        try:
            await asyncio.sleep(self._next_attempt[pool] - self._loop.time())
            self._stats.connects += 1
            lane = await self._connector.open(random.uniform(*MAX_LIFETIME_S))  # noqa: S311
        except Unavailable as error:
            self._unreachable(pool, str(error))
        finally:
            del self._opening[pool]
            if lane is None:
                self.opened -= 1
        if lane is None:
            if not pool.lanes:
                self.grow(pool)  # though nothing is queued: a service without requests would never be ready again
            return
        if self._complaints.pop(pool, None) is not None:
            log.warning("the database is reachable again")
        self._connected = True
        self._retire(pool, self._loop.time())
        self._add(pool, lane)
        self._on_reachable()

    def _unreachable(self, pool: LanePool, reason: str) -> None:
        self._stats.unreachable += 1
        now = self._loop.time()
        if reason != self._complaints.get(pool):
            self._complaints[pool] = reason
            log.warning("the database cannot be reached: %s", reason)
        if not pool.lanes:
            pool.down_since = pool.down_since or now
            # PostgreSQL may allow fewer connections than the bound, and the other kind have them all.
            other = self._other(pool)
            if len(other.lanes) > 1 and not other.retiring:
                lane = other.lanes.pop()
                lane.move(LaneState.RETIRING)
                other.retiring.append(lane)
                self.empty_retired(other)
        down_s = 0.0 if pool.down_since is None else now - pool.down_since
        backoff_s = random.uniform(BACKOFF_S[0], min(BACKOFF_S[1], 0.1 + down_s / 10))  # noqa: S311
        self._next_attempt[pool] = now + backoff_s
        if pool.down_since is not None:
            pool.give_up(now)

    async def _discard(self, lane: Lane) -> None:
        try:
            await self._connector.close(lane)
        finally:
            self.opened -= 1
