"""Streams of requests, valid and damaged, read by HttpProtocol and by h11: there is never a second reading.

HttpProtocol may reject what h11 accepts, since it is the stricter of the two. What both accept they must read alike, to
the byte, however the stream is cut into packets. What h11 rejects HttpProtocol may accept only where TOLERATED says so.

    FUZZ_SECONDS=60 pytest -n 0 -m slow tests/http/test_fuzz.py     FUZZ_SEED=… repeats a run
"""

import gc
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from random import Random, SystemRandom
from typing import NamedTuple

import h11
import psutil
import pytest

from tests.http.vectors import VECTORS
from tests.support.wire import Wire, connection

CORPUS = [b"".join(vector.pieces) for vector in VECTORS if b"/early" not in b"".join(vector.pieces)]
CORPUS = [sent for sent in CORPUS if len(sent) < 2_000]
VALID = [b"".join(vector.pieces) for vector in VECTORS if vector.got is not None and vector.after == "open"]
VALID = [sent for sent in VALID if len(sent) < 2_000 and not re.search(rb"OPTIONS|HTTP/1.2|3[ \t]+;", sent)]

# What damage is made of: all that has a meaning somewhere in a message.
TOKENS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b"\0",
        b":",
        b";",
        b",",
        b"=",
        b'"',
        b"\\",
        b"0",
        b"1",
        b"a",
        b"f",
        b"\xff",
        b"#",
    ),
    *(
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n",
        b"\r\n ",
        b"\r\n\t",
        b"GET / HTTP/1.1\r\n",
        b"Host: x\r\n",
        b"Host: y\r\n",
    ),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length:3", b"Content-Length: 50\r\n"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding:",
        b"chunked",
        b", chunked",
    ),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    *(
        b"Proxy-Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b"POST",
        b"HEAD",
    ),
    *(b"http://x", b"*", b"/", b"%2F", b"?", b"@", b"[::1]", b"abc", b"Trailer: A\r\n", b"A: b\r\n"),
]

# h11's error, where HttpProtocol goes on.
TOLERATED = re.compile(
    "illegal chunk header"  # RFC 9112, 7.1.1: white space before a semicolon is to be accepted
    "|Transfer-Encoding|Content-Length"  # RFC 9110, 6.5.1: in a trailer, it is ignored; in a head, it is rejected
)


class Reading(NamedTuple):
    """Requests that are complete, and what came of the rest: `rejected`, `closed`, or a wait for more."""

    requests: list[tuple[str, bytes, bytes]]
    statuses: list[int]
    rest: str


def damaged(random: Random, stream: bytes) -> bytes:
    data = bytearray(stream)
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(7)
        if kind == 0:
            data[at : at + random.randrange(1, 6)] = b""
        elif kind == 1:
            data[at:at] = random.choice(TOKENS)
        elif kind == 2:
            token = random.choice(TOKENS)
            data[at : at + len(token)] = token
        elif kind == 3 and at < len(data):
            data[at] = random.randrange(256)
        elif kind == 4:
            lines = bytes(data).split(b"\r\n")
            line = random.choice(lines)
            lines.insert(random.randrange(len(lines) + 1), line)
            data = bytearray(b"\r\n".join(lines))
        elif kind == 5 and random.random() < 0.3:
            del data[at:]
        else:  # a token where a line begins
            starts = [match.end() for match in re.finditer(rb"\r\n", data)] or [0]
            start = random.choice(starts)
            data[start:start] = random.choice(TOKENS)
    return bytes(data[:4_000])


def streams(random: Random) -> Iterator[tuple[bytes, bool]]:
    """A stream, and whether it is valid."""
    while True:
        valid = random.random() < 0.1
        messages = [random.choice(VALID if valid else CORPUS) for _ in range(random.choice([1, 1, 2, 3]))]
        if random.random() < 0.3:  # header lines that repeat are read once
            messages = [random.choice(messages)] * random.choice([2, 3])
        stream = b"".join(messages)
        yield (stream, True) if valid else (damaged(random, stream), False)


def cut(random: Random, stream: bytes) -> list[bytes]:
    if random.random() < 0.1:
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(random.randrange(1, 8)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


async def ours(*pieces: bytes) -> Reading:
    wire = Wire()
    await wire.send(*pieces)
    answers = [answer for answer in wire.answers if answer.status != 100]
    statuses = [answer.status for answer in answers]
    rest = connection(wire)
    done = [status for status in statuses if status in (200, 204)]
    errors = statuses[len(done) :]
    assert len(errors) <= 1, "more than one error"
    assert statuses == done + errors, "a response behind an error"
    assert done.count(200) == len(wire.requests), "a response that nobody asked for, or none"
    assert all(answer.headers.get("connection") != "close" for answer in answers[:-1]), "a response behind the last"
    if errors:
        assert rest == "closed"
        rest = "rejected"
    requests = [(one.method, one.target, one.body) for one in wire.requests]
    await wire.close()
    return Reading(requests, statuses, rest)


def theirs(stream: bytes) -> tuple[list[tuple[str, bytes, bytes]], str]:
    """h11's reading: requests that are complete, and why it stopped. It has no HTTP/1.0 that stays, so that is given
    to it as another connection.
    """
    requests: list[tuple[str, bytes, bytes]] = []
    peer = h11_server(stream)
    head: h11.Request | None = None
    body = b""
    while True:
        try:
            event = peer.next_event()
        except h11.RemoteProtocolError as error:
            return requests, f"error: {error}"
        if event is h11.NEED_DATA:
            return requests, "waits"
        if event is h11.PAUSED:
            return requests, "closed"
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            requests.append((head.method.decode(), origin_form(head), body))
            options = b",".join(value for name, value in head.headers if name == b"connection").lower()
            tokens = [option.strip() for option in options.split(b",")]
            if b"close" in tokens or (head.http_version < b"1.1" and b"keep-alive" not in tokens):
                return requests, "closed"
            peer = h11_server(peer.trailing_data[0])


def h11_server(stream: bytes) -> h11.Connection:
    """With this to read, but for empty lines before a request, which h11 does not skip (RFC 9112, 2.2)."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=64 * 1024)
    while stream.startswith(b"\r\n"):
        stream = stream[2:]
    if stream:
        server.receive_data(stream)
    return server


def origin_form(head: h11.Request) -> bytes:
    match = re.fullmatch(rb"https?://[^/?]+(.*)", head.target, re.IGNORECASE)
    if match is None:
        return head.target.removesuffix(b"?") if head.target.count(b"?") == 1 else head.target
    if not match[1] and head.method == b"OPTIONS":
        return b"*"
    target = match[1] if match[1].startswith(b"/") else b"/" + match[1]
    return target.removesuffix(b"?") if target.count(b"?") == 1 else target


async def check(random: Random, stream: bytes, *, valid: bool, seen: Counter[str]) -> None:
    ours_read = await ours(stream)
    again = await ours(*cut(random, stream))
    if (
        b"OPTIONS" not in stream
    ):  # `OPTIONS *` is answered at its head, so a malformed body may come before or after that
        assert again == ours_read, "it depends on how the stream is cut"
    requests, why = theirs(stream)
    requests = [one for one in requests if one[:2] != ("OPTIONS", b"*")]
    both = min(len(requests), len(ours_read.requests))
    assert ours_read.requests[:both] == requests[:both], f"two readings: {requests}"
    seen[ours_read.rest] += 1
    if valid:
        assert ours_read.rest in ("open", "closed")
        assert ours_read.requests == requests
    elif ours_read.rest != "rejected" and ours_read.requests != requests:
        assert len(ours_read.requests) > both, f"h11 read more: {requests}"
        assert TOLERATED.search(why), f"h11: {why}"


async def fuzz(seconds: float, most: int, seed: int) -> Counter[str]:
    random = Random(seed)
    seen: Counter[str] = Counter()
    begin = time.monotonic()
    process = psutil.Process()
    memory = 0
    for number, (stream, valid) in enumerate(streams(random)):
        if number == most or time.monotonic() - begin > seconds:
            break
        try:
            await check(random, stream, valid=valid, seen=seen)
        except Exception as error:
            error.add_note(f"FUZZ_SEED={seed}, stream {number}: {stream!r}, h11: {theirs(stream)}")
            raise
        if number == 1_000:
            gc.collect()
            memory = process.memory_info().rss
    if memory:
        gc.collect()
        assert process.memory_info().rss - memory < 20 * 2**20
    return seen


async def test_h11_and_the_service_read_some_streams_alike(caplog: pytest.LogCaptureFixture) -> None:
    seen = await fuzz(30, 300, 9112)
    assert seen.keys() >= {"open", "closed", "rejected", "head"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_h11_and_the_service_read_every_stream_alike(caplog: pytest.LogCaptureFixture) -> None:
    seed = int(os.environ.get("FUZZ_SEED", SystemRandom().randrange(2**32)))
    seen = await fuzz(float(os.environ.get("FUZZ_SECONDS", "60")), 10**9, seed)
    print(f"\nFUZZ_SEED={seed}: {seen}")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
