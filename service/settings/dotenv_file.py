"""The file `.env`: NAME=value lines. A line that cannot be read and a name that is not known are problems.

To skip such a line would be worse: with a quote missing in DATABASE_URL, the service would serve an empty embedded
database. The values are checked elsewhere.
"""

import io
from difflib import get_close_matches
from pathlib import Path

from dotenv.parser import parse_stream

from service.settings.fields import ALIASES, names

STANDARD = "OTEL_"  # OpenTelemetry's own variables, which may stand in .env as well
SIMILAR = 0.84  # of difflib: AUTH_SECRET is near to AUTH_JWT_SECRET, HOSTNAME is not near to HOST


def dotenv_variables(dotenv: Path = Path(".env")) -> dict[str, str]:
    """The variables of `dotenv` that are not the service's but a library's, such as OpenTelemetry's."""
    return {name: text for name, text in read(dotenv, []).items() if name.startswith(STANDARD)}


def is_set(value: object) -> bool:
    return value is not None and str(value).strip() != ""


def similar(name: str) -> str | None:
    return next(iter(get_close_matches(name.upper().rstrip(":"), [*names(), *ALIASES], n=1, cutoff=SIMILAR)), None)


def read(dotenv: Path, problems: list[str]) -> dict[str, str]:
    """What is set in the file. Adds a problem for each line that cannot be read and for each name that is not known."""
    try:
        content = dotenv.read_text("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        problems.append(f"{dotenv} cannot be read: it is not UTF-8")
        return {}
    except OSError as error:
        problems.append(f"{dotenv.absolute() if _has_cwd() else dotenv} cannot be read: {error.strerror}")
        return {}
    texts: dict[str, str] = {}
    known = {*names(), *ALIASES}
    for binding in parse_stream(io.StringIO(content)):
        # The parser counts the blank lines before an assignment to it.
        blank = len(binding.original.string) - len(binding.original.string.lstrip())
        place = f"{dotenv}, line {binding.original.line + binding.original.string[:blank].count(chr(10))}"
        name, text = binding.key, binding.value
        if binding.error:
            # Not shown: it may hold a password.
            problems.append(f"{place} cannot be read: write NAME=value, and close every quote")
        elif name is None:
            continue  # a comment, or the end
        elif text is None:
            problems.append(f"{place} has no =: write {name if name in known else 'NAME'}=value")
        elif "\n" in text or "\r" in text:
            problems.append(f"{place}: the value of {name} goes on in the next line; is a quote missing?")
        elif _is_half_quoted(binding.original.string, text):
            problems.append(f"{place}: the value of {name} has a quote at one end only: close it, or remove it")
        elif name in known or name.startswith(STANDARD):
            if is_set(text) and texts.get(name, text) != text:
                problems.append(f"{place}: {name} has another value in an earlier line: keep one of them")
            elif is_set(text):  # no interpolation: a password may hold a $
                texts[name] = text
        else:
            meant = similar(name)
            hint = f"did you mean {meant}?" if meant else "the names are in .env.example"
            problems.append(f"{place}: {name} is not a setting; {hint}")
    return texts


def _is_half_quoted(line: str, text: str) -> bool:
    """Whether a value that does not begin with a quote ends with one; the parser finds the reverse itself."""
    return not line.partition("=")[2].lstrip().startswith(("'", '"')) and text.endswith(("'", '"'))


def _has_cwd() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
