"""Prints what migrations/schema.txt should hold: python -m tests.migrations.snapshot > migrations/schema.txt"""

import psycopg

from service.operations import catalog as schema
from service.operations import embedded, migrate

HEADER = """\
# What the migrations make, a fact a line; `tasks-service check` compares a database with it. Made by
# python -m tests.migrations.snapshot > migrations/schema.txt
"""


def snapshot(url: str) -> str:
    """The listing of a database that is migrated all the way."""
    with psycopg.connect(url) as connection:
        return HEADER + "".join(line + "\n" for line in schema.listing(connection))


if __name__ == "__main__":
    with embedded.temporary() as cluster:
        migrate.apply(cluster.url)
        print(snapshot(cluster.url), end="")
