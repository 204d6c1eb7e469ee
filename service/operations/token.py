"""`tasks-service token`: a token for development, where the service and the caller share a secret."""

import time

import click
import jwt
from click import ClickException

from service.operations.in_use import settings_or_exit


@click.command()
@click.argument("user_id", metavar="USER")
@click.option(
    "--expires", "expires_s", type=click.IntRange(1), default=3600, show_default=True, help="Seconds it holds."
)
def token(user_id: str, expires_s: int) -> None:
    """Prints a bearer token for a user, for development.

    Needs AUTH_JWT_SECRET. With AUTH_JWKS_URL only the provider can make tokens.
    """
    settings = settings_or_exit()
    if settings.auth_jwks_url is not None:
        raise ClickException("AUTH_JWKS_URL is set: only the provider has the key to make tokens")
    if settings.auth_jwt_secret is None:
        raise ClickException("AUTH_JWT_SECRET is not set: without a secret no token can be made")
    secret = settings.auth_jwt_secret.reveal()
    if len(secret.encode()) < 32:
        raise ClickException("AUTH_JWT_SECRET must be at least 32 bytes")
    now = int(time.time())
    claims: dict[str, object] = {settings.auth_subject_claim: user_id, "iat": now, "exp": now + expires_s}
    if settings.auth_issuer:
        claims["iss"] = settings.auth_issuer
    if settings.auth_audience:
        claims["aud"] = settings.auth_audience
    click.echo(jwt.encode(claims, secret, "HS256"))
