"""The error of a migration command: one sentence for the operator."""


class MigrationError(Exception):
    """The message is one sentence that says why, and what to do; it holds no password."""


class Unreachable(MigrationError):
    """The database cannot be reached, so nothing is known of its migrations."""
