"""Large pages and responses: in slices that delay nobody, and counted as memory meanwhile."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime
from sys import getsizeof
from time import thread_time

import pytest

from service.http.capacity import Capacity
from service.http.errors import ApiError
from service.http.place import Place
from service.http.request_record import RequestRecord
from service.http.responses import Response, encode
from service.http.slices import LargeWork, Slices
from service.tasks.pages import encode_page
from service.tasks.schemas import Task
from tests.unit.test_batch import longest_wait_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = [Task(number, "u", "t", "\x01" * 5000, False, 1, NOW, NOW) for number in range(250)]


def place(max_buffered: int = 10**9) -> tuple[Capacity, Place]:
    capacity = Capacity(10, max_per_user=10, max_buffered=max_buffered)
    return capacity, Place(capacity)


async def test_no_large_page_holds_the_loop_while_it_is_encoded() -> None:
    _, mine = place()
    assert await longest_wait_s(encode_page(mine, TASKS, 10**9)) < 0.015  # as a whole: 30 ms
    assert await encode_page(mine, TASKS, 10**9) == (encode(TASKS), len(TASKS))


async def test_many_large_pages_hold_the_loop_no_longer_than_one() -> None:
    """With pauses for each page, 16 of them held it for 40 ms at once."""
    capacity, _ = place()
    pages = [encode_page(Place(capacity), TASKS, 10**9) for _ in range(16)]
    assert await longest_wait_s(asyncio.wait(list(map(asyncio.create_task, pages)))) < 0.015


async def test_the_slices_of_many_requests_of_one_user_do_not_delay_those_of_another() -> None:
    work = LargeWork()
    order: list[str] = []

    async def large(user_id: str, steps: int) -> None:
        slices = Slices(work, user_id)
        await slices.begin()
        for _ in range(steps):
            end = thread_time() + 0.002
            while thread_time() < end:
                pass
            order.append(user_id)
            await slices.pause()

    async with asyncio.TaskGroup() as tasks:
        many = [tasks.create_task(large("many", 5)) for _ in range(8)]
        await asyncio.sleep(0)
        many[3].cancel()  # its client has gone: nobody waits for its turn
        tasks.create_task(large("few", 3))
    assert order[:7].count("few") == 3
    assert order.count("many") == 7 * 5


async def test_large_statements_of_one_user_leave_room_to_another() -> None:
    capacity, _ = place()
    capacity.large_work.note_read("many", 0.002)
    capacity.large_work.note_read("few", 0.0005)
    running: list[str] = []
    end = asyncio.Event()

    async def read(user_id: str) -> None:
        mine = Place(capacity)
        assert mine.enter_user(user_id) is None
        assert mine.reads_much is (user_id == "many")
        async with mine.large_read() if mine.reads_much else nullcontext():
            running.append(user_id)
            await end.wait()
        mine.leave()

    async with asyncio.TaskGroup() as tasks:
        for user_id in ["many"] * 8 + ["few"]:
            tasks.create_task(read(user_id))
        for _ in range(10):
            await asyncio.sleep(0)
        assert sorted(running) == ["few", "many", "many"]
        assert capacity.in_flight == 4  # and the one of `place`; those that wait take no place
        end.set()
    assert running.count("many") == 8


async def test_a_page_counts_as_memory_while_others_have_their_turn() -> None:
    capacity, mine = place()
    encoding = asyncio.create_task(encode_page(mine, TASKS, 10**9))
    await asyncio.sleep(0)
    assert capacity.buffered == len(TASKS) * getsizeof(TASKS[0].description)
    await encoding
    assert capacity.buffered == 0
    _, full = place(max_buffered=1000)
    with pytest.raises(ApiError):
        await encode_page(full, TASKS, 10**9)
    assert (await encode_page(full, TASKS, 10**9, check=False))[1] == len(TASKS)


async def test_no_large_response_holds_the_loop_while_a_fast_client_takes_it() -> None:
    record = RequestRecord("GET", [])
    _, record.place = place()

    async def send(_: object) -> None:
        end = thread_time() + 0.001
        while thread_time() < end:
            pass

    response = Response(200, b"x" * 30 * 64 * 1024)
    assert await longest_wait_s(response({"record": record}, None, send)) < 0.015
