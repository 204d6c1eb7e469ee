"""The protocol class's clock, under uvicorn's own server."""

import asyncio
import time

from service.http.connection import HEAD_S
from tests.http.test_options import GET, served


async def test_time_limits_hold_under_uvicorns_server() -> None:
    async with served(timeout_keep_alive=2) as (_, port):
        begin = time.monotonic()
        idle, _writer = await asyncio.open_connection("127.0.0.1", port)
        late, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET[:-2])
        async with asyncio.timeout(HEAD_S + 5):
            assert await idle.read() == b""
            assert 1 < time.monotonic() - begin < 5
            assert (await late.read()).startswith(b"HTTP/1.1 408 ")
            assert HEAD_S - 1 < time.monotonic() - begin < HEAD_S + 3
        writer.close()
        _writer.close()
