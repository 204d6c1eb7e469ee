"""The keys that tokens are verified with: what one is, which are accepted, and who may supply them.

Must not know tokens, requests or the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

RSA_MIN_BITS = 2048  # RFC 7518, section 3.3
ALGORITHMS = {("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", ""): "RS256"}  # by (kty, crv)


class UnusableKey(Exception):
    """A key that is malformed, too weak, or not for verifying the signatures that are accepted here."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the one algorithm that it is used with, whatever a token says."""

    algorithm: str
    material: bytes | Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey = field(repr=False)
    kid: str | None = None


class KeySource(Protocol):
    """Supplies keys."""

    @property
    def algorithms(self) -> frozenset[str]:
        """What a token may be signed with."""
        ...

    @property
    def generation(self) -> int:
        """Moves whenever a key is withdrawn: what was verified under an earlier generation is verified again."""
        ...

    async def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed a token with this header; none if there is no such key.

        Raises service.http.errors.ApiError (503) when that cannot be said at present.
        """
        ...

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class SharedSecret:
    """One secret that the service shares with whoever makes its tokens."""

    algorithms = frozenset({"HS256"})
    generation = 0

    def __init__(self, secret: bytes) -> None:
        """Raises UnusableKey."""
        try:
            jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        except jwt.InvalidKeyError:  # whoever has the public key could make tokens with it
            raise UnusableKey("a public key or certificate is not a secret") from None
        self._keys = (Key("HS256", secret),)

    async def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        return self._keys

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class _Jwk(msgspec.Struct, omit_defaults=True):
    """A key as RFC 7517 writes it: its public parameters, so that a private one is never even read."""

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
    """The key of one decoded entry of a JWKS. Raises UnusableKey."""
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
