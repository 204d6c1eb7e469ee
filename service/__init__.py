"""A user-scoped task service over HTTP, on hand-written SQL."""

__version__ = "0.1.0"
