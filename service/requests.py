"""A task request as handlers see it: who calls, which task, the headers that matter, the body within its limits.

Knows HTTP's request side. Must not know statements or answers.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from service.errors import Problem, bad_field
from service.queries import Queries
from service.structs import ID_MAX, VERSION_MAX

USER_ID_LENGTH = 255  # code points, as in the schema's users_id_length
BODY_BYTES = 64 * 1024
BATCH_BYTES = 8 * 1024 * 1024
BODY_TIMEOUT_S = 10.0
LIMIT_MAX = 1000
CLOSE = ((b"connection", b"close"),)

_TASK_ID = re.compile(r"[0-9]{1,19}")
# RFC 9110, 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(rb'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|$)|[ \t]*(?:,|$)')
_VERSION = re.compile(rb"[1-9][0-9]{0,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")
# What RFC 3986, section 3.3, lets stand in a path as it is. Servers let more through: a > would end a URL in a Link.
_NO_PATH = re.compile(r"[^!$%&'()*+,\-./0-9:;=@A-Z_a-z~]")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,255}")

Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[Any]]


class TaskRequest:
    """One request on a user's tasks. `user_id` is the path's, already decoded and proven to be the principal's."""

    __slots__ = ("_receive", "headers", "path", "queries", "query_string", "task_id", "user_id")

    def __init__(
        self,
        scope: Any,
        receive: Receive,
        queries: Queries,
        user_id: str,
        task_id: int,
    ) -> None:
        self._receive = receive
        self.headers: Headers = scope["headers"]
        self.query_string: bytes = scope["query_string"]
        self.path: str = scope["path"]  # as sent, percent-encoded
        self.queries = queries
        self.user_id = user_id
        self.task_id = task_id  # 0 where the path has none

    @property
    def url(self) -> str:
        """The path, without a slash at its end, as it may stand in a Location or a Link."""
        return _NO_PATH.sub(lambda match: quote(match[0]), self.path.rstrip("/"))

    async def body(self, limit: int = BODY_BYTES) -> bytes:
        """The body. Raises Problem: 413 over `limit` bytes, 415 for one that is not JSON, 408 if it never ends."""
        return await read_body(self.headers, self._receive, limit)

    def idempotency_key(self) -> str | None:
        """The Idempotency-Key, or None. Raises Problem (400) where it cannot be used."""
        values = [value.strip(b" \t") for name, value in self.headers if name == b"idempotency-key"]
        if not values:
            return None
        if len(values) > 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
            raise Problem(400, "Idempotency-Key must be given once, as 1 to 255 visible characters")
        return values[0].decode("ascii")

    def versions(self) -> list[int] | None:
        """The versions that If-Match lets a write meet; None: any. Raises Problem (400) where it is malformed."""
        tags = entity_tags(self.headers, b"if-match", "If-Match")
        if tags is None:
            return None
        # A weak tag never matches an If-Match (RFC 9110, 13.1.1), nor does one that this service never gave.
        return [version for version, weak in tags if version is not None and not weak]

    def known_versions(self) -> list[int | None] | None:
        """The versions that the client has, by If-None-Match; None: any. Raises Problem (400) where it is malformed."""
        for name, _ in self.headers:
            if name == b"if-none-match":
                tags = entity_tags(self.headers, b"if-none-match", "If-None-Match")
                return None if tags is None else [version for version, _ in tags]
        return []


def header(headers: Headers, name: bytes) -> bytes | None:
    """The header's value, repeated lines joined by commas (RFC 9110, 5.3), or None."""
    found = None
    for key, value in headers:
        if key == name:
            found = value if found is None else found + b"," + value
    return found


def entity_tags(headers: Headers, name: bytes, title: str) -> list[tuple[int | None, bool]] | None:
    """The tags of a conditional header as (version or None, weak); None where it is absent or `*`.

    Raises Problem (400) where it is malformed.
    """
    value = header(headers, name)
    if value is None or value.strip() == b"*":
        return None
    tags: list[tuple[int | None, bool]] = []
    position = 0
    while position < len(value):
        match = _ENTITY_TAG.match(value, position)
        if match is None or match.end() == position:
            raise Problem(400, f"{title} must be * or a list of entity tags")
        position = match.end()
        if match[2] is not None:
            version = int(match[2]) if _VERSION.fullmatch(match[2]) else None
            tags.append((version if version is None or version <= VERSION_MAX else None, match[1] is not None))
    if not tags:
        raise Problem(400, f"{title} must be * or a list of entity tags")
    return tags


def request_id(headers: Headers) -> bytes | None:
    """The X-Request-ID that came in, if it is one line of visible ASCII of at most 128 bytes."""
    for name, value in headers:
        if name == b"x-request-id":
            return value if _REQUEST_ID.fullmatch(value) else None
    return None


def decode_segment(segment: str) -> str:
    """A raw path segment, percent-decoded; what is not UTF-8 in it stays as lone surrogates."""
    return unquote_to_bytes(segment).decode("utf-8", "surrogateescape") if "%" in segment else segment


def check_user_id(user_id: str) -> None:
    """Raises Problem (400) where this cannot be a user's id."""
    if not 0 < len(user_id) <= USER_ID_LENGTH or "\0" in user_id or _SURROGATE.search(user_id):
        raise bad_field("user_id", "Invalid user ID")


def parse_task_id(segment: str) -> int:
    """The task of a raw path segment. Raises Problem (400)."""
    if _TASK_ID.fullmatch(segment):
        task_id = int(segment)
        if 0 < task_id <= ID_MAX:
            return task_id
    raise bad_field("task_id", "Invalid task ID")


def parse_list_query(query_string: bytes) -> tuple[bool | None, int | None, int | None, list[tuple[str, str]]]:
    """(completed, limit, after, every parameter but after). Raises Problem (400)."""
    completed: bool | None = None
    limit: int | None = None
    after: int | None = None
    rest: list[tuple[str, str]] = []
    if not query_string:
        return completed, limit, after, rest
    seen: set[str] = set()
    for name, value in _pairs(query_string):
        if name in ("completed", "limit", "after"):
            if name in seen:
                raise bad_field(name, f"{name} must be given once")
            seen.add(name)
        if name == "completed":
            if value not in ("true", "false"):
                raise bad_field("completed", "completed must be true or false")
            completed = value == "true"
        elif name == "limit":
            if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= LIMIT_MAX:
                raise bad_field("limit", f"limit must be between 1 and {LIMIT_MAX}")
            limit = int(value)
        elif name == "after":
            if not _TASK_ID.fullmatch(value) or not 0 < int(value) <= ID_MAX:
                raise bad_field("after", "after must be a task ID")
            after = int(value)
            continue
        rest.append((name, value))
    return completed, limit, after, rest


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Problem(400, "Query string must be percent-encoded UTF-8") from None


async def read_body(headers: Headers, receive: Receive, limit: int, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
    """Reads the whole body.

    Raises Problem: 413 over `limit` bytes, 415 for a body that is not plain JSON, 408 where it does not come within
    `timeout_s`, 400 where it is cut off.
    """
    content_type = None
    encoded = False
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or int(value) > limit:
                raise _too_large(limit)
        elif name == b"content-type":
            content_type = value
        elif name == b"content-encoding":
            encoded = value.lower() != b"identity"
    message = await receive()  # nearly always the whole body
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body"):
        body = await _read_rest(message, receive, limit, timeout_s)
    if len(body) > limit:
        raise _too_large(limit)
    if body and (encoded or (content_type is not None and not _is_json(content_type))):
        raise Problem(415, "Request body must be application/json")
    return body


async def _read_rest(message: Any, receive: Receive, limit: int, timeout_s: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                if message["type"] != "http.request":
                    raise Problem(400, "Request body was cut off")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    return b"".join(chunks)
                message = await receive()
    except TimeoutError:
        raise Problem(408, "Request body did not arrive in time", headers=CLOSE) from None


def _is_json(content_type: bytes) -> bool:
    return content_type == b"application/json" or (
        content_type.partition(b";")[0].strip().lower() == b"application/json"
    )


def _too_large(limit: int) -> Problem:
    # The rest of the body is not read, so the connection cannot be used for another request.
    return Problem(413, f"Request body must be {limit // 1024} KiB or less", headers=CLOSE)
