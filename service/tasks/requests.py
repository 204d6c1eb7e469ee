"""A task request as handlers see it: its user, its task, the headers that matter, the body within its limits.

Must not import the database package or responses.
"""

import re
from collections.abc import Callable, Collection
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from service.http import errors
from service.http.asgi import Headers, Receive, Scope
from service.http.body import read_body
from service.http.conditional import AnyTag, Preconditions, known_tags, preconditions
from service.http.errors import ApiError
from service.http.limits import BODY_BYTES, ID_MAX, IDEMPOTENCY_KEY_LENGTH, LIMIT_MAX, QUERY_LENGTH, USER_ID_LENGTH
from service.http.request_record import RequestRecord
from service.tasks.queries import Queries

_LIMIT = re.compile(r"[0-9]{1,4}")
_MAX_ENCODED = USER_ID_LENGTH * len("%F0%9F%98%80")  # what a code point takes at the most
_MAX_DIGITS = len(str(ID_MAX))
_SURROGATE = re.compile("[\ud800-\udfff]")
# What RFC 3986, section 3.3, lets stand in a path as it is. Servers let more through: a > would end a URL in a Link.
_NO_PATH = re.compile(r"[^!$%&'()*+,\-./0-9:;=@A-Z_a-z~]")

# Nothing in it is encoded or needs to be: parsing and writing it again is then 4 µs cheaper.
_PLAIN_QUERY = re.compile(rb"(?:[0-9A-Za-z_.-]+=[0-9A-Za-z_.-]*(?:&|\Z))*")
_IDEMPOTENCY_KEY = re.compile(rb"[\x21-\x7e]{1,%d}" % IDEMPOTENCY_KEY_LENGTH)


class TaskRequest:
    """One request on a user's tasks. `user_id` is the path's, already decoded and proven to be the principal's."""

    __slots__ = ("_receive", "headers", "path", "queries", "query_string", "record", "task_id", "user_id")

    def __init__(
        self,
        scope: Scope,
        record: RequestRecord,
        receive: Receive,
        queries: Queries,
        user_id: str,
        task_id: int,
    ) -> None:
        self._receive = receive
        self.record = record
        self.headers: Headers = scope["headers"]
        self.query_string: bytes = scope["query_string"]
        self.path: str = scope["path"]  # as sent, percent-encoded
        self.queries = queries
        self.user_id = user_id
        self.task_id = task_id  # 0 where the path has none

    @property
    def url(self) -> str:
        """The path, without a slash at its end, as it may stand in a Location or a Link."""
        return self.record.prefix + _NO_PATH.sub(lambda match: quote(match[0]), self.path.rstrip("/"))

    async def body(self, limit: int = BODY_BYTES) -> bytes:
        """The body. Raises ApiError: 413 over `limit` bytes, 415 for one that is not JSON, 408 if it never ends."""
        return await read_body(self.record.place, self.headers, self._receive, limit)

    def idempotency_key(self) -> str | None:
        """The Idempotency-Key, or None. Raises ApiError (400) where it cannot be used."""
        values = [value.strip(b" \t") for name, value in self.headers if name == b"idempotency-key"]
        if not values:
            return None
        if len(values) > 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
            raise errors.invalid_idempotency_key()
        return values[0].decode("ascii")

    def preconditions(self) -> Preconditions:
        """What If-Match and If-None-Match require of a write. Raises ApiError (400) for a malformed header."""
        return preconditions(self.headers)

    def known_tags(self) -> Collection[bytes] | AnyTag | None:
        """The opaque tags that the client has, by If-None-Match; None without it. Raises ApiError (400): malformed."""
        return known_tags(self.headers)


def decode_segment(segment: str) -> str:
    """A raw path segment, percent-decoded; what is not UTF-8 in it stays as lone surrogates. One that is too long for a
    user's ID stays encoded: to decode 30 kB takes 1.5 ms.
    """
    if "%" not in segment or len(segment) > _MAX_ENCODED:
        return segment
    return unquote_to_bytes(segment).decode("utf-8", "surrogateescape")


def check_user_id(user_id: str) -> None:
    """Raises ApiError (400) where this cannot be a user's id."""
    if (
        not 0 < len(user_id) <= USER_ID_LENGTH
        or "\0" in user_id
        or (not user_id.isascii() and _SURROGATE.search(user_id))
    ):
        raise errors.invalid_user_id()


def parse_task_id(text: str, invalid: Callable[[], ApiError]) -> int:
    """A decimal number that a task may have. Raises what `invalid` returns. Not by a regular expression, which costs
    0.3 µs more.
    """
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        task_id = int(text)
        if 0 < task_id <= ID_MAX:
            return task_id
    raise invalid()


@lru_cache(maxsize=32)  # most lists ask for one of a few first pages: 2 µs
def parse_list_query(query_string: bytes) -> tuple[bool | None, int | None, int | None, str]:
    """(completed, limit, after, the query string of every parameter but after). Raises ApiError (400)."""
    completed: bool | None = None
    limit: int | None = None
    after: int | None = None
    if not query_string:
        return completed, limit, after, ""
    if query_string.count(b"&") >= QUERY_LENGTH:  # 5,000 encoded ones took 15 ms
        raise errors.invalid_query_string()
    rest: list[tuple[str, str]] = []
    plain = _PLAIN_QUERY.fullmatch(query_string) is not None
    seen: set[str] = set()
    for name, value in _plain_pairs(query_string) if plain else _pairs(query_string):
        if name in ("completed", "limit", "after"):
            if name in seen:
                raise errors.parameter_repeated(name)
            seen.add(name)
        if name == "completed":
            if value not in ("true", "false"):
                raise errors.invalid_completed_filter()
            completed = value == "true"
        elif name == "limit":
            if not _LIMIT.fullmatch(value) or not 1 <= int(value) <= LIMIT_MAX:
                raise errors.invalid_limit()
            limit = int(value)
        elif name == "after":
            after = parse_task_id(value, errors.invalid_after)
            continue
        rest.append((name, value))
    return completed, limit, after, "&".join([f"{name}={value}" for name, value in rest]) if plain else urlencode(rest)


def _plain_pairs(query_string: bytes) -> list[tuple[str, str]]:
    parts = [pair.partition("=") for pair in query_string.decode().split("&") if pair]
    return [(name, value) for name, _, value in parts]


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise errors.invalid_query_string() from None
