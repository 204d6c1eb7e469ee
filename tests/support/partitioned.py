"""The same schema with `tasks` partitioned by hash: for databases whose tasks outgrow one table."""

import re

import psycopg

from service.operations import migrate

PARTS = 4


def partition(url: str) -> None:
    """Makes `tasks` of a migrated database without tasks anew, from the migrations' own statements, partitioned."""
    migrations = {migration.number: migration.statements for migration in migrate.read()}
    (table,) = (text for text in migrations["0002"] if "CREATE TABLE" in text)
    (index,) = (text for text in migrations["0003"] if "CREATE INDEX" in text)
    changes = [text for texts in migrations.values() for text in texts if text.startswith("ALTER TABLE tasks ")]
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE tasks")
        connection.execute(re.sub(r"\);\s*$", ") PARTITION BY HASH (user_id)", table).encode())
        for part in range(PARTS):
            place = f"FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part})"
            connection.execute(f"CREATE TABLE tasks_{part} PARTITION OF tasks {place}".encode())
        connection.execute(index.replace("CONCURRENTLY", "").encode())  # it cannot be, on a partitioned table
        for change in changes:
            connection.execute(change.encode())
        for grant in migrations["0005"]:
            connection.execute(grant.encode())
