"""Which requests begin at once and which wait; and one caller's many requests leave time to others."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from service.http import errors, turns
from service.http.capacity import Capacity
from service.http.errors import ApiError
from service.http.load_shedding import error_in_turn, in_turn, shedding
from service.http.place import Place
from service.http.request_record import RequestRecord, record_of
from service.http.responses import Response
from service.http.turns import ALONE, MAX_UNPLACED, MAX_UNQUEUED, Turns


def filled(max_per_user: int = MAX_UNQUEUED, max_waiting: int = 1000) -> Turns:
    """User `a` has its share."""
    places = Turns(max_per_user, max_waiting)
    for _ in range(min(max_per_user, MAX_UNQUEUED)):
        assert places.enter("a") is True
    return places


def waits(begin: turns.Begin) -> "asyncio.Future[bool]":
    assert not isinstance(begin, bool)
    return begin


async def ended(begin: turns.Begin) -> bool:
    async with asyncio.timeout(5):
        return await waits(begin)


async def test_a_request_above_the_share_begins_when_a_place_is_free_and_others_begin_at_once() -> None:
    places = filled()
    first, second = waits(places.enter("a")), waits(places.enter("a"))
    assert places.enter("b") is True
    await asyncio.sleep(0.02)
    assert not first.done()
    places.leave("a")
    assert await ended(first)
    await asyncio.sleep(0.02)
    assert (second.done(), places.waiting) == (False, 1)
    places.leave("a")
    assert await ended(second)
    places.leave("a")
    await asyncio.sleep(0.02)
    assert places.enter("a") is True  # the queue is gone


async def test_without_a_place_it_is_rejected_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MAX_TURN_WAIT_S", 0.05)
    places = filled()
    begin = time.monotonic()
    assert await ended(places.enter("a")) is False
    assert 0.05 <= time.monotonic() - begin < 1


async def test_as_many_wait_as_memory_allows() -> None:
    places = filled(max_waiting=3)
    kept = [waits(places.enter("a")) for _ in range(3)]
    assert places.enter("a") is False
    kept[0].cancel()
    places.leave("a")
    assert await ended(kept[1])


async def test_a_client_that_connects_again_is_not_counted_twice() -> None:
    places = filled(max_waiting=3)
    for _ in range(5):
        gone = [waits(places.enter("a")) for _ in range(3)]
        for begin in gone:
            begin.cancel()
        await asyncio.sleep(0)
        assert places.waiting == 0
    assert not isinstance(places.enter("a"), bool)


async def test_a_client_that_has_gone_takes_no_place() -> None:
    places = filled()
    gone, second = waits(places.enter("a")), waits(places.enter("a"))
    gone.cancel()
    places.leave("a")
    assert await ended(second)


async def test_the_end_of_the_server_ends_the_wait() -> None:
    places = filled()
    waiting, unknown = waits(places.enter("a")), [places.pass_by("::1") for _ in range(MAX_UNPLACED + 1)]
    places.close()
    assert await ended(waiting) is False
    assert await ended(unknown[-1]) is True  # there are no places for it to wait for
    assert places.enter("a") is False
    places.leave("a")
    assert places.enter("a") is True  # although its queue is still there
    assert places.enter("b") is True


async def test_users_with_many_requests_take_turns_unless_nobody_else_calls() -> None:
    places = Turns(5000, 5000)
    first = [places.enter("bc"[i % 2]) for i in range(2 * (MAX_UNQUEUED + 1) + ALONE)]
    assert [begin is True for begin in first].count(True) == 2 * MAX_UNQUEUED
    assert (places.enter("b"), places.enter("c")) == (True, True)
    assert places.enter("a") is True
    assert not isinstance(places.enter("b"), bool)


async def test_a_user_who_had_many_requests_soon_counts_as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HEAVY_S", 0.05)
    places = Turns(5000, 5000)
    for _ in range(MAX_UNQUEUED + 1):
        places.enter("c")
    for _ in range(MAX_UNQUEUED + 1 + ALONE):
        places.enter("b")
    places.enter("c")
    assert places.enter("b") is True
    for _ in range(MAX_UNQUEUED + 1):
        places.leave("c")
    async with asyncio.timeout(5):
        while places.enter("b") is True:
            places.enter("c")
            places.leave("c")
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("user", [True, False], ids=["a user", "an address"])
async def test_requests_that_cost_much_leave_the_loop_to_others(user: bool) -> None:
    """Each keeps the loop for 3 ms, as /metrics does. All at once, they would keep it for 600."""
    places = Turns(1000, 1000)
    begun: Counter[int] = Counter()  # by the loop's iteration
    iteration = 0

    async def costly() -> None:
        begin = places.enter("a") if user else places.pass_by("::1")
        if begin is True or await waits(begin):
            begun[iteration] += 1
            end = time.thread_time() + 0.003
            while time.thread_time() < end:
                pass
            if user:
                await asyncio.sleep(0.001)  # at the database
                places.leave("a")

    places.enter("b")
    tasks = [asyncio.create_task(costly()) for _ in range(200)]
    while not all(task.done() for task in tasks[:60]):
        await asyncio.sleep(0)
        iteration += 1
    for task in tasks:
        task.cancel()
    assert sum(begun.values()) >= 60
    assert max(begun.values()) <= (MAX_UNQUEUED if user else MAX_UNPLACED)
    assert Counter(begun.values())[1] > 30  # one at a time, once it is known that they cost much
    assert iteration > 2 * len(begun)  # and between them, others


async def test_what_was_given_to_a_request_that_is_cancelled_is_given_back() -> None:
    """The place is its own before it knows."""
    capacity = Capacity(10, max_per_user=1, max_buffered=1_000_000)
    capacity.turns.enter("a")
    record = RequestRecord("GET", [])
    place = record.place = Place(capacity)

    async def request() -> None:
        try:
            begin = place.enter_user("a")
            assert begin is not None
            await place.wait_for_user("a", begin, [])
        finally:
            place.leave()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    assert (capacity.in_flight, capacity.buffered > 0, capacity.turns.waiting) == (0, True, 1)
    capacity.turns.leave("a")
    while capacity.turns.waiting:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (capacity.in_flight, capacity.buffered) == (0, 0)
    assert capacity.turns.enter("a") is True


async def test_a_probe_that_waited_is_not_rejected() -> None:
    capacity = Capacity(0, max_per_user=1, max_buffered=10_000_000)
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])

    async def request(path: str) -> int | None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": ("::1", 1)}
        record_of(scope)
        await shedding(in_turn(app), capacity)(scope, None, send)
        return sent[0]["status"] if sent else None

    async with asyncio.timeout(5):
        assert set(await asyncio.gather(*(request("/livez") for _ in range(20)))) == {None}
        assert await request("/docs") == 503
    assert served == ["/livez"] * 20


async def test_probes_are_not_rejected_where_memory_is_used_up_or_many_wait() -> None:
    """Those of all who call through one proxy wait in one queue."""
    capacity = Capacity(10, max_per_user=1, max_buffered=0)  # nothing may wait
    served = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal served
        served += 1

    async def request(path: str) -> None:
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": ("::1", 1)}
        record = record_of(scope)
        place = record.place = Place(capacity)
        try:
            await in_turn(app)(scope, None, None)
        finally:
            place.leave()

    async with asyncio.timeout(5):
        await asyncio.gather(*(request(path) for path in ("/livez", "/readyz", "/metrics") for _ in range(20)))
        assert served == 60
        rejected = await asyncio.gather(*(request("/docs") for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(error, ApiError) for error in rejected) == 20 - MAX_UNPLACED
    assert (capacity.in_flight, capacity.buffered) == (0, 0)


async def error_that_waits(capacity: Capacity, record: RequestRecord) -> "asyncio.Task[Response]":
    """The response to a 404 of user `a`, behind as many as need not wait."""
    record.user_id = "a"
    for _ in range(MAX_UNPLACED):
        capacity.turns.pass_by("a")
    scope = {"path": "/api/a/tasks/1"}
    waiting = asyncio.create_task(error_in_turn(errors.not_found(), scope, record))
    await asyncio.sleep(0)
    assert capacity.turns.waiting == 1
    return waiting


@pytest.mark.parametrize("error", [True, False], ids=["an error", "a place"])
async def test_the_time_in_which_a_request_waits_is_not_its_duration_the_rest_is(error: bool) -> None:
    """An error waits after it was at the database; what waits for a place was authenticated before."""
    capacity = Capacity(10, max_per_user=1, max_buffered=1_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        record.began -= 2.0
        if error:
            await (await error_that_waits(capacity, record))
            return
        assert capacity.turns.enter("a") is True
        begin = record.place.enter_user("a")
        assert begin is not None
        asyncio.get_running_loop().call_later(0.2, capacity.turns.leave, "a")
        await record.place.wait_for_user("a", begin, [])

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    record = record_of(scope)
    began = record.began
    await shedding(app, capacity)(scope, None, None)
    waited = record.place.waited_s
    assert waited > (0 if error else 0.19)
    assert record.began == pytest.approx(began - 2.0 + waited)


async def test_an_error_that_waits_for_its_turn_leaves_its_place_to_others() -> None:
    """A 412 comes after a statement: it has a place of its user's share."""
    capacity = Capacity(10, max_per_user=1, max_buffered=1_000_000)
    record = RequestRecord("GET", [])
    place = record.place = Place(capacity)
    assert place.enter_user("a") is None
    waiting = await error_that_waits(capacity, record)
    assert capacity.in_flight == 0
    assert capacity.turns.enter("a") is True
    assert (await waiting).status == 404
    place.leave()
    capacity.turns.leave("a")
    assert (capacity.in_flight, capacity.buffered) == (0, 0)


async def test_no_memory_to_wait_is_503_and_leaves_the_queue() -> None:
    capacity = Capacity(10, max_per_user=1, max_buffered=1_000_000)
    capacity.buffered = 1_000_000
    capacity.turns.enter("a")
    record = RequestRecord("GET", [])
    place = record.place = Place(capacity)
    begin = place.enter_user("a")
    assert begin is not None
    with pytest.raises(ApiError) as error:
        await place.wait_for_user("a", begin, [])
    place.leave()
    assert (error.value.status, begin.cancelled()) == (503, True)
