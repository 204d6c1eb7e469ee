"""How processes of the harness are started."""

import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def surroundings(**environment: str) -> dict[str, Any]:
    """Environment and folder of a process. Settings of the user's environment or .env might lead it to a database that
    is not the harness's, so it sees none of them.
    """
    kept = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {"env": kept | {"PYTHONPATH": str(ROOT)} | environment, "cwd": "/"}
