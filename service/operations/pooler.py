"""What `tasks-service check` finds out about the pooler in front of the database, by its behaviour and, if the role may
read them, from PgBouncer's own settings. deploy/README.md, "PgBouncer", has the reasons.
"""

from collections.abc import Iterator

import psycopg
from psycopg.conninfo import make_conninfo

from service.operations.finding import Finding
from service.operations.migrate.session import Session, connect
from service.settings import Settings

CONSOLE = "pgbouncer"  # the database name by which clients reach PgBouncer's admin console
MAX_LOGIN_RETRY_S = 1


def findings(session: Session, url: str, settings: Settings) -> Iterator[Finding]:
    """`session` goes through the pooler at `url`."""
    yield from _prepared_statements(session, url, settings)
    yield from _settings(url, settings)


def _prepared_statements(session: Session, url: str, settings: Settings) -> Iterator[Finding]:
    """Whether the pooler keeps track of prepared statements: then it gives them other names."""
    if not settings.db_prepare:
        yield Finding("ok", "pooler: no prepared statements are used (DB_PREPARE=false)")
        return
    with session.connection.transaction():  # in which a pooler stays with one session
        name = f"tasks_check_{abs(session.connection.info.backend_pid)}"  # a pooler makes ids up, negative ones too
        session.connection.pgconn.prepare(name.encode(), b"SELECT 1")
        kept = session.fetch_one("prepared_statement", name=name)
        if kept:
            session.connection.execute(f"DEALLOCATE {name}".encode())
    if kept is None:
        yield Finding("ok", "pooler: keeps track of prepared statements")
    elif _shares_sessions(session, url):
        yield Finding("error", "pooler: has no prepared statements and shares sessions", "set DB_PREPARE=false")
    else:
        yield Finding(
            "warning", "pooler: has no prepared statements; unless each client has a session, DB_PREPARE=false"
        )


def _shares_sessions(session: Session, url: str) -> bool:
    """Whether another client was seen to get the session that this one had a moment ago."""
    with connect(url, "tasks-service check") as other:
        for _ in range(20):
            mine = session.fetch_one("backend")
            with other.connection.transaction():
                if other.fetch_one("backend") == mine:
                    return True
    return False


def _settings(url: str, settings: Settings) -> Iterator[Finding]:
    """PgBouncer's settings; nothing for another pooler, or if the role is not in `stats_users` or `admin_users`."""
    try:
        with psycopg.connect(make_conninfo(url, dbname=CONSOLE), autocommit=True) as console:
            found = {row[0]: row[1] for row in console.execute("SHOW CONFIG").fetchall()}
    except psycopg.Error:
        return
    retry_s = float(found["server_login_retry"])
    if retry_s > MAX_LOGIN_RETRY_S:
        harm = f"requests get 503 for up to {retry_s:g} s after an outage ended"
        yield Finding(
            "warning",
            f"pooler: server_login_retry is {retry_s:g}, so {harm}",
            f"server_login_retry = {MAX_LOGIN_RETRY_S} in PgBouncer's configuration",
        )
    clients, wanted = int(found["max_client_conn"]), settings.workers * settings.db_connections
    if clients < wanted:
        yield Finding(
            "warning",
            f"pooler: max_client_conn is {clients}, and this service opens up to {wanted} connections",
            f"max_client_conn = {wanted} or more in PgBouncer's configuration",
        )
