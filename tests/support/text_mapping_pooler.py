"""What PgBouncer 1.21 and newer does to prepared statements: equal texts are one statement of the server, whatever
names its clients give them. Imports nothing of the service.

A TCP proxy with one server connection for each client. The server's statements outlive what clients prepare, as
PgBouncer's do: the first Parse of a text is passed on under the pooler's name, later ones are answered here.
"""

import asyncio
from contextlib import suppress
from typing import Self

from psycopg.conninfo import conninfo_to_dict

from tests.support.proxy import listening


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


class TextMappingPooler:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._socket = f"{conninfo_to_dict(upstream)['host']}/.s.PGSQL.5432"
        self.texts: list[bytes] = []  # that the server was asked to prepare
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server, self.url = await listening(self._serve, self._upstream)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_unix_connection(self._socket)
        try:
            await asyncio.gather(self._up(reader, server_writer), self._down(server_reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            server_writer.transport.abort()
            self._tasks.discard(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(4)
        writer.write(head + await reader.readexactly(int.from_bytes(head) - 4))
        mine: dict[bytes, bytes] = {}  # by the client's name: the server's
        known: dict[bytes, bytes] = {}  # by text: the server's name
        while True:
            kind = await reader.readexactly(1)
            body = await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
            if kind == b"P":
                name, text, rest = body.split(b"\0", 2)
                if name:
                    if text in known:
                        # Answered by the server with a Parse of nothing, so that the replies stay in order.
                        mine[name] = known[text]
                        kind, body = b"P", b"\0\0" + rest
                    else:
                        self.texts.append(text)
                        mine[name] = known[text] = b"pooler_%d" % len(self.texts)
                        body = known[text] + b"\0" + text + b"\0" + rest
            elif kind == b"B":
                portal, name, rest = body.split(b"\0", 2)
                body = portal + b"\0" + mine.get(name, name) + b"\0" + rest
            writer.write(_message(kind, body))
            with suppress(ConnectionError):
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionError("the server ended the connection")
