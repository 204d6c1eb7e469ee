"""What `tasks-service check` prints a line for. Imports nothing of the service."""

from typing import Literal

import msgspec

Level = Literal["ok", "warning", "error"]


class Finding(msgspec.Struct, frozen=True):
    level: Level
    what: str
    mend: str | None = None  # a statement, command or setting that ends it
