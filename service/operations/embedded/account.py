"""The account that runs PostgreSQL, which refuses to run as root: the service's own where the service is not root.

Where it is, the cluster's owner or `tasks-service`, made at the first start. Nobody's folders are opened for it.
"""

import os
import pwd
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.operations.embedded.binaries import EmbeddedError

NAME = "tasks-service"


class Account(NamedTuple):
    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"account {self.uid}"


def account_for(pgdata: Path) -> Account | None:
    """The account that runs PostgreSQL on this cluster; None: the service's own."""
    if os.geteuid() != 0:
        return None
    if pgdata.exists() and (owner := pgdata.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
        try:
            subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        except (OSError, subprocess.CalledProcessError):
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, and the account {NAME} could not be made for it: run the service "
                "as another user"
            ) from None
        entry = pwd.getpwnam(NAME)
    return Account(entry.pw_uid, entry.pw_gid)


def check_owner(pgdata: Path, account: Account | None) -> None:
    """PostgreSQL starts only on what belongs to its account and is closed to others; a copy that another account made
    may be neither. Raises EmbeddedError.
    """
    account = account or Account(os.geteuid(), os.getegid())
    _check_one(pgdata, account, pgdata)
    for path in sorted(pgdata.iterdir()):
        if not path.name.startswith(("postmaster.pid", ".s.PGSQL")):  # of a dead postmaster, they are removed
            _check_one(path, account, pgdata)
    mode = stat.S_IMODE(pgdata.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IRWXO):
        raise EmbeddedError(f"{pgdata} is open to others (its mode is {mode:04o}): `chmod 0700 {pgdata}`")


def _check_one(path: Path, account: Account, pgdata: Path) -> None:
    if (found := path.lstat()).st_uid != account.uid:
        raise EmbeddedError(
            f"{path} belongs to {Account(found.st_uid, found.st_gid).name}, and PostgreSQL runs as {account.name}: "
            f"`chown -R {account.name} {pgdata}`"
        )


def belongs_to_another(folder: Path, name: str) -> str:
    """The end of a sentence about a folder, or `name` in it, that may not be used: to whom it belongs, and what to do.
    Empty where that is this account.
    """
    account = Account(os.geteuid(), os.getegid())
    for path in (folder, folder / name):
        with suppress(OSError):
            if (found := path.lstat()).st_uid != account.uid:
                owner = Account(found.st_uid, found.st_gid).name
                return f"; {path} belongs to {owner}: `chown -R {account.name} {folder}`"
    return ""


def closed_to(account: Account, folder: Path) -> Path | None:
    """The first folder on the way to `folder` that the account cannot pass through, from the top; None: it can."""
    for part in (*reversed(folder.parents), folder):
        found = part.stat()
        if found.st_uid == account.uid:
            passes = found.st_mode & stat.S_IXUSR
        elif found.st_gid == account.gid:
            passes = found.st_mode & stat.S_IXGRP
        else:
            passes = found.st_mode & stat.S_IXOTH
        if not passes:
            return part
    return None
