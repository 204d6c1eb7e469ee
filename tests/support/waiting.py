"""Waits for conditions that have no event, by polling, up to a limit. Imports neither the service nor
other helpers.
"""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import TypeVar

T = TypeVar("T")
PAUSE_S = 0.005


def wait_until(condition: Callable[[], T | None], timeout_s: float = 10, why: Callable[[], object] | None = None) -> T:
    """The condition's first true value. AssertionError after `timeout_s`, with what `why` gives then."""
    end = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        _check(end, timeout_s, why)
        time.sleep(PAUSE_S)


async def until(
    condition: Callable[[], object], timeout_s: float = 10, why: Callable[[], object] | None = None
) -> None:
    """Returns when the condition is true, on an event loop. It may be a coroutine function."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if await value if isawaitable(value) else value:
            return
        _check(end, timeout_s, why)
        await asyncio.sleep(PAUSE_S)


def _check(end: float, timeout_s: float, why: Callable[[], object] | None) -> None:
    assert time.monotonic() < end, f"not within {timeout_s} s{'' if why is None else f': {why()}'}"
