"""The headers with which a trusted proxy describes a request: X-Forwarded-For and X-Forwarded-Prefix.

The client's address is in the log; the prefix, which the proxy strips, is in Location and Link.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from service.http.asgi import ASGIApp, header
from service.http.request_record import record_of
from service.settings import PREFIX

EVERYBODY = "*"  # every client, also those of a unix socket

_MAX_HOPS = 32  # that are looked at: a client can send as many as a head has room for
_MAX_HOP = 64  # characters
# Some proxies add the port: 192.0.2.1:4711, [2001:db8::1]:4711. Others write "unknown", or what the client has sent.
_HOP = re.compile(r"([0-9.]+)(?::[0-9]+)?|\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9A-Fa-f:.]+)")


def trusting(app: ASGIApp, proxies: Sequence[str]) -> ASGIApp:
    """ASGI: `app`. The X-Forwarded-* headers set the client and the prefix of a request that comes from one of these
    peers. Raises ValueError for an entry that is neither an IP address, a network nor `*`.
    """
    networks = [_network(proxy) for proxy in proxies if proxy != EVERYBODY]
    everybody = EVERYBODY in proxies

    @lru_cache(1024)
    def trusted(host: str) -> bool:
        address = _ip(host)
        return address is not None and any(address in network for network in networks)

    async def forwarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            client = scope.get("client")
            if everybody or (client is not None and trusted(client[0])):
                headers = scope["headers"]
                sent = (header(headers, b"x-forwarded-for") or b"").decode("latin-1")
                # From the right: hops to the left of the first untrusted one can be forged by the client.
                for text in reversed(sent.rsplit(",", _MAX_HOPS)):
                    hop = _address(text.strip()) if len(text) <= _MAX_HOP else None
                    if hop is None:
                        break
                    scope["client"] = (hop, 0)
                    if not trusted(hop):
                        break
                prefix = (header(headers, b"x-forwarded-prefix") or b"").decode("latin-1").rstrip("/")
                if PREFIX.fullmatch(prefix):
                    record_of(scope).prefix = prefix
        await app(scope, receive, send)

    return forwarded


def _network(text: str) -> Any:
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return ip_network(f"{mapped}/{network.prefixlen - 96}") if mapped else network


@lru_cache(1024)
def _address(hop: str) -> str | None:
    """The IP address in a hop of X-Forwarded-For; None: there is none."""
    match = _HOP.fullmatch(hop)
    address = match and _ip(match[match.lastindex or 0])
    return str(address) if address else None


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A listener on :: has IPv4 clients as ::ffff:192.0.2.1.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
