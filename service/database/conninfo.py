"""Connection strings, as libpq understands them: URLs and `name=value` alike.

Nothing here puts a part of a connection string into a message: where a password holds an unescaped character, any part
may be the password's.
"""

import re

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_UNKNOWN = re.compile(r'invalid URI query parameter: "([a-z_]+)"', re.IGNORECASE)
WRONG_SCHEME = "must begin with postgresql:// or postgres://, without the name of a driver"
ESCAPES = "write @ as %40, / as %2F, ? as %3F and % as %25 in it"


def problem_of(conninfo: str) -> str | None:
    """Why libpq cannot use it, to be put behind the name of the setting; None: it can."""
    if conninfo.startswith(('"', "'")):
        return "must not be in quotes: only a shell or .env takes them off"
    scheme = _SCHEME.match(conninfo)
    if scheme is not None:
        if scheme[1].lower() not in ("postgresql", "postgres") or scheme[1] != scheme[1].lower():
            return WRONG_SCHEME
        if problem := _unescaped(conninfo[scheme.end() :]):
            return problem
    elif "://" in conninfo and "=" not in conninfo.partition("://")[0]:
        return WRONG_SCHEME
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error as error:
        return _unreadable(str(error), is_url=scheme is not None)
    for port in str(given.get("port") or "5432").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            return "must have a port from 1 to 65535"
    return _rejected_option(given)


def _unescaped(rest: str) -> str | None:
    """What is wrong with the characters behind `postgresql://`."""
    if re.search(r"%(?![0-9a-fA-F]{2})", rest):
        return "has a % that begins no escape: write % as %25"
    path, _, query = rest.partition("?")
    # The first @ ends user and password; libpq looks for it no further than the first /.
    stray = path.count("@") > 1 or "@" in path.partition("/")[2] or ("@" in query and "@" not in path)
    if stray:
        return f"has an unescaped character in the user or the password: {ESCAPES}"
    return None


def _unreadable(message: str, *, is_url: bool) -> str:
    if unknown := _UNKNOWN.search(message):
        return f"has a parameter that libpq does not know, {unknown[1]}: remove it"
    if not is_url and "missing" in message:
        return "must be a URL, postgresql://…, or name=value pairs"
    return "is not one that libpq can read" + (f"; if the password has special characters, {ESCAPES}" if is_url else "")


def _rejected_option(given: dict[str, str | int | None]) -> str | None:
    """What libpq says of an option's value: it checks them all before it connects, here to a socket that is nowhere."""
    nowhere = make_conninfo("", **given | {"host": "/nonexistent", "hostaddr": None, "port": None})  # pyright: ignore[reportArgumentType]
    connection = pq.PGconn.connect_start(nowhere.encode())
    said = connection.get_error_message().splitlines()[0] if connection.status == pq.ConnStatus.BAD else ""
    connection.finish()
    return None if not said or "/nonexistent" in said else f"cannot be used: {said}"


def libpq_environment(conninfo: str) -> dict[str, str]:
    """The environment variables that have libpq's programs connect there; a password is then in no process list.

    Raises psycopg.OperationalError for what libpq cannot read.
    """
    return {
        option.envvar.decode(): option.val.decode()
        for option in pq.Conninfo.parse(conninfo.encode())
        if option.envvar and option.val is not None
    }


def libpq_variables() -> set[str]:
    """Every environment variable that libpq reads, and those of PostgreSQL's programs."""
    options = {option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    return options | {"PGSERVICEFILE", "PGSYSCONFDIR", "PGDATESTYLE", "PGTZ", "PGGEQO", "PGDATA", "PGLOCALEDIR"}
