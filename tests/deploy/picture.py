"""Draws the dashboard's panels as plots: `python -m tests.deploy.picture` writes deploy/grafana/dashboard.png.

Two minutes of a mixed load, with faults: at 30 s every session is terminated, from 60 s to 66 s another session holds
row locks, from 90 s to 96 s PostgreSQL is stopped. Needs the extras `test` and `load`, and Debian's Prometheus.
"""

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
import psycopg
from matplotlib.ticker import FuncFormatter

from service.operations import embedded
from tests.support.dashboard import DASHBOARD, Panel, panels
from tests.support.databases import TEMPLATE, create, create_template, terminate
from tests.support.http import Client, ConnectionLost
from tests.support.processes import RunningService, wait_ready
from tests.support.prometheus import Prometheus

CLIENTS = 8
USERS = 50
PAUSE_S = 0.004  # of a client between two requests: about 1,200 requests a second in all
SECONDS = 120
COLUMNS = 3
FORMATS: dict[str, Callable[[float], str]] = {
    "s": lambda value: f"{value * 1000:g} ms",
    "bytes": lambda value: f"{value / 1e6:.0f} MB",
    "percentunit": lambda value: f"{value:.0%}",
}


def ask(url: str, end: float) -> None:
    """A client: gets, lists, creates, updates and toggles its users' tasks until `end`."""
    paths: list[str] = []
    while time.monotonic() < end:
        with suppress(ConnectionLost, OSError), Client(url) as client:
            while time.monotonic() < end:
                tasks = f"/api/user-{random.randrange(USERS)}/tasks"
                path = random.choice(paths) if paths else tasks
                draw = random.random()
                if draw < 0.5:
                    client.send("GET", path)
                elif draw < 0.7:
                    client.send("GET", f"{tasks}?limit=20")
                elif draw < 0.85 or not paths:
                    response = client.send("POST", tasks, b'{"title": "Buy milk"}')
                    if response.status == 201:
                        paths.append(response.headers["location"])
                elif draw < 0.95:
                    client.send("PATCH", f"{path}/complete")
                else:
                    client.send("PUT", path, b'{"description": "two litres"}')
                time.sleep(PAUSE_S)


def faults(cluster: embedded.Embedded, database: str, begin: float) -> None:
    def wait(seconds: float) -> None:
        time.sleep(max(0.0, begin + seconds - time.monotonic()))

    wait(30)
    with psycopg.connect(database, autocommit=True) as admin:
        terminate(admin)
    wait(60)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM tasks WHERE user_id < 'user-3' FOR UPDATE")
        wait(66)
    wait(90)
    cluster.stop()
    wait(96)
    cluster.ensure_running()


def draw(prometheus: Prometheus, shown: list[Panel], begin: float, end: float) -> None:
    rows = -(-len(shown) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(18, 2.9 * rows), sharex=True, layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, shown, strict=False):
        axis.set_title(panel.title, fontsize=10, loc="left")
        for expression, legend in panel.queries:
            for series in prometheus.query_range(expression, begin, end, 1):
                label = legend
                for name, value in series["metric"].items():
                    label = label.replace(f"{{{{{name}}}}}", value)
                points = [(at - begin, float(value)) for at, value in series["values"]]
                if series["metric"] and not any(value > 0 for _, value in points):
                    continue  # one of many that stays at zero
                axis.plot(*zip(*points, strict=True), linewidth=1.1, label=label.replace("/api/{user_id}/tasks", "…"))
        if panel.unit in FORMATS:
            form = FORMATS[panel.unit]
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _, form=form: form(value)))
        axis.set_ylim(0, axis.get_ylim()[1] * 1.15)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6, loc="upper left", ncols=2, framealpha=0.5)
    figure.supxlabel("seconds", fontsize=9)
    figure.savefig(DASHBOARD.with_suffix(".png"), dpi=70)


def main() -> None:
    with embedded.temporary({}) as cluster, tempfile.TemporaryDirectory() as folder:
        create_template(cluster.url)
        database = create(cluster.url, template=TEMPLATE)
        settings = {"DATABASE_URL": database, "AUTH_MODE": "none", "WORKERS": "2", "STATEMENT_TIMEOUT_MS": "2000"}
        with (
            RunningService(Path(folder), **settings) as service,
            Prometheus([urlsplit(service.url).netloc]) as prometheus,
        ):
            wait_ready(service.url)
            began, begin = time.time(), time.monotonic()
            threads = [threading.Thread(target=ask, args=(service.url, begin + SECONDS)) for _ in range(CLIENTS)]
            threads.append(threading.Thread(target=faults, args=(cluster, database, begin)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            draw(prometheus, panels("5s"), began + 3, began + SECONDS)
    print(f"wrote {DASHBOARD.with_suffix('.png')}")


if __name__ == "__main__":
    sys.exit(main())
