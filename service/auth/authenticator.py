"""The seam between the service and whoever proves identities."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import msgspec

Headers = Iterable[tuple[bytes, bytes]]  # as ASGI gives them: lower-case names, values as sent


class Principal(msgspec.Struct, frozen=True):
    """Who is calling: the user whose tasks may be touched."""

    user_id: str


class Authenticator(Protocol):
    """Proves who is calling. Any object with this shape can be given to `create_app(settings, authenticator=…)`."""

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        """The principal of a request with these headers. Called before the body is read.

        Raises service.http.errors.ApiError (401, made by `authentication_required`, `invalid_token`, `token_expired` or
        `unauthenticated` there) where there is none. Whether the principal is the path's user is not for the
        authenticator to say: the service answers 403 by itself.
        """
        ...


@runtime_checkable
class ManagedAuthenticator(Authenticator, Protocol):
    """An authenticator with work of its own beside the requests. The service starts it before it serves and closes it
    after the last answer; an authenticator that needs neither leaves both out."""

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class NoAuthenticator:
    """Believes the path: for use behind a gateway that checks, and for development on loopback."""

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        return Principal(path_user_id)
