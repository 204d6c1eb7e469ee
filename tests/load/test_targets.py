"""What is measured: peers that answer as the service does, baselines, pgbench's statements."""

import http.client
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from service.operations.embedded import Embedded
from tests.load import baselines, ceiling, database, delaying_proxy, stages, targets
from tests.load.targets import FASTAPI, LITESTAR, NEEDED, Plan
from tests.load.workload import Workload

pytestmark = pytest.mark.load

USERS, TASKS = 10, 1000
AWAY = "postgresql://nobody@127.0.0.1:1/none"
ASKED = [
    ("GET", "/api/user-1/tasks/1"),
    ("GET", "/api/user-3/tasks/3"),  # no description
    ("GET", "/api/user-3/tasks?limit=50"),
    ("GET", "/api/nobody/tasks?limit=50"),
    ("GET", "/api/user-2/tasks/1"),  # another's
]


@pytest.mark.parametrize("module", ["tests.load.cli", "tests.load.auth_cost"])
def test_its_extra_is_all_that_the_harness_needs(module: str) -> None:
    """README's line installs `.[load]`, without what the tests need."""
    absent = "import sys; sys.modules |= dict.fromkeys(['pytest', 'hypothesis', 'pglast', 'urllib3'])"
    subprocess.run([sys.executable, "-c", f"{absent}; import {module}"], check=True)


@pytest.fixture(scope="module")
def loaded(cluster: Embedded, template: str) -> str:
    """The URL of a database with the harness's data."""
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE load TEMPLATE {template}".encode())
    url = cluster.url.replace("/tasks?", "/load?")
    database.load(url, USERS, TASKS)
    return url


@pytest.fixture(scope="module")
def service(loaded: str) -> Iterator[str]:
    with targets.running([targets.service(4)], loaded) as [target]:
        yield target.url


@pytest.mark.parametrize("together", [False, True])
def test_the_data_is_where_a_number_says(together: bool, cluster: Embedded, template: str) -> None:
    name = f"placed_{together}".lower()
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    url = cluster.url.replace("/tasks?", f"/{name}?")
    database.load(url, USERS, TASKS, together=together)
    with psycopg.connect(url) as connection:
        owners = dict(connection.execute("SELECT id, user_id FROM tasks").fetchall())
        assert owners == {number: f"user-{(number - 1) % USERS + 1}" for number in range(1, TASKS + 1)}
        # How many times the owner changes on the way through the heap.
        [in_order] = zip(*connection.execute("SELECT user_id FROM tasks ORDER BY ctid").fetchall(), strict=True)
        changes = sum(one != other for one, other in itertools.pairwise(in_order))
        # Pages that were added at once are not filled in order, so there are a few more.
        assert USERS - 1 <= changes < 3 * USERS if together else changes > 0.9 * TASKS
        created = connection.execute(
            "INSERT INTO tasks (user_id, title) VALUES ('user-1', 'Next') RETURNING id"
        ).fetchone()
        assert created == (TASKS + 1,)


def ask(url: str, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    headers = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    status, text = answer.status, answer.read()
    connection.close()
    return status, text


def plan(name: str) -> Plan:
    if name not in NEEDED:
        return targets.peer(name, 4, 1)
    found = targets.compiled(name, 4, 1)
    assert found is not None, f"{name} needs {NEEDED[name]}"
    return found


COMPILED = [pytest.param(name, marks=pytest.mark.debian) for name in NEEDED]


@pytest.mark.timeout(600)  # seconds: compiling the peer in Rust takes one to three minutes
@pytest.mark.parametrize("name", [LITESTAR, FASTAPI, *COMPILED])
def test_a_peer_answers_what_the_service_answers(name: str, service: str, loaded: str) -> None:
    with targets.running([plan(name)], loaded) as [peer]:
        for method, path in ASKED:
            assert ask(peer.url, method, path) == ask(service, method, path), path
        new = {"title": " Milk <“&”> ", "description": None}
        for url in (peer.url, service):
            status, made = ask(url, "POST", f"/api/{name.split()[0]}/tasks", new)
            assert status == 201
            task = json.loads(made)
            # Through the other, it is the same bytes.
            path = f"/api/{name.split()[0]}/tasks/{task['id']}"
            assert ask(service, "GET", path) == ask(peer.url, "GET", path) == (200, made)
            assert (task["title"], task["description"], task["version"]) == ("Milk <“&”>", None, 1)
            status, toggled = ask(url, "PATCH", f"{path}/complete")
            assert status == 200
            assert ask(service, "GET", path) == ask(peer.url, "GET", path) == (200, toggled)
            assert json.loads(toggled) == task | {
                "completed": True,
                "version": 2,
                "updated_at": json.loads(toggled)["updated_at"],
            }


@pytest.mark.parametrize("name", NEEDED)
def test_a_peer_whose_compiler_is_missing_is_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert targets.compiled(name, 4, 1) is None


@pytest.mark.parametrize("plan", stages.plans(4)[1:], ids=lambda plan: plan.name)
def test_a_baseline_answers_without_a_database(plan: Plan) -> None:
    settings = {"AUTH_MODE": "none", "MIGRATE_ON_START": "false", "LOG_LEVEL": "error"}
    with targets.running([plan._replace(environment={**plan.environment, **settings})], AWAY) as [target]:
        assert ask(target.url, "GET", "/api/user-1/tasks/1") == (200, baselines.ONE)
        assert ask(target.url, "GET", "/api/user-1/tasks?limit=50") == (200, baselines.PAGE)
        assert ask(target.url, "PATCH", "/api/user-1/tasks/1/complete") == (200, baselines.ONE)
        assert ask(target.url, "POST", "/api/user-1/tasks", {"title": "Milk"})[1] == baselines.ONE


@pytest.mark.parametrize(
    ("operation", "pipelined"), [("get", False), ("get", True), ("list", True), ("create", True), ("toggle", True)]
)
def test_pgbench_runs_the_services_statements(operation: str, pipelined: bool, cluster: Embedded, loaded: str) -> None:
    assert cluster.pid is not None
    found = ceiling.measure(
        loaded, cluster.pid, operation, Workload(USERS, TASKS), pipelined=pipelined, connections=2, seconds=1
    )
    assert found.rps > 0
    assert 0 < found.postgres_us < 1e6


def test_pgbench_that_fails_is_seen(cluster: Embedded, loaded: str) -> None:
    empty = loaded.replace("/load?", "/postgres?")
    with pytest.raises(RuntimeError, match="tasks"):
        ceiling.measure(empty, cluster.pid or 0, "get", Workload(), pipelined=False, connections=1, seconds=1)


def test_the_far_database_is_late_but_keeps_pipelines(loaded: str) -> None:
    delay_s = 0.05
    with delaying_proxy.delayed(loaded, delay_s) as url, psycopg.connect(url, autocommit=True) as connection:
        clock = psycopg.connect(loaded, autocommit=True)
        timed = "SELECT clock_timestamp()"

        def now() -> float:
            row = clock.execute(timed).fetchone()
            assert row is not None
            return row[0].timestamp()

        begun = now()
        connection.execute("SELECT 1")
        assert delay_s <= now() - begun
        begun = now()
        with connection.pipeline():
            for number in range(100):
                connection.execute("SELECT %s::int", (number,))
        assert delay_s <= now() - begun < 20 * delay_s
        # A large answer comes whole.
        assert connection.execute("SELECT repeat('x', 5000000)").fetchone() == ("x" * 5_000_000,)
        clock.close()


def test_cpu_is_that_of_children_too_ended_or_not() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    parent = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        "print('done', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        assert 0.3 <= targets.cpu_s(process.pid) < 3
        largest, together = targets.memory_mb(process.pid)
        assert 1 < together <= largest < 200
        process.communicate()


def test_a_target_that_does_not_start_says_why() -> None:
    broken = Plan("broken", [sys.executable, "-c", "raise SystemExit('no such luck')"], {})
    with pytest.raises(RuntimeError, match="broken did not start: no such luck"), targets.running([broken], ""):
        pass
