"""The interface between the service and an identity provider. Must not import anything of the service."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import msgspec

Headers = Iterable[tuple[bytes, bytes]]  # as ASGI gives them: lower-case names, values as sent


class Principal(msgspec.Struct, frozen=True):
    """The caller: the user whose tasks the request may read and write."""

    user_id: str


class Authenticator(Protocol):
    """Determines the caller of a request. `create_app(settings, authenticator=…)` takes any object with this method."""

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        """The principal of a request with these headers. Called before the body is read.

        Raises service.http.errors.ApiError (401, made by `authentication_required`, `invalid_token`, `token_expired` or
        `unauthenticated` there) if there is none. The authenticator need not compare the principal with
        `path_user_id`: the service does, and responds 403.
        """
        ...


@runtime_checkable
class ManagedAuthenticator(Authenticator, Protocol):
    """An authenticator with background work. The service calls `start` before the first request and `aclose` after the
    last response. Other authenticators define neither.
    """

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class KeyStats(msgspec.Struct, frozen=True):
    """About keys that are fetched from a provider. `age_s`: since they were last fetched; None: never."""

    refreshes: int
    failed_refreshes: int
    age_s: float | None


@runtime_checkable
class HasKeyStats(Protocol):
    """An authenticator whose keys come from a provider, for the metrics."""

    def key_stats(self) -> KeyStats | None: ...
