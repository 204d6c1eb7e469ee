"""If-Match and If-None-Match (RFC 9110, 13.1): from header lines to versions."""

import re

from service.http import errors
from service.http.asgi import Headers, header
from service.http.limits import VERSION_MAX

# RFC 9110, 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(rb'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)|[ \t]*(?:,|$)')
_VERSION = re.compile(rb"[1-9][0-9]{0,9}")


def entity_tags(headers: Headers, name: bytes, title: str) -> list[tuple[int | None, bool]] | None:
    """The tags of a conditional header as (version or None, weak); None where it is absent or `*`.

    Raises ApiError (400) where it is malformed.
    """
    value = header(headers, name)
    if value is None or value.strip() == b"*":
        return None
    tags: list[tuple[int | None, bool]] = []
    position = 0
    while position < len(value):
        match = _ENTITY_TAG.match(value, position)
        if match is None or match.end() == position:
            raise errors.invalid_condition(title)
        position = match.end()
        if match[2] is not None:
            version = int(match[2]) if _VERSION.fullmatch(match[2]) else None
            tags.append((version if version is None or version <= VERSION_MAX else None, match[1] is not None))
    if not tags:
        raise errors.invalid_condition(title)
    return tags
