"""What proving who calls costs a request: `python -m tests.load.auth_cost`.

Times `authenticate` alone, with the headers of a browser, in interleaved rounds; the median counts. Exits with 1 where
a known token costs over 10 µs more than no token at all.
"""

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from service.auth import Authenticator, Principal
from service.auth.authenticator import Headers
from service.auth.jwks import Jwks
from service.auth.keys import SharedSecret
from service.auth.tokens import TokenAuthenticator
from service.http.errors import ApiError
from tests.support import tokens
from tests.support.identity_provider import Provider
from tests.support.tokens import ED, ES, RS, SECRET, SHARED, Signer

ROUNDS = 15
MOST_US = 10.0

BROWSER = [
    (b"host", b"tasks.example.com"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"origin", b"https://app.example.com"),
    (b"connection", b"keep-alive"),
]


class AnyUser:
    """An authenticator that does nothing: what the others cost comes on top."""

    async def authenticate(self, headers: Headers, path_user_id: str) -> Principal:
        return Principal(path_user_id)


def headers(token: str) -> Headers:
    return [*BROWSER, (b"authorization", tokens.bearer(token))]


def different(signer: Signer, count: int) -> Iterator[Headers]:
    """Tokens that hold, none of them twice."""
    return iter([headers(tokens.token(signer, tokens.claims(jti=str(number)))) for number in range(count)])


async def time_us(authenticator: Authenticator, requests: list[Headers]) -> float:
    """Microseconds a request."""
    begin = time.perf_counter()
    for request in requests:
        with suppress(ApiError):
            await authenticator.authenticate(request, tokens.USER)
    return (time.perf_counter() - begin) / len(requests) * 1e6


@asynccontextmanager
async def authenticators() -> AsyncIterator[tuple[TokenAuthenticator, TokenAuthenticator]]:
    """One by JWKS and one by secret, both checking all that can be checked."""
    with Provider([ED.jwk, ES.jwk, RS.jwk]) as provider:
        by_jwks, by_secret = (
            TokenAuthenticator(keys, issuer=tokens.ISSUER, audience=tokens.AUDIENCE)
            for keys in (Jwks(provider.url), SharedSecret(SECRET.encode()))
        )
        yield by_jwks, by_secret
        await by_jwks.aclose()


async def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Median microseconds a request, by what the request brings."""
    samples: dict[str, list[float]] = {}
    known = headers(tokens.token(ED))
    forged = headers(tokens.token(tokens.STRANGER))
    async with authenticators() as (by_jwks, by_secret):
        await by_jwks.authenticate(known, tokens.USER)
        fresh = {
            f"a token never seen, {signer.alg}": (
                by_secret if signer is SHARED else by_jwks,
                different(signer, rounds * 50),
            )
            for signer in (SHARED, ED, ES, RS)
        }
        for _ in range(rounds):
            runs: dict[str, tuple[Authenticator, list[Headers]]] = {
                "no authentication": (AnyUser(), [known] * 5000),
                "a known token": (by_jwks, [known] * 5000),
                "a forged token, EdDSA": (by_jwks, [forged] * 50),
                "no token": (by_jwks, [BROWSER] * 500),
            }
            runs |= {name: (judge, list(itertools.islice(some, 50))) for name, (judge, some) in fresh.items()}
            for name, (authenticator, requests) in runs.items():
                samples.setdefault(name, []).append(await time_us(authenticator, requests))
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> int:
    medians = asyncio.run(measure())
    for name, median in medians.items():
        print(f"{name:30} {median:8.2f} µs")
    cost = medians["a known token"] - medians["no authentication"]
    print(f"{'a known token costs':30} {cost:8.2f} µs more than none (at most {MOST_US:.0f})")
    return 0 if cost <= MOST_US else 1


if __name__ == "__main__":
    sys.exit(main())
