"""The probes. `livez`: the process turns. `readyz`: it can serve, by what is already known.

Neither asks the database: a probe every second would keep a suspended Neon compute awake.
"""

from litestar import HttpMethod, Router, route

from service.database import Database
from service.http.errors import RETRY_AFTER, ApiError

GET = [HttpMethod.GET, HttpMethod.HEAD]


class Health:
    """What the service knows of itself."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.stopping = False

    def reason(self) -> str | None:
        """Why the service is not ready, in a sentence; None: it is."""
        if self.stopping:
            return "The service is shutting down"
        if not self._database.reachable:
            return "The database cannot be reached"
        if self._database.mismatch is not None:
            return "The database's schema does not fit this version of the service"
        return None


def router(health: Health) -> Router:
    """`/livez` and `/readyz`."""

    @route("/livez", http_method=GET, sync_to_thread=False)
    def livez() -> dict[str, str]:
        """The process turns."""
        return {"status": "ok"}

    @route("/readyz", http_method=GET, sync_to_thread=False)
    def readyz() -> dict[str, str]:
        """The service can serve; 503 with the reason where it cannot."""
        if (reason := health.reason()) is not None:
            raise ApiError(503, reason, headers=RETRY_AFTER)
        return {"status": "ready"}

    return Router("/", route_handlers=[livez, readyz], tags=["operations"])
