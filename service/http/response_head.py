"""The head of a response, as bytes. Imports nothing of the service but ASGI's types."""

from http import HTTPStatus

from service.http.asgi import Headers

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, _PHRASES.get(code, "").encode()) for code in range(100, 600)}
# The server decides these. An application can only ask for `Connection: close`.
_OWN = frozenset((b"connection", b"transfer-encoding", b"date"))


def response_head(
    status: int, headers: Headers, lines: bytes, *, keep_alive: bool, version: str = "1.1"
) -> tuple[bytes, bool]:
    """The head, and whether the connection stays: `keep_alive`, unless a header asks for the end. `lines` are the
    server's own, each with its line end; `version` is the request's. Raises RuntimeError for a line break in a header.
    """
    parts = [_STATUS_LINES[status], lines]
    for name, value in headers:
        if name not in _OWN:
            parts += (name, b": ", value, b"\r\n")
        elif name == b"connection" and b"close" in value.lower():
            keep_alive = False
    line_ends = len(parts) // 4 + lines.count(b"\n") + 2
    if not keep_alive:
        parts.append(b"connection: close\r\n\r\n")
        line_ends += 1
    elif version == "1.0":
        parts.append(b"connection: keep-alive\r\n\r\n")
        line_ends += 1
    else:
        parts.append(b"\r\n")
    head = b"".join(parts)
    if head.count(b"\n") != line_ends or head.count(b"\r") != line_ends:
        raise RuntimeError("a header with a line break")
    return head, keep_alive
