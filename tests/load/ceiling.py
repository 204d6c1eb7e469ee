"""PostgreSQL's own ceiling: pgbench runs the service's statements, read from sql/tasks, with no service in between.

Once one statement at a time on each connection, as drivers do; once pipelined, as the service's lanes do, each
statement still its own transaction.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from service.operations.embedded import bin_dir
from tests.load.environment import ROOT
from tests.load.targets import cpu_s
from tests.load.workload import Workload

DEPTH = 16  # statements a pipeline holds

# What each placeholder is in pgbench's words; \set only knows numbers, so a user's name is put together in SQL.
DRAW_TASK = r"""\set task random(1, :tasks)
\set user (:task - 1) % :users + 1
"""
DRAW_USER = r"\set user random(1, :users)" + "\n"
OWNER = "('user-' || :user)"
TEXTS = {"title": "'Made under load'", "description": "'Before noon, please'", "completed": "false"}
OPERATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "get": (DRAW_TASK, {"user_id": OWNER, "task_id": ":task"}),
    "list": (DRAW_USER, {"user_id": OWNER, "newest": "9223372036854775807", "rows": "51"}),
    "create": (DRAW_USER, {"user_id": OWNER, **TEXTS}),
    "toggle": (DRAW_TASK, {"user_id": OWNER, "task_id": ":task"}),
}
FILES = {"toggle": "flip"}  # where the operation's statement does not bear its name


class Ceiling(msgspec.Struct):
    operation: str
    pipelined: bool
    connections: int
    rps: float
    postgres_us: float


def statement(operation: str) -> str:
    """The statement of sql/tasks as pgbench takes it."""
    file = ROOT / "sql" / "tasks" / f"{FILES.get(operation, operation)}.sql"
    text = re.sub(r"--.*", "", file.read_text()).strip().rstrip(";").replace("{schema}", "public")
    values = OPERATIONS[operation][1]
    return re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], text)


def script(operation: str, pipelined: bool) -> str:
    once = f"{OPERATIONS[operation][0]}{statement(operation)};\n"
    if not pipelined:
        return once
    return "\\startpipeline\n" + f"{once}\\syncpipeline\n" * DEPTH + "\\endpipeline\n"


def measure(
    url: str, postgres: int, operation: str, workload: Workload, *, pipelined: bool, connections: int, seconds: float
) -> Ceiling:
    """One run of pgbench. Raises RuntimeError where a statement fails."""
    place = urlsplit(url)
    command = [
        *(str(bin_dir() / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={connections}"),
        *(f"--time={max(1, round(seconds))}", f"--define=users={workload.users}", f"--define=tasks={workload.tasks}"),
        *(f"--host={parse_qs(place.query)['host'][0]}", f"--username={place.username}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{operation}.sql"
        file.write_text(script(operation, pipelined))
        before = cpu_s(postgres)
        done = subprocess.run([*command, f"--file={file}", place.path[1:]], capture_output=True, text=True)
        used = cpu_s(postgres) - before
    counted = re.search(r"actually processed: (\d+)", done.stdout)
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not counted or not rate or "number of failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench failed on {operation}: {done.stderr.strip()}")
    each = DEPTH if pipelined else 1
    return Ceiling(operation, pipelined, connections, float(rate[1]) * each, used / (int(counted[1]) * each) * 1e6)
