"""A separate port for operators' paths: metrics, documentation and probes, which a public port need not show."""

from typing import Any

from service.http import errors
from service.http.asgi import ASGIApp
from service.http.error_handler import error_response
from service.http.operator_paths import is_for_operators
from service.http.request_record import record_of


def split(app: ASGIApp, admin_port: int) -> ASGIApp:
    """ASGI: `app`, with operators' paths on `admin_port` alone, and nothing else there. The rest is a 404."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            server = scope.get("server")
            if is_for_operators(scope["path"]) != (server is not None and server[1] == admin_port):
                await error_response(errors.not_found(), record_of(scope))(scope, receive, send)
                return
        await app(scope, receive, send)

    return served
