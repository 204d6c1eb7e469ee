"""Bearer tokens (RFC 6750) that are signed JWTs (RFC 7519): which of them hold, and whose they are.

Follows RFC 8725: one algorithm a key, chosen by the key; every claim that is relied on is checked. Must not know where
keys come from, nor paths or tasks.
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

from service.auth.authenticator import Headers, Principal
from service.auth.keys import Key, KeySource
from service.http import errors
from service.http.limits import USER_ID_LENGTH

logger = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 8192  # what common proxies let through in one header
REMEMBERED = 10_000  # tokens a process; some 4 MB when full

# Three parts of base64url and nothing else. PyJWT lets padding pass, as some providers send it against RFC 7515.
_SHAPE = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_jws = jwt.PyJWS()


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None


class _Claims(msgspec.Struct):
    """The registered claims. Absent times are long ago, an absent issuer or audience is nobody's: settings are never
    empty. Typed here because PyJWT takes `"exp": "1700000000"` for a number."""

    exp: float
    nbf: float = 0.0
    iat: float = 0.0
    iss: str = ""
    aud: str | list[str] = ""


class _Remembered(msgspec.Struct, frozen=True, gc=False):
    principal: Principal
    until: float  # seconds since the epoch, leeway included
    generation: int  # of the keys


class TokenAuthenticator:
    """Believes tokens that one of its keys signed, for as long as they hold.

    Verifying costs 0.1 ms; so what held is remembered by its digest until it expires or a key is withdrawn, the least
    recently used forgotten first. What did not hold leaves no trace.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        subject_claim: str = "sub",
        leeway_s: float = 10,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._subject_claim = subject_claim
        self._leeway_s = leeway_s
        self._most_remembered = remembered
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def start(self) -> None:
        if self._issuer is None:
            logger.warning("AUTH_ISSUER is not set: the issuer of a token is not checked")
        if self._audience is None:
            logger.warning("AUTH_AUDIENCE is not set: a token made for another service is accepted here")
        await self._keys.start()

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        """See Authenticator."""
        token = _bearer_token(headers)
        digest = blake2b(token, digest_size=32).digest()
        known = self._remembered.get(digest)
        if known is not None and known.generation == self._keys.generation and self._clock() < known.until:
            self._remembered.move_to_end(digest)
            return known.principal
        principal, until = self._check(await self._signed_claims(token))
        self._remembered[digest] = _Remembered(principal, until, self._keys.generation)
        if len(self._remembered) > self._most_remembered:
            self._remembered.popitem(last=False)
        return principal

    async def _signed_claims(self, token: bytes) -> dict[str, Any]:
        """The claims of a token whose signature is right."""
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
        """Whose the token is and until when, in seconds since the epoch."""
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
        # Last, so that a client is told to fetch a new token only where a new one would do.
        until = claims.exp + self._leeway_s
        if now >= until:
            raise errors.token_expired()
        return Principal(subject), until


def _bearer_token(headers: Headers) -> bytes:
    """The one token that was sent. Raises ApiError (401)."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise errors.invalid_token()  # two parties could each believe another of them
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
