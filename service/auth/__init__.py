"""Who is calling: an authenticator turns a request's headers into a principal. Handlers do not see how."""

from service.auth.authenticator import (
    Authenticator,
    HasKeyStats,
    KeyStats,
    ManagedAuthenticator,
    Principal,
)
from service.settings import Settings

__all__ = [
    "Authenticator",
    "HasKeyStats",
    "KeyStats",
    "ManagedAuthenticator",
    "Principal",
    "from_settings",
]


def from_settings(settings: Settings) -> Authenticator | None:
    """The authenticator that the settings describe. None: the user is taken from the path without proof, for use behind
    a gateway that checks, and for development. Raises SettingsError for a secret or URL that cannot be used.
    """
    if settings.authenticates == "none":
        return None
    # Imported only if tokens are verified: cryptography and httpx take 13 MB of each worker's memory.
    from service.auth.configured import token_authenticator

    return token_authenticator(settings)
