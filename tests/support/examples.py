"""Console blocks of the documentation: runs their commands again and compares what they print.

A block shows commands (`$ …`), what they print, and `(exit code N)` where that is not 0. Must not import the service.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

WRITE = "TASKS_TEST_WRITE" in os.environ  # writes the new output to the pages
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
# What differs from run to run.
VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| UTC)"), "(time)"),
    (re.compile(r"\b\d+\.\d+ (ms|s)\b"), "(duration)"),
    (re.compile(r"(?m)^date: .*$"), "date: (time)"),
    (re.compile(r"(?m)^x-request-id: .*$"), "x-request-id: (id)"),
    (re.compile(r'W/"[0-9a-f]+"'), 'W/"(tag)"'),
    (re.compile(r"\b\w+ on [\w.-]+, process \d+(, session \d+)?"), "(holder)"),
]


def same(text: str) -> str:
    """The text, with a placeholder for all that differs from run to run."""
    for pattern, placeholder in VARYING:
        text = pattern.sub(placeholder, text)
    return text


def rerun(
    block: str, folder: Path, replaced: Sequence[tuple[str, str]], environment: Mapping[str, str] | None = None
) -> str:
    """The block with what its commands print now. One shell runs them all, so that variables last.

    `replaced` are (shown, real): texts of the page that stand for others when it is run, addresses for instance.
    """
    commands = COMMAND.findall(block)
    script: list[str] = []
    for command in commands:
        for shown, real in replaced:
            command = command.replace(shown, real)
        script.append(f"{command}\ncode=$?; [ $code = 0 ] || echo \"(exit code $code)\"; echo '\x01'")
    done = subprocess.run(
        ["bash", "-uc", "\n".join(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        check=True,
    )
    output = done.stdout.replace("\r\n", "\n")
    for shown, real in reversed(replaced):
        output = output.replace(real, shown)
    printed = [text.strip("\n") for text in output.split("\x01\n")]
    shown_again = (
        f"$ {command}\n{text}" if text else f"$ {command}" for command, text in zip(commands, printed, strict=False)
    )
    return "\n\n".join(shown_again) + "\n"
