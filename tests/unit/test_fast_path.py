"""The fast path's table of routes."""

from typing import Any

import pytest
from litestar import Litestar, get
from litestar.di import NamedDependency, Provide

from service.tasks.fast_path import FastPath


async def task_request() -> int:
    return 0


async def unused(*_: Any) -> Any:
    raise AssertionError


def test_two_routes_that_it_cannot_tell_apart_stop_the_start() -> None:
    @get("/api/{user_id:str}/tasks/{task_id:str}/notes")
    async def notes(task_request: NamedDependency[int]) -> int:
        return task_request

    @get("/api/{user_id:str}/tasks/archived/notes")
    async def archived(task_request: NamedDependency[int]) -> int:
        return task_request

    provided = {"task_request": Provide(task_request)}
    FastPath(Litestar([notes], dependencies=provided), unused, otherwise=unused)
    with pytest.raises(ValueError, match=r"GET .*/notes and .*/notes look the same"):
        FastPath(Litestar([notes, archived], dependencies=provided), unused, otherwise=unused)
