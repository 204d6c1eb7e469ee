"""Keys and tokens for tests, made with `cryptography` alone, so that the service's JWT library is not its own judge.

`CASES` is the table of what may come in an Authorization header and what the service must say to it, for a service
that trusts the keys in `PUBLISHED`, with ISSUER, AUDIENCE and the default leeway; `SECRET_CASES` the same for one that
shares SECRET. Tokens are made when asked for, so that their times are right then.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://auth.example.com"
AUDIENCE = "https://tasks.example.com"
USER = "user-1"
SECRET = "a shared secret of more than 32 bytes"
LEEWAY_S = 10  # the default of AUTH_LEEWAY_S

ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class Signer:
    """A private key, how it signs, and its public half as a JWK."""

    alg: str
    sign: Callable[[bytes], bytes]
    jwk: dict[str, Any]
    pem: bytes = b""

    @property
    def kid(self) -> str:
        return self.jwk["kid"]


def _pem(key: Any) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ed25519_signer(kid: str | None, **members: Any) -> Signer:
    key = ed25519.Ed25519PrivateKey.generate()
    x = b64(key.public_key().public_bytes_raw())
    return Signer("EdDSA", key.sign, _jwk(kid, kty="OKP", crv="Ed25519", x=x, **members), _pem(key))


def ed448_signer(kid: str) -> Signer:
    key = ed448.Ed448PrivateKey.generate()
    x = b64(key.public_key().public_bytes_raw())
    return Signer("EdDSA", key.sign, _jwk(kid, kty="OKP", crv="Ed448", x=x), _pem(key))


def ec_signer(kid: str | None, curve: ec.EllipticCurve, alg: str, name: str, hash_: hashes.HashAlgorithm) -> Signer:
    key = ec.generate_private_key(curve)
    size = (curve.key_size + 7) // 8
    point = key.public_key().public_numbers()
    jwk = _jwk(kid, kty="EC", crv=name, x=b64(point.x.to_bytes(size, "big")), y=b64(point.y.to_bytes(size, "big")))

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hash_)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return Signer(alg, sign, jwk, _pem(key))


def es256_signer(kid: str | None) -> Signer:
    return ec_signer(kid, ec.SECP256R1(), "ES256", "P-256", hashes.SHA256())


def rsa_signer(kid: str | None, bits: int = 2048, **members: Any) -> Signer:
    key = rsa.generate_private_key(65537, bits)
    public = key.public_key().public_numbers()
    jwk = _jwk(kid, kty="RSA", n=_number(public.n), e=_number(public.e), **members)
    return Signer("RS256", lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256()), jwk, _pem(key))


def hmac_signer(secret: bytes, hash_: Callable[..., Any] = hashlib.sha256) -> Signer:
    return Signer("HS256", lambda data: hmac.new(secret, data, hash_).digest(), _jwk("oct", kty="oct", k=b64(secret)))


def _jwk(kid: str | None, **members: Any) -> dict[str, Any]:
    return members if kid is None else members | {"kid": kid}


def claims(**changes: Any) -> dict[str, Any]:
    """Claims as Better Auth makes them; `changes` replace some, None as a value takes one away."""
    now = int(time.time())
    good = {"sub": USER, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 900, "email": "user@example.com"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def in_s(seconds: float) -> float:
    return time.time() + seconds


def compact(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> str:
    """A token with any header and payload (bytes are taken as they are, anything else as JSON), rightly signed."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload))
    signing_input = ".".join(b64(part) for part in parts)
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def token(signer: Signer, payload: Any = None, **header: Any) -> str:
    """A token signed by `signer`, with its algorithm and key id unless `header` says otherwise (None: left out)."""
    named = {"alg": signer.alg, "kid": signer.jwk.get("kid")} | header
    kept = {name: value for name, value in named.items() if value is not None}
    return compact(kept, claims() if payload is None else payload, signer.sign)


ED = ed25519_signer("ed")
ES = es256_signer("es")
RS = rsa_signer("rs", alg="RS256", use="sig")
ED_NO_KID = ed25519_signer(None)
STRANGER = ed25519_signer("ed")  # another key under a known key id
RS_WEAK = rsa_signer("rs-weak", 1024)
RS_ENC = rsa_signer("rs-enc", use="enc")
RS_512 = rsa_signer("rs-512", alg="RS512")
ED_WRAP = ed25519_signer("ed-wrap", key_ops=["sign"])
ES_384 = ec_signer("es-384", ec.SECP384R1(), "ES384", "P-384", hashes.SHA384())
ES_K = ec_signer("es-k", ec.SECP256K1(), "ES256K", "secp256k1", hashes.SHA256())
ED_448 = ed448_signer("ed-448")
OCT = hmac_signer(b"a secret that somebody published by mistake")
SHARED = hmac_signer(SECRET.encode())

PUBLISHED = [
    signer.jwk for signer in (ED, ES, RS, ED_NO_KID, RS_WEAK, RS_ENC, RS_512, ED_WRAP, ES_384, ES_K, ED_448, OCT)
] + [{"kty": "OKP", "crv": "Ed25519", "kid": "ed-empty", "x": ""}, {"kty": 5}, "no key at all"]

GOOD = "good"
REQUIRED = "Authentication required"
INVALID = "Invalid token"
EXPIRED = "Token has expired"

Values = list[bytes]  # of the Authorization headers


@dataclass(frozen=True)
class Case:
    name: str
    expected: str
    make: Callable[[], Values]
    user: str = USER
    by_http: bool = True  # whether an HTTP server lets it reach the service

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", value) for value in self.make()]


def case(name: str, expected: str, make: Callable[[], str | bytes], **more: Any) -> Case:
    """A case whose only header is `Bearer <token>`."""

    def values() -> Values:
        made = make()
        return [b"Bearer " + (made if isinstance(made, bytes) else made.encode())]

    return Case(name, expected, values, **more)


def claim_case(name: str, expected: str, make: Callable[[], dict[str, Any] | bytes], **more: Any) -> Case:
    """A case whose token is rightly signed."""
    return case(name, expected, lambda: token(ED, make()), **more)


def bearer(text: str) -> bytes:
    return b"Bearer " + text.encode()


def _changed(text: str, index: int) -> str:
    """The token with one character of it replaced."""
    index %= len(text)
    return text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]


def _parts(made: str) -> list[str]:
    return made.split(".")


def _other_last_bits(made: str) -> str:
    """The same bytes written another way: the last character of 64 bytes in base64url has four bits to spare."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return made[:-1] + alphabet[alphabet.index(made[-1]) + 1]


def _with_signature(made: str, change: Callable[[bytes], bytes]) -> str:
    head, payload, signature = _parts(made)
    raw = base64.urlsafe_b64decode(signature + "==")
    return f"{head}.{payload}.{b64(change(raw))}"


def _plus_order(signature: bytes) -> bytes:
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    return signature[:32] + s.to_bytes(32, "little")


def _spliced(payload: dict[str, Any]) -> str:
    """Another payload under a signature that was made for a good one."""
    head, _, signature = _parts(token(ED))
    return f"{head}.{b64(json.dumps(payload).encode())}.{signature}"


def _of_length(length: int) -> str:
    """A rightly signed token of exactly this many bytes: one of every four lengths there cannot be."""
    empty = claims(padding="")
    head, _, signature = _parts(token(ED, empty, kid=None))
    payload_bytes = (length - len(head) - len(signature) - 2) * 3 // 4
    made = token(ED, empty | {"padding": "x" * (payload_bytes - len(json.dumps(empty)))}, kid=None)
    assert len(made) == length
    return made


GOOD_CASES = [
    case("EdDSA", GOOD, lambda: token(ED)),
    case("ES256", GOOD, lambda: token(ES)),
    case("RS256", GOOD, lambda: token(RS)),
    case("no key id, several keys", GOOD, lambda: token(ED, kid=None)),
    case("no key id, a key without one", GOOD, lambda: token(ED_NO_KID)),
    case("typ JWT", GOOD, lambda: token(ED, typ="JWT")),
    case("typ at+jwt", GOOD, lambda: token(RS, typ="at+jwt")),
    case("the attacker's key in the header is ignored", GOOD, lambda: token(ED, jwk=STRANGER.jwk)),
    Case("scheme in lower case", GOOD, lambda: [b"bearer " + token(ED).encode()]),
    Case("scheme in upper case", GOOD, lambda: [b"BEARER " + token(ED).encode()]),
    Case("two spaces", GOOD, lambda: [b"Bearer  " + token(ED).encode()]),
    Case("white space around", GOOD, lambda: [b" Bearer " + token(ED).encode() + b" \t"]),
    claim_case("audience in a list", GOOD, lambda: claims(aud=["https://other.example.com", AUDIENCE])),
    claim_case("fraction in exp", GOOD, lambda: claims(exp=in_s(60.5))),
    claim_case("exp in the year 33658", GOOD, lambda: claims(exp=10**12)),
    claim_case("expired within the leeway", GOOD, lambda: claims(exp=in_s(-LEEWAY_S + 5))),
    claim_case("nbf in the past", GOOD, lambda: claims(nbf=in_s(-60))),
    claim_case("nbf in the future, within the leeway", GOOD, lambda: claims(nbf=in_s(LEEWAY_S - 5))),
    claim_case("iat in the future, within the leeway", GOOD, lambda: claims(iat=in_s(LEEWAY_S - 5))),
    claim_case("no iat", GOOD, lambda: claims(iat=None)),
    claim_case("claims that nobody knows", GOOD, lambda: claims(roles=["a", {"b": None}], name="Zoë 🙂", jti=5)),
    claim_case("subject with an at sign", GOOD, lambda: claims(sub="zoe@example.com"), user="zoe@example.com"),
    claim_case("subject not in ASCII", GOOD, lambda: claims(sub="Zoë 🙂"), user="Zoë 🙂"),
    claim_case("subject of 255 characters", GOOD, lambda: claims(sub="é" * 255), user="é" * 255),
    case("8 KiB long", GOOD, lambda: _of_length(8192)),
]

REQUIRED_CASES = [
    Case("no header", REQUIRED, list),
    Case("empty header", REQUIRED, lambda: [b""]),
    Case("scheme only", REQUIRED, lambda: [b"Bearer"]),
    Case("scheme and spaces", REQUIRED, lambda: [b"Bearer   "]),
    Case("token without scheme", REQUIRED, lambda: [token(ED).encode()]),
    Case("Basic", REQUIRED, lambda: [b"Basic " + base64.b64encode(b"user-1:secret")]),
    Case("a good token under another scheme", REQUIRED, lambda: [b"Token " + token(ED).encode()]),
    Case("scheme and token joined", REQUIRED, lambda: [b"Bearer" + token(ED).encode()]),
    Case("scheme not in ASCII", REQUIRED, lambda: ["Bëarer ".encode() + token(ED).encode()]),
]

EXPIRED_CASES = [
    claim_case("expired a second ago, leeway included", EXPIRED, lambda: claims(exp=in_s(-LEEWAY_S - 1))),
    claim_case("expired yesterday", EXPIRED, lambda: claims(exp=int(in_s(-86400)))),
    claim_case("exp 0", EXPIRED, lambda: claims(exp=0)),
    claim_case("exp negative", EXPIRED, lambda: claims(exp=-1)),
    case("expired, RS256", EXPIRED, lambda: token(RS, claims(exp=in_s(-60)))),
    case("expired, ES256", EXPIRED, lambda: token(ES, claims(exp=in_s(-60)))),
]

CLAIM_CASES = [
    claim_case("no exp", INVALID, lambda: claims(exp=None)),
    claim_case("exp null", INVALID, lambda: json.dumps(claims() | {"exp": None}).encode()),
    claim_case("exp a string", INVALID, lambda: claims(exp=str(int(in_s(900))))),
    claim_case("exp true", INVALID, lambda: claims(exp=True)),
    claim_case("exp a list", INVALID, lambda: claims(exp=[int(in_s(900))])),
    claim_case("exp NaN", INVALID, lambda: claims(exp=float("nan"))),
    claim_case("exp Infinity", INVALID, lambda: claims(exp=float("inf"))),
    claim_case("exp 1e400", INVALID, lambda: json.dumps(claims(exp=7)).replace(": 7", ": 1e400").encode()),
    claim_case(
        "exp of 5000 digits", INVALID, lambda: json.dumps(claims(exp=7)).replace(": 7", ":" + "9" * 5000).encode()
    ),
    claim_case("nbf in the future", INVALID, lambda: claims(nbf=in_s(60))),
    claim_case("nbf a string", INVALID, lambda: claims(nbf="0")),
    claim_case("iat in the future", INVALID, lambda: claims(iat=in_s(60))),
    claim_case("iat a string", INVALID, lambda: claims(iat="yesterday")),
    claim_case("wrong issuer", INVALID, lambda: claims(iss="https://evil.example.com")),
    claim_case("issuer with a slash more", INVALID, lambda: claims(iss=ISSUER + "/")),
    claim_case("issuer in a list", INVALID, lambda: claims(iss=[ISSUER])),
    claim_case("no issuer", INVALID, lambda: claims(iss=None)),
    claim_case("wrong audience", INVALID, lambda: claims(aud="https://other.example.com")),
    claim_case("wrong audience in a list", INVALID, lambda: claims(aud=["https://other.example.com"])),
    claim_case("audience that begins like ours", INVALID, lambda: claims(aud=AUDIENCE + ".evil.example.com")),
    claim_case("audience that ours begins with", INVALID, lambda: claims(aud=AUDIENCE[:-1])),
    claim_case("audience list with a number", INVALID, lambda: claims(aud=[AUDIENCE, 5])),
    claim_case("audience an object", INVALID, lambda: claims(aud={AUDIENCE: True})),
    claim_case("empty audience list", INVALID, lambda: claims(aud=[])),
    claim_case("no audience", INVALID, lambda: claims(aud=None)),
    claim_case("wrong issuer and expired", INVALID, lambda: claims(iss="https://evil.example.com", exp=in_s(-60))),
    claim_case("no subject", INVALID, lambda: claims(sub=None)),
    claim_case("subject null", INVALID, lambda: json.dumps(claims() | {"sub": None}).encode()),
    claim_case("subject empty", INVALID, lambda: claims(sub="")),
    claim_case("subject a number", INVALID, lambda: claims(sub=1)),
    claim_case("subject a list", INVALID, lambda: claims(sub=[USER])),
    claim_case("subject true", INVALID, lambda: claims(sub=True)),
    claim_case("subject of 256 characters", INVALID, lambda: claims(sub="x" * 256)),
    claim_case("payload an array", INVALID, lambda: b"[1]"),
    claim_case("payload a string", INVALID, lambda: json.dumps(USER).encode()),
    claim_case("payload null", INVALID, lambda: b"null"),
    claim_case("payload no JSON", INVALID, lambda: b"user-1"),
    claim_case("payload cut short", INVALID, lambda: json.dumps(claims()).encode()[:-1]),
    claim_case("payload not in UTF-8", INVALID, lambda: json.dumps(claims(a="?")).encode().replace(b"?", b"\xff")),
    claim_case("payload with half a surrogate", INVALID, lambda: json.dumps(claims(sub="\ud800")).encode()),
    claim_case("payload with a byte order mark", INVALID, lambda: b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
    claim_case("payload 2000 levels deep", INVALID, lambda: json.dumps(claims(a=7)).replace(" 7", "[" * 2000).encode()),
]

ALGORITHM_CASES = [
    case("alg none, no signature", INVALID, lambda: compact({"alg": "none"}, claims(), lambda _: b"")),
    case("alg none, key id, a real signature", INVALID, lambda: token(ED, alg="none")),
    case("alg None", INVALID, lambda: compact({"alg": "None", "kid": "ed"}, claims(), lambda _: b"")),
    case("alg NONE", INVALID, lambda: compact({"alg": "NONE", "kid": "ed"}, claims(), lambda _: b"")),
    case("alg empty", INVALID, lambda: token(ED, alg="")),
    case("alg missing", INVALID, lambda: compact({"kid": "ed"}, claims(), ED.sign)),
    case("alg null", INVALID, lambda: compact({"alg": None, "kid": "ed"}, claims(), ED.sign)),
    case("alg a number", INVALID, lambda: token(ED, alg=5)),
    case("alg a list", INVALID, lambda: token(ED, alg=["EdDSA"])),
    case("alg in lower case", INVALID, lambda: token(ED, alg="eddsa")),
    case("HS256 with the RSA key's PEM", INVALID, lambda: token(hmac_signer(RS.pem), kid="rs")),
    case("HS256 with the Ed25519 key's PEM", INVALID, lambda: token(hmac_signer(ED.pem), kid="ed")),
    case("HS256 with the Ed25519 key's x", INVALID, lambda: token(hmac_signer(ED.jwk["x"].encode()), kid="ed")),
    case("HS256 with the RSA key's n", INVALID, lambda: token(hmac_signer(RS.jwk["n"].encode()), kid="rs")),
    case("HS256 with a published secret", INVALID, lambda: token(OCT)),
    case("HS256 with an empty key", INVALID, lambda: token(hmac_signer(b""), kid="ed")),
    case("HS256 with an empty key, no key id", INVALID, lambda: token(hmac_signer(b""), kid=None)),
    case("EdDSA with the RSA key's id", INVALID, lambda: token(ED, kid="rs")),
    case("RS256 with the Ed25519 key's id", INVALID, lambda: token(RS, kid="ed")),
    case("ES256 with the RSA key's id", INVALID, lambda: token(ES, kid="rs")),
    case("ES256 said, EdDSA signed", INVALID, lambda: token(ED, alg="ES256", kid="es")),
    case("RS512 said of the RSA key", INVALID, lambda: token(RS, alg="RS512")),
    case("PS256 said of the RSA key", INVALID, lambda: token(RS, alg="PS256")),
    case("published RSA key of 1024 bits", INVALID, lambda: token(RS_WEAK)),
    case("published key for encryption", INVALID, lambda: token(RS_ENC)),
    case("published key for RS512", INVALID, lambda: token(RS_512)),
    case("published key that may only sign", INVALID, lambda: token(ED_WRAP)),
    case("published P-384 key", INVALID, lambda: token(ES_384)),
    case("published secp256k1 key", INVALID, lambda: token(ES_K)),
    case("published secp256k1 key, ES256 said", INVALID, lambda: token(ES_K, alg="ES256")),
    case("published Ed448 key", INVALID, lambda: token(ED_448)),
    case("published empty key", INVALID, lambda: compact({"alg": "EdDSA", "kid": "ed-empty"}, claims(), lambda _: b"")),
    case("unknown key id", INVALID, lambda: token(ED, kid="unknown")),
    case("key id empty", INVALID, lambda: token(ED, kid="")),
    case("key id a number", INVALID, lambda: token(ED, kid=5)),
    case("key id of a key that has none", INVALID, lambda: token(ED_NO_KID, kid="ed-no-kid")),
    case("key id null", INVALID, lambda: compact({"alg": "EdDSA", "kid": None}, claims(), ED.sign)),
    case("key id a path", INVALID, lambda: token(hmac_signer(b""), kid="../../../../dev/null")),
    case("key id with SQL", INVALID, lambda: token(ED, kid="ed' OR '1'='1")),
    case("another key under a known id", INVALID, lambda: token(STRANGER)),
    case("another key, no key id", INVALID, lambda: token(STRANGER, kid=None)),
    case("another key, itself in the header", INVALID, lambda: token(STRANGER, kid=None, jwk=STRANGER.jwk)),
    case(
        "another key, its address in the header", INVALID, lambda: token(STRANGER, jku="https://evil.example.com/jwks")
    ),
    case("another key, expired", INVALID, lambda: token(STRANGER, claims(exp=in_s(-60)))),
    case("critical extension", INVALID, lambda: token(ED, crit=["exp"], exp=1)),
    case("critical extension, empty list", INVALID, lambda: token(ED, crit=[])),
    case("payload not encoded", INVALID, lambda: token(ED, crit=["b64"], b64=False)),
    case("header not an object", INVALID, lambda: compact(["EdDSA"], claims(), ED.sign)),
    case("header no JSON", INVALID, lambda: compact(b"EdDSA", claims(), ED.sign)),
    case("header 2000 levels deep", INVALID, lambda: compact(b'{"alg":"EdDSA","x":' + b"[" * 2000, claims(), ED.sign)),
    case("header not in UTF-8", INVALID, lambda: compact(b'{"alg":"EdDSA","kid":"\xff"}', claims(), ED.sign)),
    case("header says EdDSA, then none", INVALID, lambda: compact(b'{"alg":"EdDSA","alg":"none"}', claims(), ED.sign)),
]

TAMPERED_CASES = [
    case("another user spliced in", INVALID, lambda: _spliced(claims(sub="user-2"))),
    case("a later exp spliced in", INVALID, lambda: _spliced(claims(exp=in_s(9_000_000)))),
    case("header changed", INVALID, lambda: _changed(token(ED), 12)),
    case("payload changed", INVALID, lambda: _changed(token(ED), token(ED).index(".") + 12)),
    case("signature's first character changed", INVALID, lambda: _changed(token(ED), -86)),
    case("signature's last character changed", INVALID, lambda: _changed(token(ED), -1)),
    case("signature written another way", INVALID, lambda: _other_last_bits(token(ED))),
    case("signature plus the group's order", INVALID, lambda: _with_signature(token(ED), _plus_order)),
    case("signature a byte short", INVALID, lambda: _with_signature(token(ED), lambda raw: raw[:-1])),
    case("signature a byte long", INVALID, lambda: _with_signature(token(ED), lambda raw: raw + b"\0")),
    case("signature empty", INVALID, lambda: ".".join([*_parts(token(ED))[:2], ""])),
    case(
        "signature of another token",
        INVALID,
        lambda: ".".join([*_parts(token(ED))[:2], _parts(token(ED, claims(x=1)))[2]]),
    ),
    case("ES256 signature of zeros", INVALID, lambda: _with_signature(token(ES), lambda raw: bytes(64))),
    case("ES256 signature a byte short", INVALID, lambda: _with_signature(token(ES), lambda raw: raw[:-1])),
    case("RS256 signature of zeros", INVALID, lambda: _with_signature(token(RS), lambda raw: bytes(256))),
    case("padding", INVALID, lambda: token(ED) + "=="),
    case("padding in the middle", INVALID, lambda: token(ED).replace(".", "=.", 1)),
    case("base64 instead of base64url", INVALID, lambda: token(ED)[:-86] + "+/" + token(ED)[-84:]),
    case("a space inside", INVALID, lambda: token(ED).replace(".", " .", 1)),
    case("a line break inside", INVALID, lambda: token(ED).replace(".", "\n.", 1), by_http=False),
    case("U+0000 at the end", INVALID, lambda: token(ED) + "\0", by_http=False),
    case("a line break at the end", INVALID, lambda: token(ED) + "\n", by_http=False),
    case("not in ASCII", INVALID, lambda: token(ED) + "é"),
    case("bytes that are no text", INVALID, lambda: b"\xff\xfe\xfd"),
    case("in quotes", INVALID, lambda: f'"{token(ED)}"'),
    case("two tokens and a comma", INVALID, lambda: f"{token(ED)}, {token(ED)}"),
    case("two headers in one", INVALID, lambda: f"{token(ED)}, Bearer {token(ED)}"),
    case("one part", INVALID, lambda: _parts(token(ED))[1]),
    case("two parts", INVALID, lambda: ".".join(_parts(token(ED))[:2])),
    case("four parts", INVALID, lambda: token(ED) + ".AAAA"),
    case("five parts, like an encrypted one", INVALID, lambda: token(ED) + ".AAAA.AAAA"),
    case("a dot at the end", INVALID, lambda: token(ED) + "."),
    case("only dots", INVALID, lambda: ".."),
    case("a word", INVALID, lambda: "token"),
    case("no header part", INVALID, lambda: "." + ".".join(_parts(token(ED))[1:])),
    case("no payload part", INVALID, lambda: "..".join(_parts(token(ED))[::2])),
    case("8 KiB and one byte long", INVALID, lambda: _of_length(8193)),
    case("16,000 times the letter A", INVALID, lambda: "A" * 16_000),
    Case("two headers, both good", INVALID, lambda: [bearer(token(ED))] * 2),
    Case("two headers, the second bad", INVALID, lambda: [bearer(token(ED)), bearer("x")]),
    Case("two headers, the first empty", INVALID, lambda: [b"", bearer(token(ED))]),
    Case("two headers, Basic and Bearer", INVALID, lambda: [b"Basic dTpw", bearer(token(ED))]),
]

CASES = GOOD_CASES + REQUIRED_CASES + EXPIRED_CASES + CLAIM_CASES + ALGORITHM_CASES + TAMPERED_CASES

SECRET_CASES = [
    case("HS256", GOOD, lambda: token(SHARED)),
    case("HS256, no key id", GOOD, lambda: token(SHARED, kid=None)),
    case("HS256, any key id", GOOD, lambda: token(SHARED, kid="whatever")),
    case("expired", EXPIRED, lambda: token(SHARED, claims(exp=in_s(-LEEWAY_S - 1)))),
    case("another secret", INVALID, lambda: token(hmac_signer(b"another secret of more than 32 bytes"))),
    case("an empty secret", INVALID, lambda: token(hmac_signer(b""))),
    case("the secret and a line break", INVALID, lambda: token(hmac_signer(SECRET.encode() + b"\n"))),
    case("HS512 said", INVALID, lambda: token(SHARED, alg="HS512")),
    case("HS512", INVALID, lambda: token(hmac_signer(SECRET.encode(), hashlib.sha512), alg="HS512")),
    case("alg none", INVALID, lambda: compact({"alg": "none"}, claims(), lambda _: b"")),
    case("EdDSA", INVALID, lambda: token(ED)),
    case("EdDSA, itself in the header", INVALID, lambda: token(ED, jwk=ED.jwk)),
    case("RS256", INVALID, lambda: token(RS)),
    case("no exp", INVALID, lambda: token(SHARED, claims(exp=None))),
    case("wrong audience", INVALID, lambda: token(SHARED, claims(aud="https://other.example.com"))),
    case("no subject", INVALID, lambda: token(SHARED, claims(sub=None))),
    case("signature changed", INVALID, lambda: _changed(token(SHARED), -10)),
    case("signature cut to a byte", INVALID, lambda: _with_signature(token(SHARED), lambda raw: raw[:1])),
    case("signature empty", INVALID, lambda: ".".join([*_parts(token(SHARED))[:2], ""])),
    Case("no header", REQUIRED, list),
]
