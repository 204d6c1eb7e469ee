"""What a migration command says when it cannot do what was asked."""


class MigrationError(Exception):
    """The message is one sentence that says why, and what to do; it holds no password."""


class Unreachable(MigrationError):
    """The database cannot be reached, so nothing is known of its migrations."""
