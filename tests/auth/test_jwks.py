"""How the service follows a provider's keys: one fetch for many, through rotation, outage and nonsense."""

import asyncio
import gzip
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service.auth.authenticator import Principal
from service.auth.jwks import MAX_BYTES, MAX_KEYS, Jwks
from service.auth.tokens import TokenAuthenticator
from service.http.errors import ApiError
from tests.support import tokens
from tests.support.identity_provider import Provider
from tests.support.tokens import ED, ES, INVALID, RS, USER, Signer
from tests.support.waiting import until

SOON_S = 10
NEVER_S = 3600.0
UNAVAILABLE = "Service is temporarily unavailable"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider([ED.jwk, ES.jwk]) as provider:
        yield provider


@asynccontextmanager
async def following(url: str, **times: float) -> AsyncIterator[TokenAuthenticator]:
    """An authenticator with the provider's keys, which looks again only when a test wants it to."""
    never = {"refresh_s": NEVER_S, "retry_s": NEVER_S, "cool_down_s": 0.0}
    authenticator = TokenAuthenticator(Jwks(url, **never | times), issuer=tokens.ISSUER, audience=tokens.AUDIENCE)
    try:
        yield authenticator
    finally:
        await authenticator.aclose()


_numbers = itertools.count()


def new_token(signer: Signer, **header: Any) -> str:
    """A token that no authenticator has seen."""
    return tokens.token(signer, tokens.claims(jti=str(next(_numbers))), **header)


async def said(authenticator: TokenAuthenticator, token: str) -> str:
    """The user that the token proves, or the error message."""
    try:
        principal = await authenticator.authenticate([(b"authorization", tokens.bearer(token))], "somebody")
    except ApiError as problem:
        assert problem.status == (503 if problem.message == UNAVAILABLE else 401)
        return problem.message
    assert isinstance(principal, Principal)
    return principal.user_id


async def asked(provider: Provider, times: int) -> None:
    assert await asyncio.to_thread(provider.wait_until_asked, times)


async def test_a_hundred_requests_wait_for_one_fetch(provider: Provider) -> None:
    provider.hang()
    async with following(provider.url) as authenticator:
        requests = [asyncio.create_task(said(authenticator, new_token(ED))) for _ in range(100)]
        await asked(provider, 1)
        provider.released.set()
        assert await asyncio.gather(*requests) == [USER] * 100
        assert provider.times_asked == 1


async def test_a_hundred_unknown_key_ids_wait_for_one_fetch(provider: Provider) -> None:
    async with following(provider.url) as authenticator:
        assert await said(authenticator, new_token(ED)) == USER
        provider.hang()
        new = [tokens.es256_signer(f"new-{number}") for number in range(100)]
        requests = [asyncio.create_task(said(authenticator, new_token(signer))) for signer in new]
        await asked(provider, 2)
        assert await said(authenticator, new_token(ED)) == USER  # nobody else waits
        provider.publish([ED.jwk] + [signer.jwk for signer in new[:50]])
        provider.released.set()
        assert await asyncio.gather(*requests) == [USER] * 50 + [INVALID] * 50
        assert provider.times_asked == 2


async def test_made_up_key_ids_do_not_hammer_the_provider(provider: Provider) -> None:
    async with following(provider.url, cool_down_s=NEVER_S) as authenticator:
        assert await said(authenticator, new_token(ED)) == USER
        before = provider.times_asked
        for number in range(200):
            assert await said(authenticator, new_token(ED, kid=f"made-up-{number}")) == INVALID
        assert provider.times_asked - before <= 1


async def test_after_the_cool_down_an_unknown_key_id_is_looked_up_again(provider: Provider) -> None:
    async with following(provider.url, cool_down_s=0) as authenticator:
        for number in range(3):
            assert await said(authenticator, new_token(ED, kid=f"made-up-{number}")) == INVALID
            assert provider.times_asked == number + 1


@pytest.mark.parametrize("token", [tokens.token(ED, alg="none"), tokens.token(tokens.SHARED), "no.token.really", ""])
async def test_what_cannot_hold_does_not_reach_the_provider(token: str, provider: Provider) -> None:
    async with following(provider.url) as authenticator:
        assert await said(authenticator, token) != USER
        assert provider.times_asked == 0


async def test_a_new_key_works_at_once_and_the_old_one_on(provider: Provider) -> None:
    async with following(provider.url, cool_down_s=NEVER_S) as authenticator:
        await authenticator.start()
        assert await said(authenticator, new_token(ED)) == USER
        provider.publish([ED.jwk, RS.jwk])
        assert await said(authenticator, new_token(RS)) == USER
        assert await said(authenticator, new_token(ED)) == USER


async def test_a_request_that_is_given_up_does_not_take_the_fetch_with_it(provider: Provider) -> None:
    provider.hang()
    async with following(provider.url) as authenticator:
        given_up, waiting = (asyncio.create_task(said(authenticator, new_token(ED))) for _ in range(2))
        await asked(provider, 1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        provider.released.set()
        assert await waiting == USER
        assert provider.times_asked == 1


async def test_after_a_failed_fetch_unknown_keys_do_not_wait_for_the_next(provider: Provider) -> None:
    """Until the cool-down is over, even where a fetch is in progress: made-up key IDs would wait again and again."""
    provider.hang()
    async with following(provider.url, timeout_s=1, retry_s=0.01, cool_down_s=NEVER_S) as authenticator:
        assert await said(authenticator, new_token(ED)) == UNAVAILABLE
        await asked(provider, 2)  # the retry hangs now
        before = asyncio.get_running_loop().time()
        assert await said(authenticator, new_token(ED)) == UNAVAILABLE
        assert asyncio.get_running_loop().time() - before < 0.5


async def test_a_start_does_not_wait_for_the_provider_nor_does_a_stop(
    provider: Provider, recwarn: pytest.WarningsRecorder
) -> None:
    provider.hang()
    async with asyncio.timeout(SOON_S), following(provider.url, timeout_s=NEVER_S) as authenticator:
        await authenticator.start()
        await asked(provider, 1)
    assert not recwarn.list


@pytest.mark.parametrize("replacement", [[ES.jwk], [ES.jwk, tokens.STRANGER.jwk], []], ids=["gone", "replaced", "all"])
async def test_a_withdrawn_key_stops_working(replacement: list[Any], provider: Provider) -> None:
    async with following(provider.url, refresh_s=0.01) as authenticator:
        cached, of_another = new_token(ED), new_token(ES)
        assert await said(authenticator, cached) == USER
        assert await said(authenticator, of_another) == USER
        provider.publish(replacement)
        await asked(provider, provider.times_asked + 2)
        assert await said(authenticator, cached) == INVALID
        assert await said(authenticator, new_token(ED)) == INVALID
        assert await said(authenticator, of_another) == (USER if replacement else INVALID)


async def test_known_keys_go_on_while_the_provider_is_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.auth")
    with Provider([ED.jwk]) as first:
        url, port = first.url, first.port
        authenticator_away = following(url, refresh_s=0.01, retry_s=0.01)
        authenticator = await authenticator_away.__aenter__()
        assert await said(authenticator, new_token(ED)) == USER
    try:
        await until(lambda: "cached keys stay valid: 1" in caplog.text)
        assert "cannot fetch keys from 127.0.0.1: ConnectError" in caplog.text
        assert await said(authenticator, new_token(ED)) == USER
        assert await said(authenticator, new_token(ED, kid=None)) == USER
        assert await said(authenticator, new_token(ES)) == UNAVAILABLE  # its key may have been published meanwhile
        caplog.clear()
        with Provider([ED.jwk, ES.jwk], port):
            await until(lambda: "usable keys from 127.0.0.1: 2" in caplog.text)
            assert await said(authenticator, new_token(ES)) == USER
            assert await said(authenticator, new_token(RS)) == INVALID
    finally:
        await authenticator_away.__aexit__(None, None, None)


async def test_without_a_key_the_service_is_unavailable_but_a_token_that_cannot_hold_is_invalid() -> None:
    with Provider([ED.jwk]) as gone:
        pass
    async with following(gone.url) as authenticator:
        await authenticator.start()
        assert await said(authenticator, new_token(ED)) == UNAVAILABLE
        assert await said(authenticator, new_token(ED, kid=None)) == UNAVAILABLE
        assert await said(authenticator, new_token(ED, alg="none")) == INVALID
        assert await said(authenticator, "") == "Authentication required"
        with Provider([ED.jwk], gone.port):
            assert await said(authenticator, new_token(ED)) == USER


def endless() -> Iterator[bytes]:
    return itertools.repeat(b" " * 65536)


def drop_by_drop() -> Iterator[bytes]:
    for byte in itertools.repeat(b" "):
        time.sleep(0.02)  # shorter than the time limit, which is for the whole
        yield byte


PACKED = gzip.compress(json.dumps({"keys": [RS.jwk]}).encode())
NONSENSE: dict[str, Callable[[Provider], None]] = {
    "500": lambda provider: provider.answer(500, b'{"keys": []}'),
    "404": lambda provider: provider.answer(404),
    "204": lambda provider: provider.answer(204),
    "nothing": lambda provider: provider.answer(200),
    "HTML": lambda provider: provider.answer(200, b"<!doctype html><title>Sign in</title>", content_type="text/html"),
    "cut short": lambda provider: provider.answer(200, b'{"keys": [', content_length="100"),
    "an array": lambda provider: provider.answer(200, b"[]"),
    "no keys": lambda provider: provider.answer(200, b"{}"),
    "keys that are no array": lambda provider: provider.answer(200, b'{"keys": {"kty": "OKP"}}'),
    "not UTF-8": lambda provider: provider.answer(200, b'{"keys": ["\xff"]}'),
    "half a million levels": lambda provider: provider.answer(200, b'{"keys": ' + b"[" * (MAX_BYTES - 100)),
    "huge": lambda provider: provider.answer(200, b'{"keys": []}' + b" " * MAX_BYTES),
    "endless": lambda provider: provider.stream(endless),
    "drop by drop": lambda provider: provider.stream(drop_by_drop),
    "packed, though not asked to": lambda provider: provider.answer(200, PACKED, content_encoding="gzip"),
    "too many keys": lambda provider: provider.publish([ES.jwk] * (MAX_KEYS + 1)),
    "hanging": lambda provider: provider.hang(),
}


@pytest.mark.parametrize("go_wrong", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_changes_nothing(
    go_wrong: Callable[[Provider], None], provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(provider.url, timeout_s=0.5) as authenticator:
        cached = new_token(ED)
        assert await said(authenticator, cached) == USER
        go_wrong(provider)
        async with asyncio.timeout(SOON_S):
            assert await said(authenticator, new_token(RS)) == UNAVAILABLE
        assert "cached keys stay valid: 2" in caplog.text
        assert await said(authenticator, cached) == USER
        assert await said(authenticator, new_token(ES)) == USER
        provider.released.set()
        provider.publish([RS.jwk])
        assert await said(authenticator, new_token(RS)) == USER


async def test_a_redirect_is_not_followed(provider: Provider) -> None:
    with Provider([RS.jwk]) as elsewhere:
        async with following(provider.url) as authenticator:
            for status in (301, 302, 303, 307, 308):
                provider.answer(status, location=elsewhere.url)
                assert await said(authenticator, new_token(RS)) == UNAVAILABLE
        assert elsewhere.times_asked == 0


async def test_keys_that_are_no_keys_do_not_spoil_the_others(provider: Provider) -> None:
    spoilt = [None, 5, [], {}, {"kty": "OKP"}, ED.jwk | {"x": "!"}, ED.jwk | {"x": 5}, ES.jwk | {"y": ES.jwk["x"]}]
    spoilt += [RS.jwk | {"e": "AA"}, RS.jwk | {"n": ""}, ED.jwk | {"crv": "P-256"}, ED.jwk | {"kid": 5}]
    provider.publish([*spoilt, RS.jwk])
    async with following(provider.url) as authenticator:
        assert await said(authenticator, new_token(RS)) == USER
        assert await said(authenticator, new_token(ED)) == INVALID
        assert await said(authenticator, new_token(ES)) == INVALID


OPTIONAL = ("use", "alg", "kid", "key_ops", "x5c", "x5t", "x5t#S256", "x5u", "exp", "crv", "x", "y", "n", "e", "d", "k")


@pytest.mark.parametrize("signer", [ED, ES, RS], ids=lambda signer: signer.alg)
@pytest.mark.parametrize("absent", [*((name,) for name in OPTIONAL), OPTIONAL], ids="+".join)
async def test_an_optional_member_that_is_null_counts_as_absent(
    signer: Signer, absent: tuple[str, ...], provider: Provider
) -> None:
    needed = {"EdDSA": {"crv", "x"}, "ES256": {"crv", "x", "y"}, "RS256": {"n", "e"}}[signer.alg]
    nulls = dict.fromkeys(set(absent) - needed)
    provider.publish([signer.jwk | nulls])
    async with following(provider.url) as authenticator:
        token = tokens.token(signer, tokens.claims(), **({"kid": None} if "kid" in nulls else {}))
        assert await said(authenticator, token) == USER


NULL = [("kty", ED), ("crv", ED), ("x", ED), ("crv", ES), ("x", ES), ("y", ES), ("n", RS), ("e", RS)]


@pytest.mark.parametrize(("member", "signer"), NULL, ids=[f"{signer.alg} {member}" for member, signer in NULL])
async def test_a_required_member_that_is_null_makes_the_key_unusable_and_it_is_said(
    member: str, signer: Signer, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.auth")
    provider.publish([signer.jwk | {member: None}])
    async with following(provider.url) as authenticator:
        assert await said(authenticator, new_token(signer)) == INVALID
    assert f"a key from 127.0.0.1 is not used: {signer.kid!r}: " in caplog.text


async def test_each_key_that_is_not_used_is_named_once_with_the_reason(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service.auth")
    weak, other = tokens.rsa_signer("weak", 1024), ES.jwk | {"kid": "enc", "use": "enc"}
    provider.publish([None, ED.jwk, weak.jwk, other, {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}])
    async with following(provider.url) as authenticator:
        for _ in range(2):
            await said(authenticator, new_token(RS))
    assert [record.getMessage() for record in caplog.records if "not used" in record.getMessage()] == [
        "a key from 127.0.0.1 is not used: number 1: Expected `object`, got `null`",
        "a key from 127.0.0.1 is not used: 'weak': an RSA key of 1024 bits",
        "a key from 127.0.0.1 is not used: 'enc': not for verifying signatures",
        "a key from 127.0.0.1 is not used: 'secret': not Ed25519, P-256 or RSA for EdDSA, ES256 or RS256",
    ]


async def test_a_private_key_that_was_published_is_not_read(provider: Provider) -> None:
    provider.publish([ED.jwk | {"d": "AAAA"}])
    async with following(provider.url) as authenticator:
        assert await said(authenticator, new_token(ED)) == USER


async def test_keys_of_one_id_are_told_apart_by_their_algorithm(provider: Provider) -> None:
    provider.publish([ED.jwk | {"kid": "same"}, RS.jwk | {"kid": "same"}])
    async with following(provider.url) as authenticator:
        assert await said(authenticator, new_token(ED, kid="same")) == USER
        assert await said(authenticator, new_token(RS, kid="same")) == USER
