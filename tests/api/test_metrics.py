"""The figures of /metrics: each counts what it says, and all workers' are in them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.database import Database
from service.http.capacity import Capacity
from service.monitoring import expired_records
from service.monitoring import metrics as metrics_module
from service.monitoring.expired_records import EXPIRED_RECORDS, ExpiredRecords
from service.monitoring.metrics import Metrics
from service.tasks.queries import STATEMENTS
from tests.database.ground import opened, statement
from tests.support.databases import named
from tests.support.http import exchange, request
from tests.support.marks import own_protocol
from tests.support.metrics import figure, figures, requests_by_route, wait_for_figure
from tests.support.processes import RunningService, plain_client, wait_ready
from tests.support.waiting import until, wait_until

AWAY = "postgresql://nobody@127.0.0.1:1/nowhere"
TASKS, TASK = "/api/{user_id}/tasks", "/api/{user_id}/tasks/{task_id}"


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    return clone()


@pytest.fixture(scope="module")
def counted(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that only these tests ask. What one of them does is what the figures grow by."""
    cwd = tmp_path_factory.mktemp("counted")
    with RunningService(cwd, DATABASE_URL=url, AUTH_MODE="none") as running:
        wait_ready(running.url)
        yield running


def test_requests_by_route_method_and_status(counted: RunningService) -> None:
    before = requests_by_route(counted)
    http = counted.http
    for n in range(7):
        assert http.post("/api/u/tasks", json={"title": f"{n}"}).status_code == 201
    path = http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
    for _ in range(3):
        http.get(path, headers={"X-Request-ID": "1"})
    http.get(path, headers={"If-None-Match": '"1"'})
    http.post("/api/u/tasks", json={})
    http.get("/api/u/tasks")
    http.get("/api/u/tasks/9999")
    http.put(path, json={"title": "y"}, headers={"If-Match": '"9"'})
    http.delete(path)
    http.post("/livez")
    http.get("/livez")
    http.get("/no/such/path")
    http.get("/docs")
    http.options("/api/u/tasks")
    assert requests_by_route(counted) - before == {
        ("POST", TASKS, "201"): 8,
        ("GET", TASK, "200"): 3,
        ("GET", TASK, "304"): 1,
        ("POST", TASKS, "400"): 1,
        ("GET", TASKS, "200"): 1,
        ("GET", TASK, "404"): 1,
        ("PUT", TASK, "412"): 1,
        ("DELETE", TASK, "204"): 1,
        ("OPTIONS", TASKS, "204"): 1,
        ("POST", "", "405"): 1,
        ("GET", "/livez", "200"): 1,
        ("GET", "", "404"): 1,
        ("GET", "/docs", "200"): 1,
    }


def test_how_long_requests_took(counted: RunningService) -> None:
    began = time.monotonic()
    sums, buckets = "tasks_http_request_duration_seconds_sum", "tasks_http_request_duration_seconds_bucket"
    sums_before, buckets_before = figures(counted, sums), figures(counted, buckets)
    for n in range(8):
        assert counted.http.post("/api/u/tasks", json={"title": f"{n}"}).status_code == 201
    took = figures(counted, sums) - sums_before
    assert 0 < took["POST", TASKS, "201"] < time.monotonic() - began
    within = figures(counted, buckets) - buckets_before
    assert within["+Inf", "POST", TASKS, "201"] == within["10.0", "POST", TASKS, "201"] == 8
    assert within["0.001", "POST", TASKS, "201"] <= within["0.1", "POST", TASKS, "201"]


@own_protocol
def test_what_is_no_http_is_counted_too(counted: RunningService) -> None:
    before = requests_by_route(counted)
    assert exchange(counted.url, b"nonsense\r\n\r\n").status == 400
    assert exchange(counted.url, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000).status == 431
    chunked = request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"})
    assert exchange(counted.url, chunked + b"zz\r\n").status == 400
    assert requests_by_route(counted) - before == {("", "", "400"): 1, ("", "", "431"): 1, ("POST", "", "400"): 1}


@own_protocol
def test_a_client_that_goes_away_is_counted_as_such(counted: RunningService, url: str) -> None:
    path = counted.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
    before = requests_by_route(counted)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        with pytest.raises(httpx.ReadTimeout), plain_client(counted.url) as impatient:
            impatient.put(path, json={"title": "y"}, timeout=0.1)
        wait_for_figure(counted, "tasks_http_requests_in_flight", 1)  # the one that asks
        assert requests_by_route(counted) - before == {("PUT", TASK, "499"): 1}
    wait_for_figure(counted, "tasks_database_calls_in_flight", 0)


def test_statements_by_the_name_of_their_file(counted: RunningService, url: str) -> None:
    count, seconds = "tasks_database_statements_total", "tasks_database_statement_seconds_total"
    counts_before, seconds_before = figures(counted, count), figures(counted, seconds)
    compared = {(f"explain_{statement.name}",) for statement in STATEMENTS}  # with the schema, at the start
    assert compared <= counts_before.keys()
    path, *_ = [counted.http.post("/api/u/tasks", json={"title": "x"}).headers["location"] for _ in range(5)]
    for _ in range(3):
        counted.http.get(path)
    begin = time.monotonic()
    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as threads:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        update = threads.submit(counted.http.put, path, json={"title": "y"})
        wait_for_figure(counted, "tasks_database_calls_in_flight", 1)
        time.sleep(0.1)  # the time that is to be found in the figures
        holder.rollback()
        assert update.result().status_code == 200
    elapsed = time.monotonic() - begin
    done, took = figures(counted, count) - counts_before, figures(counted, seconds) - seconds_before
    for scraped in (done, took):
        del scraped["expired_records",]  # /metrics' own
    assert done == {("create",): 5, ("get",): 3, ("update",): 1}
    assert took.keys() <= {("create",), ("get",), ("update",)}  # what takes less than its clock's ms may count as 0
    assert 0.1 <= took["update",] <= elapsed


def test_writes_that_were_committed_together(counted: RunningService) -> None:
    groups, writes = "tasks_database_group_size_count", "tasks_database_group_size_sum"
    groups_before, writes_before = figure(counted, groups), figure(counted, writes)
    with ThreadPoolExecutor(16) as threads:
        posts = [threads.submit(counted.http.post, "/api/u/tasks", json={"title": f"{n}"}) for n in range(60)]
    assert {post.result().status_code for post in posts} == {201}
    assert figure(counted, writes) - writes_before == 60
    assert 1 <= figure(counted, groups) - groups_before <= 60
    assert figures(counted, "tasks_database_group_size_bucket")["+Inf",] == figure(counted, groups)


RECORDS, AGE = "tasks_idempotency_expired_records", "tasks_idempotency_expired_age_seconds"


def test_idempotency_records_to_prune_and_the_age_of_the_oldest(clone: Callable[[], str], tmp_path: Path) -> None:
    url = clone()
    with psycopg.connect(url) as admin:
        admin.execute("INSERT INTO users (id) VALUES ('u')")
        admin.execute(
            "INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids, created_at) "
            "SELECT 'u', 'create', 'k' || n, '', '{1}', now() - n * interval '10 hours' FROM generate_series(1, 5) AS n"
        )
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none") as service:
        wait_ready(service.url)
        wait_until(lambda: figures(service, RECORDS))
        assert figure(service, RECORDS) == 3
        assert 50 * 3600 <= figure(service, AGE) < 50 * 3600 + 60
        service.http.get("/api/u/tasks")  # a statement, then another scrape: the database is not asked at once
        figure(service, RECORDS)
        assert figures(service, "tasks_database_statements_total")["expired_records",] == 1


async def test_records_to_prune_are_asked_for_only_if_the_database_was_used_since(
    clone: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_records, "ASK_S", 0.0)
    async with opened(clone()) as database:
        records = ExpiredRecords(database)
        await until(lambda: database.reachable)

        def asked() -> int:
            return database.stats.statements["expired_records"].count

        records.refresh(None, 10)
        await until(lambda: records.known() is not None)
        first = records.known()
        assert first is not None
        assert (first.records, first.age_s(), asked()) == (0, 0.0, 1)
        records.refresh(first, 10)
        await database.fetch_one(EXPIRED_RECORDS, 1)
        assert asked() == 2, "it asked, though no statement came in between"
        records.refresh(first, 11)
        await until(lambda: asked() == 3)


async def test_an_idle_database_is_not_asked_again_when_the_figures_are_too_old(
    clone: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired_records, "ASK_S", 0.0)
    async with opened(clone()) as database:
        metrics = Metrics(database, Capacity(1, max_per_user=0, max_buffered=1), {}, None, None)
        await until(lambda: database.reachable)
        name = RECORDS.encode() + b" 0.0"
        await until(lambda: name in metrics.exposition() and not database.in_flight)
        asked = database.stats.statements["expired_records"].count
        monkeypatch.setattr(expired_records, "FRESH_S", -1.0)
        assert RECORDS.encode() not in metrics.exposition()
        await database.fetch_one(EXPIRED_RECORDS, 1)  # counted as none of the requests'
        assert RECORDS.encode() not in metrics.exposition()
        assert database.stats.statements["expired_records"].count == asked + 1, (
            "it asked, though no statement came in between"
        )
        await database.execute(statement("SELECT 1", name="one"))
        metrics.exposition()
        await until(lambda: database.stats.statements["expired_records"].count == asked + 2)


async def test_nothing_is_said_of_records_to_prune_while_the_database_is_away(clone: Callable[[], str]) -> None:
    url = clone()
    async with opened(url) as database:
        records = ExpiredRecords(database)
        await until(lambda: database.reachable)
        records.refresh(None, 1)
        await until(lambda: records.known() is not None)
        with psycopg.connect(named(url, "postgres"), autocommit=True) as admin:
            name = conninfo_to_dict(url)["dbname"]
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await until(lambda: (known := records.known()) is not None and known.records is None)
            asked = database.stats.statements["expired_records"].count
            records.refresh(None, 2)
            assert database.stats.statements["expired_records"].count == asked


async def test_a_look_at_records_to_prune_that_fails_makes_nobody_unready(clone: Callable[[], str]) -> None:
    url = clone()
    with psycopg.connect(url) as admin:
        admin.execute("DROP INDEX idempotency_keys_created_at_idx")
        admin.execute("ALTER TABLE idempotency_keys RENAME COLUMN created_at TO made_at")
    async with opened(url, verify=[statement("SELECT 1", name="one")]) as database:
        await until(lambda: database.reachable and database.mismatch is None)
        records = ExpiredRecords(database)
        records.refresh(None, 1)
        await until(lambda: database.stats.failures["42"] == 1)
        known = records.known()
        assert known is not None
        assert (database.mismatch, known.records) == (None, None)


async def test_snapshots_go_on_after_a_bug_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "SNAPSHOT_S", 0.001)
    database = Database(AWAY, connections=2)
    metrics = Metrics(database, Capacity(1, max_per_user=0, max_buffered=1), {}, None, tmp_path)
    with pytest.raises(AttributeError):
        metrics.start()  # a database that is not open has no figures
    await database.open()
    await until(lambda: list(tmp_path.glob("*.json")))
    metrics.stop()
    await database.close(0)
