"""Who is calling. An authenticator turns a request's headers into a principal; handlers never see how."""

from service.auth.authenticator import Authenticator, ManagedAuthenticator, NoAuthenticator, Principal
from service.settings import Settings

__all__ = ["Authenticator", "ManagedAuthenticator", "NoAuthenticator", "Principal", "from_settings"]


def from_settings(settings: Settings) -> Authenticator:
    """The authenticator that the settings ask for. Raises SettingsError where they cannot be used after all."""
    if settings.authenticates == "none":
        return NoAuthenticator()
    # Imported only where tokens are verified: cryptography and httpx are 13 MB of each worker's memory.
    from service.auth.configured import token_authenticator

    return token_authenticator(settings)
