"""Who is calling. An authenticator turns a request's headers into a principal; handlers never see how."""

from service.auth.authenticator import Authenticator, NoAuthenticator, Principal

__all__ = ["Authenticator", "NoAuthenticator", "Principal"]
