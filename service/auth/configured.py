"""The token authenticator that the settings describe."""

import httpx

from service.auth.jwks import Jwks
from service.auth.keys import SharedSecret, UnusableKey
from service.auth.tokens import TokenAuthenticator
from service.settings import Settings, SettingsError


def token_authenticator(settings: Settings) -> TokenAuthenticator:
    """Raises SettingsError for a secret or URL that cannot be used."""
    try:
        if settings.auth_jwks_url is not None:
            keys = Jwks(settings.auth_jwks_url)
        elif settings.auth_jwt_secret is not None:
            keys = SharedSecret(settings.auth_jwt_secret.reveal().encode())
        else:
            raise SettingsError(["AUTH_MODE=jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL"])
    except httpx.InvalidURL as error:
        raise SettingsError([f"AUTH_JWKS_URL: {error}"]) from None
    except UnusableKey as error:
        raise SettingsError([f"AUTH_JWT_SECRET: {error}"]) from None
    return TokenAuthenticator(
        keys,
        issuer=settings.auth_issuer,
        audience=settings.auth_audience,
        subject_claim=settings.auth_subject_claim,
        leeway_s=settings.auth_leeway_s,
    )
