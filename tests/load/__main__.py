"""The command line of the harness: `python -m tests.load --help`."""

import statistics
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from tests.load import closed, database, targets
from tests.load.aim import Aim
from tests.load.closed import Sample

console = Console()


@click.group()
def cli() -> None:
    """How fast the service is."""


@cli.command()
@click.option("--users", default=1000)
@click.option("--tasks", default=100_000)
@click.option("--seconds", default=5.0)
@click.option("--repeats", default=3)
@click.option("--connections", default=32)
@click.option("--db-connections", default=16)
@click.option("--workers", default=2)
@click.option("--only", multiple=True)
@click.option("--ops", default="get,list,create,toggle")
def compare(users, tasks, seconds, repeats, connections, db_connections, workers, only, ops) -> None:
    with tempfile.TemporaryDirectory() as folder, database.cluster() as cluster:
        database.migrate(cluster.url)
        with Progress(console=console) as progress:
            database.load(cluster.url, users, tasks, progress)
        plans = [
            targets.service(db_connections, workers),
            targets.go(db_connections, Path(folder)),
            targets.peer("litestar_plain", db_connections, 2),
            targets.peer("fastapi_sqlmodel", db_connections, 2),
        ]
        plans = [plan for plan in plans if plan and (not only or plan.name in only)]
        aim = Aim(users, tasks)
        with targets.running(plans, cluster.url) as up:
            for operation in ops.split(","):
                samples: dict[str, list[Sample]] = {}
                for turn in range(repeats):
                    for target in up:
                        if not turn:
                            closed.measure(target, operation, aim, None, connections=connections, seconds=1)
                        sample = closed.measure(
                            target, operation, aim, cluster.pid, connections=connections, seconds=seconds, seed=turn + 1
                        )
                        samples.setdefault(target.name, []).append(sample)
                for name, found in samples.items():
                    rps = [sample.rps for sample in found]
                    middle = sorted(found, key=lambda one: one.rps)[len(found) // 2]
                    console.print(
                        f"{operation:8} {name:18} {statistics.median(rps):8.0f} ({min(rps):.0f}-{max(rps):.0f}) "
                        f"p50 {middle.p50:.2f} p99 {middle.p99:.2f} p99.9 {middle.p999:.2f} service {middle.service_us:.0f} us "
                        f"postgres {middle.postgres_us:.0f} us errors {sum(one.failed for one in found)} mem {middle.largest_mb:.0f}/{middle.together_mb:.0f}"
                    )


if __name__ == "__main__":
    cli()
