"""Bearer tokens (RFC 6750) that are signed JWTs (RFC 7519): verifies them and caches the valid ones.

Follows RFC 8725: one algorithm for each key, chosen by the key; every claim that is relied on is checked. Must not
import a source of keys.
"""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import jwt
import msgspec
from jwt.utils import base64url_decode

from service.auth.authenticator import Headers, KeyStats, Principal
from service.auth.keys import Key, KeySource
from service.http import errors
from service.http.limits import USER_ID_LENGTH

logger = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 8192  # what common proxies let through in one header
CACHE_SIZE = 10_000  # tokens in each process; about 4 MB when full

# Three parts of base64url and nothing else. PyJWT accepts padding, because some providers send it against RFC 7515.
_SHAPE = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_jws = jwt.PyJWS()


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None


class _Claims(msgspec.Struct):
    """The registered claims. An absent time is in the past; an absent issuer or audience is empty, which no setting
    equals. Typed here because PyJWT accepts `"exp": "1700000000"` as a number.
    """

    exp: float
    nbf: float = 0.0
    iat: float = 0.0
    iss: str = ""
    aud: str | list[str] = ""


class _CachedToken(msgspec.Struct, frozen=True, gc=False):
    principal: Principal
    until: float  # seconds since the epoch, leeway included
    generation: int  # of the keys


class TokenAuthenticator:
    """Accepts valid tokens that one of its keys signed.

    Verifying costs 0.1 ms, so valid tokens are cached by their digest until they expire or a key is withdrawn. The
    least recently used one is evicted first. Nothing is cached for an invalid token.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        subject_claim: str = "sub",
        leeway_s: float = 10,
        cache_size: int = CACHE_SIZE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._subject_claim = subject_claim
        self._leeway_s = leeway_s
        self._cache_size = cache_size
        self._clock = clock
        self._cache: OrderedDict[bytes, _CachedToken] = OrderedDict()

    async def start(self) -> None:
        if self._issuer is None:
            logger.warning("AUTH_ISSUER is not set: the issuer of a token is not checked")
        if self._audience is None:
            logger.warning("AUTH_AUDIENCE is not set: a token made for another service is accepted here")
        await self._keys.start()

    async def aclose(self) -> None:
        await self._keys.aclose()

    def key_stats(self) -> KeyStats | None:
        """See HasKeyStats."""
        return self._keys.stats()

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        """See Authenticator."""
        token = _bearer_token(headers)
        digest = blake2b(token, digest_size=32).digest()
        cached = self._cache.get(digest)
        if cached is not None and cached.generation == self._keys.generation and self._clock() < cached.until:
            self._cache.move_to_end(digest)
            return cached.principal
        principal, until = self._check(await self._signed_claims(token))
        self._cache[digest] = _CachedToken(principal, until, self._keys.generation)
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return principal

    async def _signed_claims(self, token: bytes) -> dict[str, Any]:
        """The claims of a token, after its signature was verified."""
        if not _SHAPE.fullmatch(token):
            raise errors.invalid_token()
        try:
            header = msgspec.json.decode(base64url_decode(token.partition(b".")[0]), type=_Header)
        except (ValueError, RecursionError):
            raise errors.invalid_token() from None
        if header.alg not in self._keys.algorithms:
            raise errors.invalid_token()
        for key in await self._keys.candidates(header.alg, header.kid):
            payload = _verified(token, key)
            if payload is not None:
                try:
                    return msgspec.json.decode(payload, type=dict[str, Any])
                except (ValueError, RecursionError):
                    raise errors.invalid_token() from None
        raise errors.invalid_token()

    def _check(self, payload: dict[str, Any]) -> tuple[Principal, float]:
        """The token's principal, and when it expires, in seconds since the epoch. Raises ApiError (401)."""
        try:
            claims = msgspec.convert(payload, _Claims)
        except msgspec.ValidationError:
            raise errors.invalid_token() from None
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        subject = payload.get(self._subject_claim)
        now = self._clock()
        if (
            (self._issuer is not None and claims.iss != self._issuer)
            or (self._audience is not None and self._audience not in audiences)
            or max(claims.nbf, claims.iat) > now + self._leeway_s
            or not isinstance(subject, str)
            or not 1 <= len(subject) <= USER_ID_LENGTH
        ):
            raise errors.invalid_token()
        # Last: a client learns that its token has expired only if a new one would be accepted.
        until = claims.exp + self._leeway_s
        if now >= until:
            raise errors.token_expired()
        return Principal(subject), until


def _bearer_token(headers: Headers) -> bytes:
    """The one token that was sent. Raises ApiError (401)."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise errors.invalid_token()  # a proxy and the service could each read another one
    scheme, _, token = values[0].strip(b" \t").partition(b" ") if values else (b"", b"", b"")
    token = token.lstrip(b" ")
    if scheme.lower() != b"bearer" or not token:
        raise errors.authentication_required()
    if len(token) > MAX_TOKEN_BYTES:
        raise errors.invalid_token()
    return token


def _verified(token: bytes, key: Key) -> bytes | None:
    """The payload, if this key signed it."""
    try:
        return _jws.decode(token, key.material, algorithms=[key.algorithm])
    except jwt.InvalidTokenError:
        return None
