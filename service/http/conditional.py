"""If-Match and If-None-Match (RFC 9110, 13.1): from header lines to tags and versions."""

import re
from collections.abc import Collection, Iterable
from enum import Enum
from typing import Literal, NamedTuple

from service.http import errors
from service.http.asgi import Headers, header
from service.http.limits import CONDITION_LENGTH, VERSION_MAX

# RFC 9110, 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(rb'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)|[ \t]*(?:,|$)')
_VERSION = re.compile(rb"[1-9][0-9]{0,9}")


class _Any(Enum):
    ANY = "*"


ANY = _Any.ANY  # in place of tags: `*`, which any task or page matches
AnyTag = Literal[_Any.ANY]


class Preconditions(NamedTuple):
    """What If-Match and If-None-Match require of a task's version before it is written. None: nothing is required."""

    versions: list[int] | None  # the version must be one of these
    excluded_versions: list[int] | None  # the version must be none of these

    def met_by(self, version: int) -> bool:
        """Whether a task of this version may be written."""
        return (self.versions is None or version in self.versions) and (
            self.excluded_versions is None or version not in self.excluded_versions
        )


NO_PRECONDITIONS = Preconditions(None, None)


def preconditions(headers: Headers) -> Preconditions:
    """What the headers of a write require. Raises ApiError (400) for a malformed header."""
    for name, _ in headers:
        if name in (b"if-match", b"if-none-match"):
            break
    else:
        return NO_PRECONDITIONS
    versions = excluded = None
    matching = entity_tags(headers, b"if-match", "If-Match")
    if matching is not None and matching is not ANY:
        # A weak tag never matches an If-Match (RFC 9110, 13.1.1), nor does a tag that this service never made.
        versions = _versions(tag for tag, weak in matching if not weak)
    known = entity_tags(headers, b"if-none-match", "If-None-Match")
    if known is ANY:  # met by a task that does not exist, which no write here can have (13.1.2)
        versions = []
    elif known is not None:
        excluded = _versions(tag for tag, _ in known)
    return Preconditions(versions, excluded)


def known_tags(headers: Headers) -> Collection[bytes] | AnyTag | None:
    """The opaque tags that the client has, by If-None-Match; None without it. Weak tags match, too (13.1.2).

    Raises ApiError (400) for a malformed header.
    """
    for name, _ in headers:
        if name == b"if-none-match":
            tags = entity_tags(headers, b"if-none-match", "If-None-Match")
            return tags if tags is None or tags is ANY else [tag for tag, _ in tags]
    return None


def entity_tags(headers: Headers, name: bytes, title: str) -> list[tuple[bytes, bool]] | AnyTag | None:
    """The tags of a conditional header as (opaque tag, weak); None without it.

    Raises ApiError (400) where it is malformed or too long.
    """
    value = header(headers, name)
    if value is None:
        return None
    if value.strip() == b"*":
        return ANY
    tags: list[tuple[bytes, bool]] = []
    position = 0
    if value.count(b",") > CONDITION_LENGTH:  # a head full of tags took 5 ms, of commas 8
        raise errors.invalid_condition(title)
    while position < len(value):
        match = _ENTITY_TAG.match(value, position)
        if match is None or match.end() == position:
            raise errors.invalid_condition(title)
        position = match.end()
        if match[2] is not None:
            tags.append((match[2], match[1] is not None))
    if not tags:
        raise errors.invalid_condition(title)
    return tags


def _versions(tags: Iterable[bytes]) -> list[int]:
    """The versions among these opaque tags; others are tags that no task ever had."""
    return [version for tag in tags if _VERSION.fullmatch(tag) and (version := int(tag)) <= VERSION_MAX]
