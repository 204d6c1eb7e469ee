"""Which tokens hold, how long they are cached, and what a start says. API tests repeat the table over HTTP."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from service import auth, settings
from service.auth.authenticator import Principal
from service.auth.jwks import Jwks
from service.auth.keys import SharedSecret
from service.auth.tokens import TokenAuthenticator
from service.http.errors import ApiError
from tests.support import tokens
from tests.support.identity_provider import Provider
from tests.support.tokens import (
    AUDIENCE,
    CASES,
    EXPIRED,
    GOOD,
    INVALID,
    ISSUER,
    REQUIRED,
    SECRET,
    SECRET_CASES,
    SHARED,
    Case,
)

NOW = 1_800_000_000


class CountingSecret(SharedSecret):
    """The shared secret, and how often it was asked for: once for each token that is verified."""

    def __init__(self) -> None:
        super().__init__(SECRET.encode())
        self.asked = 0

    async def candidates(self, algorithm: str, kid: str | None):
        self.asked += 1
        return await super().candidates(algorithm, kid)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(tokens.PUBLISHED) as provider:
        yield provider


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def by_jwks(provider: Provider) -> AsyncIterator[TokenAuthenticator]:
    authenticator = TokenAuthenticator(Jwks(provider.url), issuer=ISSUER, audience=AUDIENCE)
    yield authenticator
    await authenticator.aclose()


@pytest.fixture
def secret() -> CountingSecret:
    return CountingSecret()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def header(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"localhost"), (b"authorization", tokens.bearer(token)), (b"accept", b"*/*")]


def at(exp: float, **claims: object) -> str:
    """A token that expires at `exp` and has no other time claim."""
    return tokens.token(SHARED, tokens.claims(exp=exp, iat=None, **claims))


async def answer(authenticator: TokenAuthenticator, headers: list[tuple[bytes, bytes]]) -> Principal | ApiError:
    try:
        return await authenticator.authenticate(headers, "the path's user")
    except ApiError as problem:
        return problem


async def hold_to(case: Case, authenticator: TokenAuthenticator) -> None:
    headers = case.headers()
    for _ in range(2):  # what was refused is refused again, what was believed is believed from memory
        given = await answer(authenticator, headers)
        if case.expected == GOOD:
            assert given == Principal(case.user)
            continue
        assert isinstance(given, ApiError)
        challenge = b"Bearer" if case.expected == REQUIRED else b'Bearer error="invalid_token"'
        assert (given.status, given.message) == (401, case.expected)
        assert given.headers == ((b"www-authenticate", challenge),)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_token_by_jwks(case: Case, by_jwks: TokenAuthenticator) -> None:
    await hold_to(case, by_jwks)


@pytest.mark.parametrize("case", SECRET_CASES, ids=lambda case: case.name)
async def test_a_token_by_secret(case: Case, secret: SharedSecret) -> None:
    await hold_to(case, TokenAuthenticator(secret, issuer=ISSUER, audience=AUDIENCE))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("leeway_s", [0, 10])
async def test_a_token_ends_when_its_leeway_is_over(
    cached: bool, leeway_s: int, secret: SharedSecret, clock: Clock
) -> None:
    authenticator = TokenAuthenticator(secret, leeway_s=leeway_s, clock=clock)
    headers = header(at(exp=NOW + 60))
    if cached:
        assert await answer(authenticator, headers) == Principal(tokens.USER)
    clock.now = NOW + 60 + leeway_s - 0.001
    if cached:
        assert await answer(authenticator, headers) == Principal(tokens.USER)
    else:
        assert await answer(TokenAuthenticator(secret, leeway_s=leeway_s, clock=clock), headers) == Principal(
            tokens.USER
        )
    clock.now = NOW + 60 + leeway_s
    for _ in range(2):
        given = await answer(authenticator, headers)
        assert isinstance(given, ApiError)
        assert given.message == EXPIRED


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_of_the_future_begins_a_leeway_early(claim: str, secret: SharedSecret, clock: Clock) -> None:
    authenticator = TokenAuthenticator(secret, leeway_s=10, clock=clock)
    headers = header(tokens.token(SHARED, tokens.claims(exp=NOW + 900, iat=None) | {claim: NOW + 60}))
    clock.now = NOW + 49.999
    given = await answer(authenticator, headers)
    assert isinstance(given, ApiError)
    assert given.message == INVALID
    clock.now = NOW + 50
    assert await answer(authenticator, headers) == Principal(tokens.USER)


async def test_issuer_and_audience_are_not_checked_unless_set(secret: SharedSecret) -> None:
    token = tokens.token(SHARED, tokens.claims(iss="https://anybody.example.com", aud=["a", "b"]))
    assert await answer(TokenAuthenticator(secret), header(token)) == Principal(tokens.USER)


async def test_another_claim_names_the_user(secret: SharedSecret) -> None:
    authenticator = TokenAuthenticator(secret, subject_claim="https://example.com/user_id")
    token = tokens.token(SHARED, tokens.claims(sub="auth0|5", **{"https://example.com/user_id": "user-7"}))
    assert await answer(authenticator, header(token)) == Principal("user-7")
    given = await answer(authenticator, header(tokens.token(SHARED)))
    assert isinstance(given, ApiError)
    assert given.message == INVALID


async def test_a_token_is_verified_once(secret: CountingSecret) -> None:
    authenticator = TokenAuthenticator(secret)
    headers = header(tokens.token(SHARED))
    for _ in range(5):
        assert await answer(authenticator, headers) == Principal(tokens.USER)
    assert secret.asked == 1


async def test_what_a_withdrawn_key_signed_is_verified_again(secret: CountingSecret) -> None:
    authenticator = TokenAuthenticator(secret)
    headers = header(tokens.token(SHARED))
    await answer(authenticator, headers)
    secret.generation = 1
    await answer(authenticator, headers)
    await answer(authenticator, headers)
    assert secret.asked == 2


async def test_the_least_recently_used_token_is_forgotten_first(secret: CountingSecret) -> None:
    authenticator = TokenAuthenticator(secret, cache_size=2)
    first, second, third = (header(tokens.token(SHARED, tokens.claims(sub=name))) for name in ("a", "b", "c"))
    for headers in (first, second, first, third):
        await answer(authenticator, headers)
    assert secret.asked == 3
    await answer(authenticator, first)
    assert secret.asked == 3
    await answer(authenticator, second)
    assert secret.asked == 4


async def test_a_start_says_what_is_not_checked(secret: SharedSecret, caplog: pytest.LogCaptureFixture) -> None:
    await TokenAuthenticator(secret).start()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "AUTH_ISSUER is not set: the issuer of a token is not checked"),
        ("WARNING", "AUTH_AUDIENCE is not set: a token made for another service is accepted here"),
    ]
    caplog.clear()
    await TokenAuthenticator(secret, issuer=ISSUER, audience=AUDIENCE).start()
    assert not caplog.records


def test_the_settings_choose_the_authenticator() -> None:
    def chosen(**environ: str) -> auth.Authenticator | None:
        return auth.from_settings(settings.load(environ, dotenv=None))

    assert chosen() is None
    assert isinstance(chosen(AUTH_MODE="jwt", AUTH_JWT_SECRET=SECRET), auth.ManagedAuthenticator)
    assert isinstance(chosen(AUTH_MODE="jwt", AUTH_JWKS_URL="https://a.example.com/jwks"), auth.ManagedAuthenticator)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"AUTH_JWT_SECRET": tokens.RS.pem.decode()}, "AUTH_JWT_SECRET: a public key or certificate is not a secret"),
        ({"AUTH_JWKS_URL": "https://a.example.com:x/jwks"}, "AUTH_JWKS_URL: Invalid port: 'x'"),
    ],
    ids=["a public key as the secret", "no URL"],
)
def test_settings_that_cannot_be_used_stop_the_start(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        auth.from_settings(settings.load({"AUTH_MODE": "jwt"} | environ, dotenv=None))
    assert caught.value.problems == [problem]


async def test_the_settings_reach_the_checks() -> None:
    authenticator = auth.from_settings(
        settings.load(
            {
                "AUTH_MODE": "jwt",
                "BETTER_AUTH_SECRET": SECRET,
                "AUTH_ISSUER": ISSUER,
                "AUTH_AUDIENCE": AUDIENCE,
                "AUTH_SUBJECT_CLAIM": "email",
                "AUTH_LEEWAY_S": "60",
            },
            dotenv=None,
        )
    )

    async def said(**claims: object) -> str:
        given = await answer(authenticator, header(tokens.token(SHARED, tokens.claims(**claims))))  # type: ignore[arg-type]
        return given.message if isinstance(given, ApiError) else given.user_id

    assert await said() == "user@example.com"
    assert await said(exp=tokens.in_s(-55)) == "user@example.com"
    assert await said(exp=tokens.in_s(-61)) == EXPIRED
    assert await said(iss="x") == INVALID
    assert await said(aud="x") == INVALID
