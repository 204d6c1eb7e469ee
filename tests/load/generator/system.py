"""What the generator asks the system for: addresses, certificates, open files, and how long it waited for a core."""

import resource
import socket
import ssl
from pathlib import Path
from urllib.parse import SplitResult

from tests.load.generator.connection import Place

SCHEDSTAT = "/proc/thread-self/schedstat"


def located(url: SplitResult, *, insecure: bool) -> Place:
    """Raises OSError for a name that cannot be found."""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    family, *_, address = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)[0]
    tls = None
    if secure:
        tls = ssl.create_default_context()
        tls.set_alpn_protocols(["http/1.1"])
        if insecure:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
    return Place(family, address, url.hostname or "", tls)


def allow_files(count: int) -> None:
    """Raises the limit of open files to `count`. Raises OSError where the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count or soft == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard if hard >= count else count))
    except (OSError, ValueError):
        raise OSError(f"{count} open files are needed and the limit is {hard}: see `ulimit -Hn`") from None


def waited_for_cpu() -> float | None:
    """Seconds in which this thread was ready to run and had no core. None where the kernel does not tell."""
    try:
        return int(Path(SCHEDSTAT).read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
