"""If-Match and If-None-Match (RFC 9110, 13.1): from header lines to tags and versions."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from service.http import errors
from service.http.asgi import Headers, header
from service.http.limits import VERSION_MAX

# RFC 9110, 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(rb'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)|[ \t]*(?:,|$)')
_VERSION = re.compile(rb"[1-9][0-9]{0,9}")


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
    matching = entity_tags(headers, b"if-match", "If-Match")
    # A weak tag never matches an If-Match (RFC 9110, 13.1.1), nor does a tag that this service never made.
    versions = None if matching is None else _versions(tag for tag, weak in matching if not weak)
    excluded = None
    if header(headers, b"if-none-match") is not None:
        tags = entity_tags(headers, b"if-none-match", "If-None-Match")
        if tags is None:  # `*` is met by a task that does not exist, which no write here can have (13.1.2)
            versions = []
        else:
            excluded = _versions(tag for tag, _ in tags)
    return Preconditions(versions, excluded)


def known_tags(headers: Headers) -> Collection[bytes] | None:
    """The opaque tags that the client has, by If-None-Match; None: any. Weak and strong ones match alike (13.1.2).

    Raises ApiError (400) for a malformed header.
    """
    for name, _ in headers:
        if name == b"if-none-match":
            tags = entity_tags(headers, b"if-none-match", "If-None-Match")
            return None if tags is None else [tag for tag, _ in tags]
    return ()


def entity_tags(headers: Headers, name: bytes, title: str) -> list[tuple[bytes, bool]] | None:
    """The tags of a conditional header as (opaque tag, weak); None where it is absent or `*`.

    Raises ApiError (400) where it is malformed.
    """
    value = header(headers, name)
    if value is None or value.strip() == b"*":
        return None
    tags: list[tuple[bytes, bool]] = []
    position = 0
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
