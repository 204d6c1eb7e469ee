"""The types of the options of `run`. What cannot be read is one sentence, not a traceback."""

import math
import re
from typing import Any
from urllib.parse import urlsplit

import click

from tests.load.workload import MIX, OPERATIONS, weights

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LOCAL = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
OWN_HEADERS = ("content-length", "transfer-encoding", "connection", "content-type")


def seconds(text: str) -> float:
    """`30s`, `2m`, `1m30s`, `500ms`, or a number of seconds. Raises ValueError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 30s, 2m or 500ms")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


class Duration(click.ParamType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Mix(click.ParamType):
    """Weights of get, list, create and toggle."""

    name = "get/list/create/toggle"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        try:
            numbers = [float(part) for part in value.split("/")]
        except ValueError:
            numbers = []
        if len(numbers) != len(MIX) or not all(n >= 0 and math.isfinite(n) for n in numbers) or not any(numbers):
            self.fail(f"{value!r} is not four weights (get/list/create/toggle) such as 70/20/5/5", param, ctx)
        return {name: number for name, number in zip(MIX, numbers, strict=True) if number}


class Url(click.ParamType):
    """Where the service's paths begin: http or https, a host, perhaps a prefix; nothing behind it."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            self.fail(f"{value!r} is not a URL", param, ctx)
        if not good or re.search(r"[^!-~]", value):
            self.fail(f"{value!r} is not a URL such as http://127.0.0.1:8000", param, ctx)
        if parts.username is not None or parts.query or parts.fragment:
            self.fail(f"{value!r}: only scheme, host, port and a path prefix; a token goes to --token", param, ctx)
        return value.rstrip("/")


class Header(click.ParamType):
    name = "name: value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(rf"({TOKEN}):[ \t]*([\t\x20-\x7e\xa0-\xff]*?)[ \t]*", value)
        if match is None:
            self.fail(f"{value!r} is not a header such as 'Name: value'", param, ctx)
        if match[1].lower() in OWN_HEADERS:
            self.fail(f"{match[1]} is set by the generator itself", param, ctx)
        return match[1], match[2]


def is_local(url: str) -> bool:
    """Whether the host is this machine by its name alone; no look-up."""
    return LOCAL.fullmatch(urlsplit(url).hostname or "") is not None


def chosen_mix(operation: str | None, mix: dict[str, float] | None) -> dict[str, float]:
    """Raises click.UsageError where both are given."""
    if operation is not None and mix is not None:
        raise click.UsageError("--operation and --mix exclude each other")
    return mix if mix is not None else weights(operation or OPERATIONS[-1])
