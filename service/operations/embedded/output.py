"""What PostgreSQL's programs print."""

import re


def reason(output: str) -> str:
    """What PostgreSQL's output gives as the reason, with its details, in a line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for level in ("PANIC:", "FATAL:", "error:", "ERROR:"):
        for place, line in enumerate(lines):
            if level not in line:
                continue
            said = [line.split(level, 1)[1].strip()]
            if "contains errors" in line:  # in a file of settings: a line before says which
                said[:0] = [before.split("LOG:", 1)[1].strip() for before in lines[:place] if "LOG:" in before][-1:]
            for after in lines[place + 1 :]:
                if not (detail := re.search(r"\b(?:DETAIL|HINT):\s*(.*)", after)):
                    break
                said.append(detail[1].rstrip("."))
            return "; ".join(said)
    # Before PostgreSQL has a log, its first line names the error, and the others explain it.
    return next((line for line in lines if "LOG:" not in line), lines[-1] if lines else "it said nothing")
