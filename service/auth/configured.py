"""The token authenticator that the settings describe."""

import os

import httpx

from service.auth.jwks import Jwks
from service.auth.keys import SharedSecret, UnusableKey
from service.auth.tokens import TokenAuthenticator
from service.settings import Settings, SettingsError


def token_authenticator(settings: Settings) -> TokenAuthenticator:
    """Raises SettingsError for a secret or URL that cannot be used."""
    try:
        if settings.auth_jwks_url is not None:
            keys = _published(settings.auth_jwks_url)
        elif settings.auth_jwt_secret is not None:
            keys = SharedSecret(settings.auth_jwt_secret.reveal().encode())
        else:
            raise SettingsError(["AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL"])
    except UnusableKey as error:
        raise SettingsError([f"AUTH_JWT_SECRET: {error}"]) from None
    return TokenAuthenticator(
        keys,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        subject_claim=settings.auth_subject_claim,
        leeway_s=settings.auth_leeway_s,
    )


def _published(url: str) -> Jwks:
    """The provider's keys. httpx reads the environment too, and raises all kinds of errors for what it finds there."""
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SettingsError([f"AUTH_JWKS_URL: {error}"]) from None
    try:
        return Jwks(url)
    except OSError:
        named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ]
        raise SettingsError([f"{' and '.join(named)}: no certificates can be read there"]) from None
    except (ImportError, ValueError, httpx.InvalidURL):
        raise SettingsError([_unusable_proxy()]) from None


def _unusable_proxy() -> str:
    """Which variable httpx cannot use. Not its value, which may hold a password."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        text = os.environ.get(name.lower()) or os.environ.get(name) or ""
        if text.startswith("socks"):
            return f"{name} names a SOCKS proxy, which the service cannot use: set an HTTP proxy, or NO_PROXY=*"
        try:
            httpx.Proxy(text if "://" in text else f"http://{text}")
        except (ValueError, httpx.InvalidURL):
            return f"{name} is not the URL of an HTTP proxy"
    return "NO_PROXY has an entry that cannot be used: write host names and addresses, no IPv6 networks"
