"""What an origin is, for CORS_ALLOW_ORIGINS."""

import re

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]+)", re.IGNORECASE)
_PORTS = {"http": ":80", "https": ":443"}


def origin_problem(text: str) -> str | None:
    """Why this is not an origin as browsers send it (RFC 6454, 6.2), and what to write. None: it is one, or `*`, or has
    a * for one whole label of a host, with at least two labels behind it."""
    if text == "*":
        return None
    if text.lower() == "null":
        return "would allow every sandboxed page and local file: leave it out"
    match = _ORIGIN.match(text)
    if match is None:
        host = text.partition("://")[2] or text
        if "://" not in text and "*" not in text and re.fullmatch(r"[\w.-]+(:[0-9]+)?/?", host):
            return f"has no scheme: write https://{host.rstrip('/').lower()}"
        return "is not an origin: write scheme://host or scheme://host:port"
    scheme, host = match[1].lower(), match[2].lower()
    if "@" in host:
        return "is not an origin: write scheme://host or scheme://host:port"
    name, _, port = host.rpartition(":") if re.search(r":[0-9]*$", host) else (host, "", "")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return "is not an origin: its host is not a name"
    if port:
        number = f":{port.lstrip('0') or '0'}"
        host = name + ("" if number == _PORTS.get(scheme) else number)
    else:
        host = name
    if "*" in host:
        labels = name.split(".")
        wild = [label for label in labels if "*" in label]
        if labels == ["*"]:
            return "is not an origin: `*` alone allows any origin"
        if wild != ["*"] or len(labels) < 3 or labels[-1] == "*" or labels[-2] == "*" or name.rpartition("*")[2] == "":
            return "allows more than one label: write * for one whole label, as in https://*.example.com"
        plain = name.replace("*", "x")
    else:
        plain = name
    if not re.fullmatch(r"\[[0-9a-f:.]+\]|[a-z0-9_-]+(\.[a-z0-9_-]+)*", plain):
        return "is not an origin: its host is not a name"
    mended = f"{scheme}://{host}"
    return None if mended == text else f"is not what browsers send: write {mended}"
