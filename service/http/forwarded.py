"""The headers with which a trusted proxy describes a request: X-Forwarded-For, -Proto and -Prefix.

The client's address is in the log; the prefix, which the proxy strips, is in Location and Link.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from service.http.asgi import ASGIApp, header
from service.http.request_record import record_of

EVERYBODY = "*"  # every client, also those of a unix socket

# Segments only: a prefix that begins with // would make a link lead to another host.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


def trusting(app: ASGIApp, proxies: Sequence[str]) -> ASGIApp:
    """ASGI: `app`. The X-Forwarded-* headers set the client, the scheme and the prefix of a request that comes from one
    of these peers. Raises ValueError for an entry that is neither an IP address, a network nor `*`.
    """
    networks = [ip_network(proxy) for proxy in proxies if proxy != EVERYBODY]
    everybody = EVERYBODY in proxies

    def trusted(host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in networks)

    async def forwarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            client = scope.get("client")
            if everybody or (client is not None and trusted(client[0])):
                headers = scope["headers"]
                sent = (header(headers, b"x-forwarded-for") or b"").decode("latin-1")
                # From the right: hops to the left of the first untrusted one can be forged by the client.
                end = len(sent)
                while (comma := sent.rfind(",", 0, end)) >= 0 and trusted(sent[comma + 1 : end].strip()):
                    end = comma
                hop = sent[comma + 1 : end].strip()
                if hop:
                    scope["client"] = (hop, 0)
                scheme = header(headers, b"x-forwarded-proto")
                if scheme in (b"http", b"https"):
                    scope["scheme"] = scheme.decode()
                prefix = (header(headers, b"x-forwarded-prefix") or b"").decode("latin-1").rstrip("/")
                if _PREFIX.fullmatch(prefix):
                    record_of(scope).prefix = prefix
        await app(scope, receive, send)

    return forwarded
