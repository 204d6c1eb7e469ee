"""The probes. `/livez`: the event loop runs. `/readyz`: requests can be served, as far as earlier ones have shown.

Neither sends a statement: a probe every second would keep a suspended Neon compute awake.
"""

from litestar import Router, route
from litestar.datastructures import CacheControlHeader

from service.database import Database
from service.http import errors
from service.http.asgi import GET_AND_HEAD
from service.http.errors import ApiError

NO_STORE = CacheControlHeader(no_store=True)


class Health:
    """Whether the service can serve. `stopping` is set by the server."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.stopping = False

    def error(self) -> ApiError | None:
        """Why the service is not ready; None: it is."""
        if self.stopping:
            return errors.shutting_down()
        if not self._database.reachable:
            return errors.database_unreachable()
        if self._database.mismatch is not None:
            return errors.schema_mismatch()
        if self._database.read_only:
            return errors.database_read_only()
        return None


def router(health: Health) -> Router:
    """`/livez` and `/readyz`."""

    @route("/livez", http_method=GET_AND_HEAD, sync_to_thread=False)
    def livez() -> dict[str, str]:
        """The event loop runs."""
        return {"status": "ok"}

    @route("/readyz", http_method=GET_AND_HEAD, sync_to_thread=False)
    def readyz() -> dict[str, str]:
        """The service can serve; 503 with the reason where it cannot."""
        if (error := health.error()) is not None:
            raise error
        return {"status": "ready"}

    # Some proxies keep what does not tell them not to: Varnish for two minutes.
    return Router("/", route_handlers=[livez, readyz], tags=["operations"], cache_control=NO_STORE)
