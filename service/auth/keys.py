"""The keys that verify tokens: their type, which are accepted, and the interface of their source.

Must not import tokens, requests or the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from service.auth.authenticator import KeyStats

RSA_MIN_BITS = 2048  # RFC 7518, section 3.3
ALGORITHMS = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", ""): "RS256"}  # by (kty, crv)


class UnusableKey(Exception):
    """A key that is malformed, too weak, or not meant to verify the accepted signatures."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and its one algorithm. A token cannot choose another one."""

    algorithm: str
    material: bytes | Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey = field(repr=False)
    kid: str | None = None


class KeySource(Protocol):
    """Supplies keys."""

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms that a token may be signed with."""
        ...

    @property
    def generation(self) -> int:
        """Rises whenever a key is withdrawn: tokens that were cached under an earlier generation are verified again."""
        ...

    async def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed a token with this header; none if there is no such key.

        Raises service.http.errors.ApiError (503) if the source cannot tell at the moment.
        """
        ...

    def stats(self) -> KeyStats | None:
        """None: these keys are never fetched."""
        ...

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class SharedSecret:
    """A secret that the service shares with the issuer of its tokens."""

    algorithms = frozenset({"HS256"})
    generation = 0

    def __init__(self, secret: bytes) -> None:
        """Raises UnusableKey."""
        try:
            jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        except jwt.InvalidKeyError:  # everyone has a public key, and could sign tokens with it
            raise UnusableKey("a public key or certificate is not a secret") from None
        self._keys = (Key("HS256", secret),)

    async def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        return self._keys

    def stats(self) -> KeyStats | None:
        return None

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Jwk(msgspec.Struct, omit_defaults=True):
    """The public parameters of a key (RFC 7517). Private ones are never read."""

    kty: str
    crv: str = ""
    kid: str | None = None
    alg: str | None = None
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    x: str = ""
    y: str = ""
    n: str = ""
    e: str = ""


def from_jwk(jwk: object) -> Key:
    """The key of one decoded entry of a JWKS. A member that is null counts as absent: some libraries write it so.

    Raises UnusableKey.
    """
    if isinstance(jwk, dict):
        members = cast(dict[object, object], jwk)
        jwk = {name: value for name, value in members.items() if value is not None}
    try:
        known = msgspec.convert(jwk, _Jwk)
        algorithm = ALGORITHMS.get((known.kty, known.crv))
        if algorithm is None or known.alg not in (None, algorithm):
            raise UnusableKey("not Ed25519, P-256 or RSA for EdDSA, ES256 or RS256")
        if known.use != "sig" or "verify" not in known.key_ops:
            raise UnusableKey("not for verifying signatures")
        material = cast(
            Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey,
            jwt.PyJWK(msgspec.to_builtins(known), algorithm).key,
        )
    except (msgspec.ValidationError, jwt.PyJWTError, ValueError) as error:
        raise UnusableKey(str(error)) from None
    if isinstance(material, RSAPublicKey) and material.key_size < RSA_MIN_BITS:
        raise UnusableKey(f"an RSA key of {material.key_size} bits")
    return Key(algorithm, material, known.kid)
