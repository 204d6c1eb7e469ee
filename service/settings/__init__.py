"""What an operator can set: read from the environment and `.env`, checked as a whole before anything starts.

`fields` has every setting, `loading` reads them, `dotenv_file` reads `.env`, `rules` has the unsafe combinations. Must
not import anything else of the service.
"""

from service.settings.dotenv_file import dotenv_variables
from service.settings.fields import (
    ALIASES,
    LOOPBACK,
    PREFIX,
    UNIX,
    Secret,
    Settings,
    as_text,
    describe,
    environment,
    names,
)
from service.settings.loading import SettingsError, load, log_format, near_misses

__all__ = [
    "ALIASES",
    "LOOPBACK",
    "PREFIX",
    "UNIX",
    "Secret",
    "Settings",
    "SettingsError",
    "as_text",
    "describe",
    "dotenv_variables",
    "environment",
    "load",
    "log_format",
    "names",
    "near_misses",
]
