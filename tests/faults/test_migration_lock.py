"""One migrator at a time, whatever happens to it: many at once, killed at any point, cut off, or somebody else's."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.queues import Queue
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from service.operations import migrate
from service.operations.migrate import MigrationError, lock
from service.operations.migrate import session as sessions
from service.operations.migrate.cli import migrate as command
from tests.support.databases import applied, schema, wipe
from tests.support.waiting import wait_until

IDS = migrate.ids()


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes processes that have everything loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.test_migration_lock"])
    return context


def look(url: str) -> lock.Holder | None:
    with sessions.connect(url) as session:
        return lock.look(session)


def apply_in_a_process(url: str, answers: "Queue[Any]") -> None:
    try:
        answers.put(migrate.apply(url))
    except MigrationError as error:
        answers.put(str(error))


@pytest.mark.parametrize("number", [5, 50])
def test_of_many_at_once_one_applies_and_the_others_find_it_done(
    empty: str, undisturbed: str, processes: ForkServerContext, number: int
) -> None:
    answers = processes.Queue()
    crowd = [processes.Process(target=apply_in_a_process, args=(empty, answers)) for _ in range(number)]
    for process in crowd:
        process.start()
    done = [answers.get(timeout=60) for _ in crowd]
    for process in crowd:
        process.join()
    assert sorted(done) == [[]] * (number - 1) + [IDS]
    assert schema(empty) == undisturbed
    assert look(empty) is None


def apply_and_die(url: str, at: int) -> None:
    """Applies, and is killed when its `at`-th message is sent and not yet answered. Ends with 0 if it sends fewer."""
    wait, sent = psycopg.Connection.wait, 0

    def wait_or_die(self: Any, generator: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == at:
            next(generator, None)
            os.kill(os.getpid(), signal.SIGKILL)
        return wait(self, generator, *arguments, **options)

    psycopg.Connection.wait = wait_or_die  # type: ignore[method-assign]
    migrate.apply(url)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_killed_at_any_point_the_next_apply_ends_in_the_same_schema(
    empty: str, undisturbed: str, processes: ForkServerContext, step: int
) -> None:
    at, reached = 0, set[int]()
    for at in itertools.count(1, step):
        wipe(empty)
        victim = processes.Process(target=apply_and_die, args=(empty, at))
        victim.start()
        victim.join(30)
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL
        reached.add(len(applied(empty)))
        migrate.apply(empty, wait_s=20)
        assert schema(empty) == undisturbed, f"killed at message {at}"
        assert look(empty) is None
    assert at > 40
    assert reached == set(range(len(IDS) + 1))  # it was killed before, between and after all of them


@pytest.fixture
def stuck(empty: str, processes: ForkServerContext) -> Iterator[tuple[str, "Any", psycopg.Connection[Any]]]:
    """A migrator that is building an index, and the transaction that the build waits for."""
    migrate.apply(empty, to="0002")
    with psycopg.connect(empty) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT FROM tasks")
        process = processes.Process(target=migrate.apply, args=(empty,))
        process.start()
        wait_until(lambda: building(empty))
        yield empty, process, reader
        process.kill()
        process.join()


def building(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT FROM pg_stat_activity WHERE query LIKE '%CONCURRENTLY%' AND wait_event = 'virtualxid' "
            "AND datname = current_database()"
        ).fetchone()
    return row is not None


def test_the_lock_of_a_living_migration_is_not_broken(stuck: tuple[str, Any, psycopg.Connection[Any]]) -> None:
    url, process, reader = stuck
    holder = look(url)
    assert holder
    assert (holder.alive, holder.since is not None) == (True, True)
    assert f"process {process.pid}, session " in holder.who
    for force in (False, True):
        with pytest.raises(MigrationError, match="The lock's holder is alive: "):
            migrate.break_lock(url, force=force)
    begin = time.monotonic()
    said: list[str] = []
    with pytest.raises(MigrationError, match=r"^Another migration has the lock: .* wait longer with --wait"):
        migrate.apply(url, wait_s=0.5, say=said.append)
    assert 0.4 < time.monotonic() - begin < 5
    assert said == [f"waiting for {lock.describe(holder)}"]
    reader.rollback()
    process.join(15)
    assert process.exitcode == 0
    assert applied(url) == IDS


def test_a_killed_migrators_statement_does_not_go_on_and_keep_the_lock(
    stuck: tuple[str, Any, psycopg.Connection[Any]], undisturbed: str
) -> None:
    url, process, reader = stuck
    process.kill()
    process.join()
    holder = look(url)
    assert holder
    assert holder.alive  # its session builds on until the server looks for its client
    wait_until(lambda: not building(url))
    holder = look(url)
    assert holder
    assert not holder.alive
    reader.rollback()
    said: list[str] = []
    assert migrate.apply(url, say=said.append) == IDS[2:]
    assert said == [
        f"taking over the lock of {holder.who}, which is dead",
        "dropping the invalid index tasks_open_idx, which a build that was cut short left behind",
    ]
    assert schema(url) == undisturbed


def test_break_lock_frees_what_a_dead_migrator_left(
    stuck: tuple[str, Any, psycopg.Connection[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, process, _ = stuck
    process.kill()
    process.join()
    wait_until(lambda: not building(url))
    monkeypatch.setenv("DATABASE_URL", url)
    done = CliRunner().invoke(command, ["break-lock"])
    assert done.exit_code == 0
    assert f"freed the lock of {lock.username()} on " in done.stdout
    assert f"process {process.pid}, since 20" in done.stdout
    assert look(url) is None
    assert CliRunner().invoke(command, ["break-lock"]).stdout == "nobody holds the lock\n"


def test_a_migrator_that_is_cut_off_runs_nothing_more(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock belongs to the session that runs the statements: when that ends, nothing runs next to its successor."""
    seen: list[str] = []

    def cut_off(migration: migrate.Migration, seconds: float | None) -> None:
        if seconds is None and migration.id == IDS[2]:
            with psycopg.connect(empty, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'tasks-service migrate' AND datname = current_database()"
                )
            seen.append(migration.id)

    with pytest.raises(MigrationError, match=r"0003\.index-open-tasks failed: "):
        migrate.apply(empty, progress=cut_off)
    assert seen == [IDS[2]]
    assert applied(empty) == IDS[:2]
    holder = look(empty)
    assert holder
    assert holder.alive is False
    assert migrate.apply(empty) == IDS[2:]


@pytest.fixture
def plain_yoyo(empty: str) -> str:
    """A database in which yoyo's own command holds its lock, or died with it: its row cannot tell."""
    migrate.apply(empty, to="0001")
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("INSERT INTO yoyo_lock (ctime, pid) VALUES (now() AT TIME ZONE 'UTC', 4711)")
    return empty


def test_a_plain_yoyo_is_waited_for(plain_yoyo: str) -> None:
    with pytest.raises(MigrationError, match=r"has the lock: yoyo, process 4711 on some host, since "):
        migrate.apply(plain_yoyo, wait_s=0)

    def release(line: str) -> None:
        with psycopg.connect(plain_yoyo, autocommit=True) as connection:
            connection.execute("DELETE FROM yoyo_lock")

    assert migrate.apply(plain_yoyo, say=release) == IDS[1:]


def test_a_lock_whose_holder_cannot_be_known_is_broken_only_on_request(plain_yoyo: str) -> None:
    with pytest.raises(MigrationError, match=r"cannot tell whether that lives: make sure that it does not, then give"):
        migrate.break_lock(plain_yoyo)
    assert look(plain_yoyo)
    holder = migrate.break_lock(plain_yoyo, force=True)
    assert holder
    assert holder.who == "yoyo, process 4711 on some host"
    assert look(plain_yoyo) is None


def test_a_waiting_migrator_does_not_hold_up_an_index_that_is_being_built(empty: str) -> None:
    """It asks again and again: a statement that waited would have a snapshot, and the build waits for those."""
    migrate.apply(empty, to="0002")
    with sessions.connect(empty) as session, lock.held(session, time.monotonic(), lambda _: None):
        waiting = threading.Event()
        crowd = [
            threading.Thread(target=lambda: migrate.apply(empty, to="0002"), daemon=True),
            threading.Thread(target=lambda: migrate.apply(empty, say=lambda _: waiting.set()), daemon=True),
        ]
        for thread in crowd:
            thread.start()
        assert waiting.wait(10)
        session.connection.execute("SET lock_timeout = '5s'")
        session.connection.execute("CREATE INDEX CONCURRENTLY built ON public.tasks (title)")
    for thread in crowd:
        thread.join(15)
    assert applied(empty) == IDS
