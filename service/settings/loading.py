"""Reads the settings from the environment, `.env` and the command line, and checks them as a whole."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from service.settings.dotenv_file import is_set, read, similar
from service.settings.fields import ALIASES, Names, Secret, Settings, names
from service.settings.rules import unsafe

_BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


class SettingsError(Exception):
    """The settings cannot be used. `problems` holds one sentence for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(
    environ: Mapping[str, str] = os.environ,
    dotenv: Path | None = Path(".env"),
    options: Mapping[str, str | int | None] | None = None,
    *,
    serves: bool = True,
) -> Settings:
    """Reads the settings: `options` (from the command line; None means not given) override `environ`, which overrides
    the file `dotenv`. An empty value is not set, wherever it stands. `serves` is false for a command that takes no
    requests: then it does not matter how callers prove who they are.

    Raises SettingsError with every problem at once.
    """
    problems: list[str] = []
    texts = read(dotenv, problems) if dotenv is not None else {}
    for given in (environ, options or {}):
        texts |= {name.upper() if given is options else name: str(text) for name, text in given.items() if is_set(text)}
    for alias, name in ALIASES.items():
        if alias in texts:
            texts.setdefault(name, texts[alias])

    values: dict[str, Any] = {}
    wrong: set[str] = set()
    for field in msgspec.structs.fields(Settings):
        name = field.encode_name.upper()
        if name not in texts:
            continue
        try:
            values[field.name] = _convert(texts[name], field.type)
        except msgspec.ValidationError:
            problems.append(f"{name} must be {_expected(field.type)}, not {texts[name].strip()!r}")
            wrong.add(name)
    problems += unsafe(Settings(**values), environ=texts, serves=serves, wrong=wrong)
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def log_format(environ: Mapping[str, str] = os.environ, dotenv: Path = Path(".env")) -> str | None:
    """LOG_FORMAT alone, for logging what is wrong with the settings. None: unset, or wrong."""
    name = "LOG_FORMAT"
    text = environ[name] if is_set(environ.get(name)) else read(dotenv, []).get(name, "")
    text = text.strip().lower()
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    return text if text in _choices(kinds["log_format"]) else None


def near_misses(environ: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence for each variable of the environment that is probably meant for a setting and has another name, or has
    quotes around its value, as `docker --env-file` leaves them.
    """
    known = {*names(), *ALIASES}
    quoted = [name for name, text in environ.items() if name in known and re.fullmatch(r"\s*(['\"]).*\1\s*", text)]
    return [
        *(
            f"{name} in the environment is not a setting: did you mean {meant}?"
            for name, text in environ.items()
            # PGCONNECT_TIMEOUT, which is near to CONNECT_TIMEOUT_S, is libpq's.
            if name.upper() not in known and not name.startswith("PG") and is_set(text) and (meant := similar(name))
        ),
        *(f"{name} in the environment is in quotes, which belong to the value then: remove them" for name in quoted),
    ]


def _convert(text: str, kind: Any) -> object:
    expected = kind.__origin__
    text = text.strip()
    if expected in (Secret, Secret | None):
        return Secret(text)
    if expected is Names or expected == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if expected in (bool, bool | None):
        if text.lower() not in _BOOLEANS:
            raise msgspec.ValidationError
        return _BOOLEANS[text.lower()]
    if _choices(kind):
        text = text.lower()
    return msgspec.convert(text, kind, strict=False)


def _choices(kind: Any) -> tuple[str, ...]:
    """What a setting may be, if those are words to choose from."""
    for alternative in (kind.__origin__, *get_args(kind.__origin__)):
        if get_origin(alternative) is Literal:
            return get_args(alternative)
    return ()


def _expected(kind: Any) -> str:
    """What a setting may be, in words."""
    if choices := _choices(kind):
        return ("one of " if len(choices) > 1 else "") + ", ".join(choices)
    (meta,) = kind.__metadata__
    return "true or false" if meta.ge is None else f"a whole number from {meta.ge} to {meta.le}"
