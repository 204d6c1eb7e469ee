"""Writes of the same row follow each other. No I/O."""

import asyncio
from typing import Any

import pytest

from service.database import Statement, TimedOut, Unavailable
from service.database.call import Call, CallState, Fetch
from service.database.row_queue import RowQueue

WRITE: Statement[Any] = Statement(
    "write", "-- Writes.\nUPDATE t SET n = 1 WHERE id = %(id)s", {"id": int}, tuple, key=("id",)
)


@pytest.fixture
def queue() -> RowQueue:
    return RowQueue(max_queued=3)


def call(row: int, deadline: float = 10) -> Call:
    values = WRITE.encode((row,))
    return Call(WRITE, (row,), values, Fetch.ONE, asyncio.get_running_loop().create_future(), 0, deadline)


def enter(queue: RowQueue, call: Call) -> bool:
    assert call.key is not None
    return queue.enter(call.key, call)


def leave(queue: RowQueue, call: Call) -> Call | None:
    assert call.key is not None
    return queue.leave(call.key, call)


async def test_the_first_holds_its_row_and_others_follow_in_order(queue: RowQueue) -> None:
    first, second, third = call(1), call(1), call(1)
    assert [enter(queue, one) for one in (first, second, third)] == [True, False, False]
    assert second.state is third.state is CallState.WAITING_FOR_ROW
    assert len(queue) == 2
    assert leave(queue, first) is second
    assert leave(queue, second) is third
    assert leave(queue, third) is None
    assert len(queue.held) == len(queue) == 0


async def test_other_rows_do_not_wait(queue: RowQueue) -> None:
    assert [enter(queue, call(row)) for row in range(5)] == [True] * 5
    assert len(queue.held) == 5


async def test_a_row_has_a_bounded_queue(queue: RowQueue) -> None:
    calls = [call(1) for _ in range(5)]
    assert [enter(queue, one) for one in calls] == [True, False, False, False, False]
    assert calls[4].state is CallState.DONE
    with pytest.raises(Unavailable, match="same row"):
        await calls[4].future
    assert enter(queue, call(2))


async def test_whose_caller_is_gone_is_passed_over(queue: RowQueue) -> None:
    first, gone, third = call(1), call(1), call(1)
    for one in (first, gone, third):
        enter(queue, one)
    gone.future.cancel()
    assert leave(queue, first) is third
    assert gone.state is CallState.DONE


async def test_past_its_deadline_a_call_fails(queue: RowQueue) -> None:
    first, late, patient = call(1), call(1, deadline=1), call(1, deadline=5)
    for one in (first, late, patient):
        enter(queue, one)
    queue.expire(now=2)
    with pytest.raises(TimedOut, match="before it"):
        await late.future
    assert len(queue) == 1
    assert leave(queue, first) is patient


async def test_behind_a_call_that_goes_alone_the_next_goes_alone(queue: RowQueue) -> None:
    """What blocked the one may block the next, and with it its whole group."""
    first, second = call(1), call(1)
    enter(queue, first)
    enter(queue, second)
    first.alone = True
    following = leave(queue, first)
    assert following is second
    assert second.alone


async def test_a_call_changes_state_along_its_table_only() -> None:
    one = call(1)
    with pytest.raises(AssertionError, match="NEW → BACKING_OFF"):
        one.move(CallState.BACKING_OFF)
    one.move(CallState.QUEUED)
    one.move(CallState.IN_FLIGHT)
    one.move(CallState.DONE)
    with pytest.raises(AssertionError, match="DONE → QUEUED"):
        one.move(CallState.QUEUED)
