"""`run`: load on a service that runs already, which is left as it was; its options, its report and its exit status."""

import base64
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import msgspec
import psycopg
import pytest
from click.testing import CliRunner, Result

from tests.load import database, targets
from tests.load.cli import cli
from tests.load.generator import job as generator
from tests.load.generator.job import NOT_SENT, Job
from tests.load.running import accounts, options, outcome, report, thresholds
from tests.load.stub_server import certificate, raw_server, server
from tests.load.targets import GO, NEEDED
from tests.load.workload import Account, Workload
from tests.support import tokens
from tests.support.processes import ROOT, RunningService, wait_ready

pytestmark = pytest.mark.load

TASK_1 = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n[{"id": 1}]'
QUICK = ["--duration", "1s", "--warm-up", "0s", "--connections", "4"]


def run(url: str, folder: Path, *arguments: str, quick: bool = True) -> Result:
    return CliRunner().invoke(
        cli, ["run", "--url", url, "--results", str(folder), *(QUICK if quick else ()), *arguments]
    )


def command(url: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.load", "run", "--url", url, "--results", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def jwt(**claims: object) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


def tasks_of(client: httpx.Client, *users: str) -> list[str]:
    return [task["title"] for user in users for task in client.get(f"/api/{user}/tasks").json()]


def test_a_service_is_left_as_it_was(service: RunningService, client: httpx.Client, tmp_path: Path, user: str) -> None:
    client.post(f"/api/{user}/tasks", json={"title": "Mine"}).raise_for_status()
    client.post(f"/api/{user}/tasks", json={"title": "Load test of somebody else"}).raise_for_status()
    done = run(service.url, tmp_path, "--user", user, "--tasks", "1200", "--operation", "create")
    assert done.exit_code == 0, done.output
    assert f"Puts 1,200 tasks into the account of {user}, and one more with every create" in done.stderr
    deleted = re.search(r"([\d,]+) tasks deleted, none is left", done.stderr)
    assert deleted is not None
    assert int(deleted[1].replace(",", "")) > 1200
    assert sorted(tasks_of(client, user)) == ["Load test of somebody else", "Mine"]


def test_several_users_have_their_own_tasks(service: RunningService, client: httpx.Client, tmp_path: Path) -> None:
    done = run(service.url, tmp_path, "--users", "3", "--tasks", "5", "--keep")
    assert done.exit_code == 0, done.output
    assert "15 tasks into the accounts of load-test-1, load-test-2, load-test-3, 5 each" in done.stderr
    users = [f"load-test-{number}" for number in (1, 2, 3)]
    assert all(len(tasks_of(client, user)) >= 5 for user in users)
    assert all(title.startswith("Load test ") for title in tasks_of(client, *users))


def test_the_report_has_latency_over_time_a_histogram_and_the_url(service: RunningService, tmp_path: Path) -> None:
    json_file, csv_file = tmp_path / "out.json", tmp_path / "out.csv"
    done = run(service.url, tmp_path / "r", "--rate", "100", "--json", str(json_file), "--csv", str(csv_file))
    assert done.exit_code == 0, done.output
    found = json.loads(json_file.read_bytes())
    assert found["url"] == service.url
    assert "settings" in found["service"]
    assert "settings" in done.stdout
    assert found["latencies"][0]["requests"] == 100 == sum(found["outcomes"].values())
    assert sum(bar["count"] for bar in found["bars"]) == 100
    rows = list(csv.DictReader(csv_file.read_text().splitlines()))
    assert sum(int(row["requests"]) for row in rows) == 100
    assert rows[0].keys() >= {"second", "operation", "requests", "errors", "p50_ms", "p99_ms", "max_ms"}
    everything = found["latencies"][0]
    assert everything["max_ms"] == max(float(row["max_ms"] or 0) for row in rows)
    assert everything["percentiles_ms"]["p99"] <= everything["max_ms"]
    assert everything["percentiles_ms"]["p99.9"] is None  # of 100 requests
    assert found["received_bytes"] > 100 * 200
    assert found["generator"]["lag_p99_ms"] >= 0
    bars = list(csv.DictReader((tmp_path / "out-histogram.csv").read_text().splitlines()))
    assert sum(int(bar["count"]) for bar in bars) == 100
    [folder] = (tmp_path / "r").iterdir()
    assert {file.name for file in folder.iterdir()} == {
        *("report.md", "run.json", "over_time.csv", "over_time-histogram.csv", "over_time.svg", "histogram.svg")
    }
    text = (folder / "report.md").read_text()
    assert service.url in text
    assert outcome.UNKNOWN in text
    assert "headers" not in text  # none were given


@pytest.mark.parametrize(
    ("at", "number"), [("Puts ", signal.SIGTERM), ("the load begins", signal.SIGINT), ("5 s ", signal.SIGTERM)]
)
def test_a_run_that_is_ended_leaves_nothing(
    at: str, number: signal.Signals, service: RunningService, client: httpx.Client, tmp_path: Path, user: str
) -> None:
    process = command(service.url, tmp_path, "--user", user, "--duration", "1m", "--tasks", "50", "--rate", "200")
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if at in line:
            process.send_signal(number)
            break
    output, rest = process.communicate(timeout=30)
    assert process.returncode == 128 + number, rest
    assert "none is left" in rest
    assert tasks_of(client, user) == []
    if at == "5 s ":
        assert "stopped before its time" in output
        assert re.search(r"Stopped after \d\.\d", output)


def test_tasks_are_deleted_when_the_generator_fails(
    service: RunningService, client: httpx.Client, tmp_path: Path, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "started", lambda _: (_ for _ in ()).throw(RuntimeError("the generator failed")))
    done = run(service.url, tmp_path, "--user", user)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "Error: the generator failed"
    assert tasks_of(client, user) == []


def test_a_failed_threshold_is_exit_status_99(service: RunningService, tmp_path: Path) -> None:
    done = run(service.url, tmp_path, "--threshold", "p99<1h".replace("1h", "3600s"), "--threshold", "rps>1000000")
    assert done.exit_code == 99, done.output
    assert re.search(r"held +p99<3600s +[\d.]+ ms", done.stdout)
    assert re.search(r"FAILED +rps>1000000 +[\d.,]+/s", done.stdout)


def test_a_user_per_token(shared_database_url: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": shared_database_url, "AUTH_MODE": "jwt", "AUTH_JWT_SECRET": tokens.SECRET}
    ann, bob = (tokens.token(tokens.SHARED, tokens.claims(sub=user)) for user in ("token-ann", "token-bob"))
    file = tmp_path / "tokens"
    file.write_text(f"# two of them\n{ann}\n\ntoken-bob {bob}\n")
    with RunningService(tmp_path, **settings) as protected:
        wait_ready(protected.url)
        done = run(protected.url, tmp_path, "--tokens", str(file))
        assert done.exit_code == 0, done.output
        assert "accounts of token-ann, token-bob" in done.stderr
        assert ann not in done.output
        done = run(protected.url, tmp_path, "--token", ann)
        assert done.exit_code == 0, done.output
        done = run(protected.url, tmp_path)
        assert done.exit_code == 1
        assert "is answered with 401" in done.stderr.splitlines()[-1]
        assert "--token" in done.stderr


@pytest.mark.parametrize(
    ("response", "path", "said"),
    [
        (b"405 -\r\nContent-Length: 2\r\n\r\n{}", "", "is answered with 405: {}"),
        (
            b"301 -\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n",
            "",
            "with 301 to https://x/. Redirects are not",
        ),
        (b"404 -\r\nContent-Length: 0\r\n\r\n", "/api", "404. --url is what comes before /api"),
        (b"401 -\r\nContent-Length: 0\r\n\r\n", "", "401 (--token, LOAD_TOKEN or --tokens prove who you are)"),
    ],
)
def test_a_service_that_cannot_be_used_is_not_filled(response: bytes, path: str, said: str, tmp_path: Path) -> None:
    with raw_server(b"HTTP/1.1 " + response, close=False) as url:
        done = run(url + path, tmp_path)
    assert done.exit_code == 1
    what, reason = done.stderr.splitlines()
    assert what.partition(" ")[2].startswith(url)
    assert said in reason


def test_a_certificate_that_does_not_hold_names_the_option(tmp_path: Path) -> None:
    with raw_server(b"", close=True, certificate=certificate(tmp_path)) as url:
        done = run(url, tmp_path)
    assert done.exit_code == 1
    assert "--insecure" in done.stderr.splitlines()[-1]


def test_a_service_that_hangs_is_left_within_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may have been made, which is said. Deleting would hang, too."""
    monkeypatch.setattr(accounts, "MIN_TIMEOUT_S", 0.1)
    over = threading.Event()
    asked: list[str] = []

    def answer(method: str, path: str) -> int:
        asked.append(method)
        over.wait(30)
        return 500

    with server(answer) as url:
        done = run(url, tmp_path, "--timeout", "300ms")
        over.set()
    assert done.exit_code == 1
    assert asked == ["POST"]
    assert "a task may be left, whose title begins with 'Load test " in done.stderr
    assert done.stderr.endswith("no response within 0.3 s\n")


def test_a_service_that_hangs_while_tasks_are_deleted_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "STALLED_S", 1)
    over = threading.Event()
    workload = Workload(accounts=[Account("ann")], title="Load test x")

    with (
        server(lambda method, _: 200 if over.wait(30) else 500) as url,
        accounts.Tasks(url, workload, insecure=False, timeout=1, say=print) as tasks,
    ):
        monkeypatch.setattr(tasks, "left", lambda _: iter(range(1, 20)))
        begun = time.monotonic()
        assert tasks.delete(in_doubt=False) == (0, 19)
        assert time.monotonic() - begun < 15
        over.set()


def test_slow_responses_are_no_errors(tmp_path: Path) -> None:
    """Those to what was sent before the end are waited for, as long as for any other."""
    with raw_server(TASK_1, close=False, delay_s=3.2) as url:
        done = run(url, tmp_path, "--keep", "--tasks", "1", "--operation", "get", "--threshold", "errors<=0")
    assert done.exit_code == 0, done.output
    assert re.search(r"get +4 +0 ", done.stdout)


@pytest.mark.debian
@pytest.mark.timeout(600)  # seconds: compiling the peer takes up to a minute
def test_a_service_without_batches_and_delete_may_keep_its_tasks(database_url: str, tmp_path: Path) -> None:
    database.load(database_url, 2, 10)
    plan = targets.go(4)
    assert plan is not None, NEEDED[GO]
    with targets.running([plan], database_url) as [peer]:
        refused = run(peer.url, tmp_path)
        done = run(peer.url, tmp_path, "--keep", "--operation", "get")
    assert refused.exit_code == 1
    assert "--keep says that tasks may stay" in refused.stderr
    assert done.exit_code == 0, done.output
    with psycopg.connect(database_url) as connection:
        [count] = connection.execute("SELECT count(*) FROM tasks WHERE user_id = 'load-test-1'").fetchone() or [0]
    assert count == 1 + 100


def test_what_is_no_task_service_is_one_sentence(tmp_path: Path) -> None:
    with server(lambda *_: 200) as url:
        done = run(url, tmp_path)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith("is not answered as by a task service")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "https://tasks.example.com"], "is not on this machine"),
        (["--url", "tasks.example.com:80"], "is not a URL such as"),
        (["--url", "http://127.0.0.1:99999"], "is not a URL"),
        (["--url", "http://me@127.0.0.1/"], "only scheme, host, port"),
        (["--token", "no-jwt"], "--user says whose it is"),
        (["--token", "a.b.c"], "its claims cannot be read"),
        (["--token", jwt(aud="x")], "has no `sub`"),
        (["--token", jwt(sub="ann"), "--users", "2"], "exclude each other"),
        (["--tokens", "/nowhere"], "/nowhere cannot be read"),
        (["--mix", "70/20/5"], "not four weights"),
        (["--mix", "0/0/0/0"], "not four weights"),
        (["--mix", "1/1/1/1", "--operation", "get"], "exclude each other"),
        (["--duration", "soon"], "not a duration such as 30s"),
        (["--duration", "0s"], "have to be above 0"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "inf"], "--rate"),
        (["--rate", "100001"], "--rate"),
        (["--rate", "0.1"], "less than one request"),
        (["--tasks", "1000001"], "--tasks"),
        (["--users", "1001", "--tasks", "1000"], "more than 1,000,000"),
        (["--operation", "get", "--threshold", "list:p99<5ms"], "the run has no list"),
        (["--mix", "1/0/1/1", "--threshold", "list:rps>1"], "the run has no list"),
        (["--threshold", "errors<0.5"], "a number of errors, which is whole; 50% is a share"),
        (["--header", "no colon"], "is not a header such as"),
        (["--header", "X: a\nY: b"], "is not a header such as"),
        (["--header", "Content-Length: 5"], "set by the generator itself"),
        (["--threshold", "p99<50"], "needs a unit"),
        (["--threshold", "latency<50ms"], "is not a threshold such as"),
        (["--threshold", "errors<5ms"], "not measured in ms"),
        (["--json", "/nowhere/run.json"], "--json /nowhere/run.json cannot be written: No such file"),
        (["--csv", "/proc/x.csv"], "--csv /proc/x.csv cannot be written"),
    ],
)
def test_nonsense_is_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run("http://127.0.0.1:1", tmp_path, *arguments)
    assert done.exit_code == 2
    assert said in re.sub(r"\s+", " ", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.output


def test_a_file_of_tokens_that_makes_no_sense_names_the_line_and_not_the_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    for text, said in (
        (f"{jwt(sub='ann')}\nsecret-of-bob\n", "line 2: not a JWT"),
        ("ann secret-of-ann more\n", "line 1: expected"),
        ("ann secret-of-ann\nann secret-of-bob\n", "names a user twice"),
        ("\n\n", "has no tokens"),
        ("# a comment\n", "has no tokens"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=said) as error:
            accounts.read_tokens(file)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("2m", 120), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--url", "http://x", "run"], "run --url"),
        (["--duration", "2s", "run", "--url", "http://x"], "run --duration"),
        (["--rate", "5"], "run --rate"),
        (["--rate=5", "curve"], "curve --rate"),
        (["--connections", "5", "--url=http://x"], "run --connections"),
        (["--repeats", "5"], "all --repeats"),
        (["--minutes", "5"], "soak --minutes"),
    ],
)
def test_an_option_before_its_command_names_the_command(arguments: list[str], command: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert f"python -m tests.load {command} …" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["curve", "--rate", "nan"],
        ["remote", "--rate", "1e9"],
        ["flood", "--rate", "inf"],
        ["soak", "--minutes", "inf"],
        ["compare", "--seconds", "nan"],
    ],
)
def test_no_command_takes_a_number_without_an_end(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert arguments[1] in done.stderr.splitlines()[-1]


def test_thresholds_measure_what_they_name() -> None:
    with server(lambda method, _: 200 if method == "GET" else 503) as url:
        job = Job(url, {"get": 1, "toggle": 1}, Workload(7, 70), rate=100, seconds=1, connections=4)
        result = generator.run(job)

    def held(text: str) -> bool:
        return thresholds.check(thresholds.parse(text), result).held

    assert held("get:errors<1%")
    assert held("get:errors<=0")
    assert held("toggle:errors>=100%")
    assert held("errors>10%")
    assert held("errors<90%")
    assert held("rps>10")
    assert not held("rps>=100")
    assert held("get:p99<5s")
    assert held("p50<5000 ms")
    assert held("p50>1us")
    assert held("max<5s")
    assert not held("toggle:p99<5s")  # nothing was timed
    assert not held("list:errors<1%")  # nothing was asked for

    def shown(text: str) -> str:
        verdict = thresholds.check(thresholds.parse(text), result)
        return report.measured(outcome.Held(text, verdict.value, verdict.threshold.unit, verdict.held, verdict.missing))

    assert re.fullmatch(r"[\d.]+ ms", shown("get:p99<5s"))
    assert shown("toggle:errors<1%") == "100.00 %"
    assert re.fullmatch(r"\d+ errors", shown("errors<1"))
    assert re.fullmatch(r"[\d.]+/s", shown("rps>1"))
    assert shown("list:rps>1") == "no requests"
    assert shown("toggle:max<1s") == "nothing was timed"


def test_a_generator_that_is_the_limit_says_so() -> None:
    result = generator.Result(1.0, [], [], lag_us=50_000, busy=0.97)
    result.operations = [generator.Operation("get", {"200": 1, NOT_SENT: 3}, 1.0, "")]
    busy, late, unsent = outcome.warnings(result)
    assert "97 % of a core" in busy
    assert "50 ms late or more" in late
    assert "3 requests were never sent" in unsent
    assert "slower than --rate" in unsent
    result.operations[0].outcomes["connection refused"] = 5
    assert "connections failed (connection refused: 5)" in outcome.warnings(result)[2]


def test_a_generator_without_a_core_says_so() -> None:
    """Here it shares a core with four others. The CPU time that it uses does not tell."""
    cores = os.sched_getaffinity(0)
    with server(lambda *_: 200) as url:  # on every core: the generator is not to wait for it
        os.sched_setaffinity(0, {min(cores)})
        # Each in a new session: Linux gives a session one share of a core (sched_autogroup), and the generator has one.
        spin = [sys.executable, "-c", "while True: pass"]
        spinning = [subprocess.Popen(spin, start_new_session=True) for _ in range(4)]
        try:
            result = generator.run(Job(url, {"get": 1}, Workload(7, 70), seconds=2, connections=4))
        finally:
            os.sched_setaffinity(0, cores)
            for process in spinning:
                process.kill()
                process.wait()
    assert result.busy < outcome.BUSY
    assert any("waited for a core for" in warning for warning in outcome.warnings(result))


def test_errors_of_the_warm_up_are_told() -> None:
    with server(lambda *_: 429) as url:
        result = generator.run(Job(url, {"get": 1}, Workload(7, 70), rate=100, seconds=0.3, warm_up=0.5, connections=4))
    assert result.warm_up == {"429": 50}
    assert result.requests == 30
    failed, limited = outcome.warnings(msgspec.structs.replace(result, starved=0.0, lag_us=0))
    assert "50 of 50 requests of the warm-up failed (429: 50)" in failed
    assert "--users" in limited


def test_no_success_at_all_is_an_error_also_with_a_threshold(tmp_path: Path) -> None:
    with raw_server(TASK_1, close=False, delay_s=0.5) as url:
        done = run(url, tmp_path, "--keep", "--tasks", "1", "--timeout", "200ms", "--threshold", "errors<1%")
    assert "no response within 0.2 s" in done.stdout
    assert "FAILED  errors<1%" in done.stdout
    assert done.exit_code == 1


def test_help_is_enough_for_a_start() -> None:
    done = CliRunner().invoke(cli, ["run", "--help"])
    assert done.exit_code == 0
    for word in (
        "Examples:",
        "1m30s",
        "errors<5",
        "--threshold 'p99<50ms'",
        "Exit status, the first that applies: 2",
        "LOAD_TOKEN=",
        "wrk -c 200",
        "k6",
    ):
        assert word in done.output
