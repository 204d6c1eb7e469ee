"""PostgreSQL clusters that are thrown away: for tests, and to see what the migrations make in an empty database."""

import signal
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from service.operations.embedded.binaries import VERSION
from service.operations.embedded.cluster import Embedded

# Nothing has to reach the disk.
UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off"}


class Throwaway(Embedded):
    """A cluster that is fast because nothing is forced to disk."""

    def __init__(self, data_dir: Path, options: Mapping[str, str] | None = None, *, version: int = VERSION) -> None:
        super().__init__(data_dir, UNSAFE_BUT_FAST | dict(options or {}), initdb=["--no-sync"], version=version)

    def crash(self) -> None:
        """Ends it without a checkpoint."""
        if self._postmaster is not None:
            self._postmaster.send_signal(signal.SIGQUIT)
            self._postmaster.wait(30)


@contextmanager
def temporary(options: Mapping[str, str] | None = None) -> Generator[Throwaway]:
    """A cluster in a temporary folder, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="tasks-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as another account where the tests run as root
        cluster = Throwaway(Path(folder) / "data", options).start()
        try:
            yield cluster
        finally:
            cluster.crash()
            cluster.stop()
