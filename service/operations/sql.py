"""The SQL of operators' commands: a file each under sql/operations/, whose leading comment says what it promises.

`{schema}` in a file stands for the schema that the service's tables live in, `%(name)s` for a parameter. Functions,
operators and types are found in pg_catalog alone (service/operations/migrate/session.py). Must not import the driver's
connections: it makes texts.
"""

from functools import cache

from psycopg import sql

from service.database import read
from service.paths import root


@cache
def query(name: str, schema: str) -> sql.Composed:
    """The statement in sql/operations/`name`.sql. Raises StatementError where there is no such file."""
    lines = read(root() / "sql" / "operations", name).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    quoted = sql.Identifier(schema.replace("%", "%%"))  # the driver reads parameters in names, too
    return sql.SQL(text).format(schema=quoted)  # pyright: ignore[reportArgumentType] (a file is literal)
