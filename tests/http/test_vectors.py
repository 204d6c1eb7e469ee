"""The corpus of vectors, each as it stands and cut into pieces: what is read must not depend on where a packet ends."""

import re
from email.utils import parsedate_to_datetime
from random import Random
from time import time

import pytest

from tests.http.vectors import VECTORS, Vector
from tests.support.wire import Wire, connection


def got(wire: Wire) -> list[bytes]:
    return [b"%s %s %s" % (one.method.encode(), one.target, one.body) for one in wire.requests]


async def play(vector: Vector, *pieces: bytes) -> None:
    wire = Wire()
    await wire.send(*pieces)
    statuses = [answer.status for answer in wire.answers]
    if pieces != vector.pieces:  # a body that comes later was waited for
        statuses = [status for status in statuses if status != 100]
        assert statuses == [status for status in vector.statuses if status != 100]
    else:
        assert statuses == vector.statuses
    assert connection(wire) == vector.after
    if vector.got is not None:
        assert got(wire) == vector.got
    for answer in wire.answers:
        if answer.status == 100:
            assert not answer.headers
            continue
        assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time()) < 10
        if answer.status >= 400:
            assert re.fullmatch(rb'\{"error":"[A-Z][^"]+"\}', answer.body)
            assert answer.headers["x-request-id"]
    if vector.after == "closed":
        assert wire.answers[-1].headers["connection"] == "close"
    await wire.close()


def test_there_are_enough_and_no_two_are_alike() -> None:
    assert len(VECTORS) >= 250
    assert len({(vector.section, vector.name) for vector in VECTORS}) == len(VECTORS)
    assert len({vector.pieces for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.section}: {vector.name}")
async def test_vector(vector: Vector) -> None:
    await play(vector, *vector.pieces)


async def test_vectors_are_read_alike_however_they_are_cut() -> None:
    random = Random(9112)
    for vector in VECTORS:
        sent = b"".join(vector.pieces)
        if b"/early" in sent:
            continue  # whether the body is here before the response is what matters to these
        for _ in range(3):
            cuts = sorted(random.randrange(len(sent) + 1) for _ in range(random.randrange(1, 6)))
            pieces = [sent[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
            try:
                await play(vector, *pieces)
            except Exception as error:
                error.add_note(f"{vector.section}: {vector.name}, cut at {cuts}")
                raise
