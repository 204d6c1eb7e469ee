"""Floods of tokens, good and bad: memory stays bounded."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest

from service.auth.authenticator import Principal
from service.auth.jwks import Jwks
from service.auth.keys import SharedSecret
from service.auth.tokens import TokenAuthenticator
from service.http.errors import ApiError
from tests.auth.test_tokens import answer, header
from tests.support import tokens
from tests.support.identity_provider import Provider
from tests.support.tokens import GOOD, INVALID, SECRET, SHARED

GROWTH_BYTES = 60_000  # for 1000 tokens: a dictionary may grow its table meanwhile; keeping them takes 320,000


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider(tokens.PUBLISHED) as provider:
        yield provider


async def test_a_flood_of_good_tokens_is_bounded_in_memory() -> None:
    authenticator = TokenAuthenticator(SharedSecret(SECRET.encode()), cache_size=100)
    flood = (header(tokens.token(SHARED, tokens.claims(jti=str(number)))) for number in range(2000))
    assert await growth(authenticator, flood, GOOD) < GROWTH_BYTES


async def test_a_flood_of_bad_tokens_leaves_nothing_in_memory(provider: Provider) -> None:
    authenticator = TokenAuthenticator(Jwks(provider.url))
    assert await answer(authenticator, header(tokens.token(tokens.ED))) == Principal(tokens.USER)
    asked = provider.times_asked
    signature = tokens.token(tokens.ED).rpartition(".")[2]

    def made_up() -> Iterator[list[tuple[bytes, bytes]]]:
        for number in range(2000):
            kid = ("ed", f"made-up-{number}", None)[number % 3]
            forged = tokens.compact({"alg": "EdDSA", "kid": kid}, tokens.claims(jti=str(number)), lambda _: b"")
            yield header(forged + signature)

    assert await growth(authenticator, made_up(), INVALID) < GROWTH_BYTES
    assert provider.times_asked <= asked + 1
    await authenticator.aclose()


async def growth(authenticator: TokenAuthenticator, flood: Iterator[list[tuple[bytes, bytes]]], expected: str) -> int:
    """By how many bytes the process grows while the second half of the flood comes in."""

    async def take(count: int) -> None:
        for _ in range(count):
            given = await answer(authenticator, next(flood))
            assert (given.message if isinstance(given, ApiError) else GOOD) == expected

    def traced() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        await take(1000)
        before = traced()
        await take(1000)
        return traced() - before
    finally:
        tracemalloc.stop()
