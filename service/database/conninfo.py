"""Connection strings, as libpq understands them: URLs and `name=value` alike."""

from psycopg import pq


def libpq_environment(conninfo: str) -> dict[str, str]:
    """The environment variables that have libpq's programs connect there; a password is then in no process list.

    Raises psycopg.OperationalError for what libpq cannot read.
    """
    return {
        option.envvar.decode(): option.val.decode()
        for option in pq.Conninfo.parse(conninfo.encode())
        if option.envvar and option.val is not None
    }
