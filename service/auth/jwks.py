"""The keys that an identity provider publishes (JWKS): fetched in the background, cached while it is unreachable.

Must not import tokens or settings.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import cast

import httpx
import msgspec

from service.auth.authenticator import KeyStats
from service.auth.keys import ALGORITHMS, Key, UnusableKey, from_jwk
from service.http.errors import AuthFailure, unavailable

logger = logging.getLogger(__name__)

REFRESH_S = 300.0  # a withdrawn key stays valid for at most this long
RETRY_S = 30.0  # the same, after a fetch that failed
COOL_DOWN_S = 10.0  # between two fetches for unknown key IDs, so that invented ones cannot flood the provider
TIMEOUT_S = 5.0  # for a whole fetch; a request with an unknown key ID waits at most this long
MAX_BYTES = 256 * 1024  # the largest known documents, with certificate chains, have some tens of KiB
MAX_WAITING = 100  # requests that wait for a fetch at once
MAX_NAME = 100  # of a key ID in the log
MAX_KEYS = 64  # a token without a key ID is tried against each key


class _Document(msgspec.Struct):
    keys: list[object]


class _UnusableResponse(Exception):
    """The provider's response does not contain keys."""


class Jwks:
    """A key source that follows a provider's JWKS.

    An unknown key ID starts one fetch, which all requests with unknown IDs wait for; the next such fetch starts after
    the cool-down at the earliest. The last keys stay valid while the provider is unreachable, too slow, or responds
    without keys.
    """

    algorithms = frozenset(ALGORITHMS.values())

    def __init__(
        self,
        url: str,
        *,
        refresh_s: float = REFRESH_S,
        retry_s: float = RETRY_S,
        cool_down_s: float = COOL_DOWN_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Raises httpx.InvalidURL."""
        self.generation = 0
        self._url = httpx.URL(url)
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._cool_down_s = cool_down_s
        self._timeout_s = timeout_s
        # A redirect could lead from https to any place; the settings name the only one.
        self._client = httpx.AsyncClient(follow_redirects=False, timeout=timeout_s)
        self._keys: tuple[Key, ...] = ()
        self._unused: tuple[str, ...] = ()
        self._last_succeeded = False  # of the fetches: then a key that it did not contain does not exist
        self._cool_until = 0.0  # on the monotonic clock, as _fetched_at
        self._fetched_at: float | None = None
        self._refreshes = self._failed_refreshes = 0
        self._waiting = 0
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts fetching, now and periodically. Does not wait: the service also starts while the provider is away."""
        self._ensure_refreshing()

    async def aclose(self) -> None:
        tasks = [task for task in (self._refreshing, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def stats(self) -> KeyStats | None:
        """See KeySource."""
        age = None if self._fetched_at is None else time.monotonic() - self._fetched_at
        return KeyStats(self._refreshes, self._failed_refreshes, age)

    async def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """See KeySource. A token without a key ID may be signed with any key of its algorithm."""
        self._ensure_refreshing()
        if not self._has_key(kid):
            await self._fetch_for_unknown_key()
            if not (self._last_succeeded or self._has_key(kid)):
                raise unavailable(AuthFailure.NO_KEYS)  # not 401: the token may be valid
        return [key for key in self._keys if key.algorithm == algorithm and kid in (None, key.kid)]

    def _has_key(self, kid: str | None) -> bool:
        return any(kid in (None, key.kid) for key in self._keys)

    def _ensure_refreshing(self) -> None:
        if self._refreshing is None:
            self._ensure_fetching()  # before the task runs, so that the first request waits for this fetch
            self._refreshing = asyncio.create_task(self._refresh_periodically())

    async def _refresh_periodically(self) -> None:
        while True:
            await self._wait_for_fetch()
            await asyncio.sleep(self._refresh_s if self._last_succeeded else self._retry_s)

    async def _fetch_for_unknown_key(self) -> None:
        """Waits for a new fetch or the one in progress. Within the cool-down, only for one that is in progress and does
        not follow a failed one: made-up key IDs must not make requests wait again and again for a provider that hangs.
        """
        cooling = time.monotonic() < self._cool_until
        last_failed = self._failed_refreshes > 0 and not self._last_succeeded
        if cooling and (self._fetching is None or last_failed):
            return
        if self._waiting >= MAX_WAITING:
            raise unavailable(AuthFailure.NO_KEYS)
        if self._fetching is None:
            self._cool_until = time.monotonic() + self._cool_down_s
        self._waiting += 1
        try:
            await self._wait_for_fetch()
        finally:
            self._waiting -= 1

    async def _wait_for_fetch(self) -> None:
        """Waits for the fetch in progress, or for a new one. Raises nothing."""
        # Shielded: a request that is cancelled must not cancel the fetch that others wait for.
        await asyncio.shield(self._ensure_fetching())

    def _ensure_fetching(self) -> asyncio.Task[None]:
        """The fetch in progress, or a new one."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            self._refreshes += 1
            keys, unused = _parse(await self._download())
            self._log_unused(unused)
            self._replace_keys(keys)
            self._fetched_at = time.monotonic()
        except Exception as failure:  # any: refreshing must continue, or withdrawn keys would stay valid
            self._last_succeeded = False
            self._failed_refreshes += 1
            self._cool_until = time.monotonic() + self._cool_down_s
            meanwhile = f"cached keys stay valid: {len(self._keys)}" if self._keys else "no token can be verified yet"
            logger.warning("cannot fetch keys from %s: %r; %s", self._url.host, failure, meanwhile)
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        # No compression: MAX_BYTES bounds the bytes received, which a compressed body would exceed once expanded.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with asyncio.timeout(self._timeout_s), self._client.stream("GET", self._url, headers=headers) as response:
            if response.status_code != 200:
                raise _UnusableResponse(f"status {response.status_code}")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BYTES:
                    raise _UnusableResponse(f"more than {MAX_BYTES} bytes")
            return bytes(body)

    def _log_unused(self, unused: tuple[str, ...]) -> None:
        """Logs why keys are not used, once for as long as they are published."""
        for reason in unused:
            if reason not in self._unused:
                logger.info("a key from %s is not used: %s", self._url.host, reason)
        self._unused = unused

    def _replace_keys(self, keys: tuple[Key, ...]) -> None:
        if any(key not in keys for key in self._keys):
            self.generation += 1
        if keys != self._keys or not self._last_succeeded:
            logger.log(logging.INFO if keys else logging.WARNING, "usable keys from %s: %d", self._url.host, len(keys))
        self._keys = keys
        self._last_succeeded = True


def _parse(document: bytes) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """The keys of a JWKS, and why each of the others is not used: they may be for other purposes (RFC 7517, section 5).
    Raises if it is not a JWKS.
    """
    entries = msgspec.json.decode(document, type=_Document).keys
    if len(entries) > MAX_KEYS:
        raise _UnusableResponse(f"more than {MAX_KEYS} keys")
    keys: list[Key] = []
    unused: list[str] = []
    for place, entry in enumerate(entries, 1):
        try:
            keys.append(from_jwk(entry))
        except UnusableKey as reason:
            unused.append(f"{_name(place, entry)}: {reason}")
    return tuple(keys), tuple(unused)


def _name(place: int, entry: object) -> str:
    """A key as the log names it: by its ID, or by its place in the document."""
    kid = cast(dict[str, object], entry).get("kid") if isinstance(entry, dict) else None
    return repr(kid[:MAX_NAME]) if isinstance(kid, str) else f"number {place}"
