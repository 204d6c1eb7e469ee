"""Responses that the server gives without the application."""

from service.http import errors
from service.http.asgi import Receive, Scope, Send, line
from service.http.head import METHODS
from service.http.responses import EmptyResponse, error_response_of


async def respond_to_asterisk(scope: Scope, receive: Receive, send: Send) -> None:
    """`OPTIONS *` asks what the service as a whole can do (RFC 9110, 9.3.7)."""
    await EmptyResponse(204, line(b"allow", b", ".join(METHODS)))(scope, receive, send)


async def respond_overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """The 503 above uvicorn's option limit_concurrency."""
    await error_response_of(errors.unavailable())(scope, receive, send)
