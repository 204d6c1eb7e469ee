"""What HttpProtocol does with given bytes: the rules of RFC 9110 (HTTP Semantics), RFC 9112 (HTTP/1.1), RFC 3986 (URI)
and RFC 6585, and the classes of cases in which servers are known to differ.

A vector names its section and has the bytes (each of a tuple is a read), the statuses of the responses, and what the
connection waits for then: it is `open` for a request, waits for the rest of a `head` or a `body`, or is `closed`.
Where it matters, what the application must have got follows: method, target and body of each request.
"""

from typing import NamedTuple

H = b"Host: x\r\n"


class Vector(NamedTuple):
    section: str
    name: str
    pieces: tuple[bytes, ...]
    statuses: list[int]
    after: str
    got: list[bytes] | None  # "METHOD target body" of each request, where that is the point


def get(
    *lines: bytes, target: bytes = b"/", method: bytes = b"GET", version: bytes = b"HTTP/1.1", host: bool = True
) -> bytes:
    """A request without a body."""
    head = method + b" " + target + b" " + version + b"\r\n" + (H if host else b"")
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(body: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A POST with a Content-Length."""
    return get(b"Content-Length: %d" % len(body), *lines, method=b"POST", version=version) + body


def chunked(coded: bytes, *lines: bytes) -> bytes:
    """A POST whose body is already in chunks."""
    return get(b"Transfer-Encoding: chunked", *lines, method=b"POST") + coded


OK = get()
NEXT = get(target=b"/next")
C3 = b"3\r\nabc\r\n"
END = b"0\r\n\r\n"

_rows: list[tuple[str, str, bytes | tuple[bytes, ...], str, str, list[bytes] | None]] = []


def add(section: str, name: str, sent: bytes | tuple[bytes, ...], statuses: str, after: str, *got: bytes) -> None:
    _rows.append((section, name, sent, statuses, after, list(got) or None))


# ---- RFC 9112, 2: messages ----

add("9112 2.1", "a request", OK, "200", "open", b"GET / ")
add("9112 2.1", "a request with a query", get(target=b"/a?b=c&d"), "200", "open", b"GET /a?b=c&d ")
add("9112 2.1", "nothing", b"", "", "open")
add("9112 2.2", "an empty line before a request", b"\r\n" + OK, "200", "open", b"GET / ")
add("9112 2.2", "many empty lines before a request", b"\r\n" * 50 + OK, "200", "open")
add("9112 2.2", "an empty line alone asks for nothing", b"\r\n", "", "open")
add("9112 2.2", "an empty line behind a response asks for nothing", OK + b"\r\n", "200", "open")
add("9112 2.2", "an empty line behind a body asks for nothing", post(b"abc") + b"\r\n", "200", "open")
add(
    "9112 2.2",
    "an empty line between two requests",
    post(b"abc") + b"\r\n" + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add("9112 2.2", "a CR alone, so far", b"\r", "", "open")
add("9112 2.2", "an empty line in two reads", (b"\r", b"\n", OK), "200", "open")
add("9112 2.2", "a CR that begins no line end", b"\rGET / HTTP/1.1\r\n", "400", "closed")
add("9112 2.2", "a bare LF before a request", b"\n" + OK, "400", "closed")
add("9112 2.2", "a bare LF behind the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", "400", "closed")
add("9112 2.2", "a bare LF behind the request line, at once", b"GET / HTTP/1.1\n", "400", "closed")
add("9112 2.2", "bare LFs only", b"GET / HTTP/1.1\nHost: x\n\n", "400", "closed")
add("9112 2.2", "a bare LF behind a header", b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", "400", "closed")
add("9112 2.2", "a bare LF in place of the empty line", b"GET / HTTP/1.1\r\nHost: x\r\n\n", "400", "closed")
add("9112 2.2", "a bare CR behind the request line", b"GET / HTTP/1.1\rHost: x\r\n\r\n", "400", "closed")
add("9112 2.2", "a bare CR in a header", get(b"A: b\rC: d"), "400", "closed")
add("9112 2.2", "a bare CR before CRLF", get(b"A: b\r"), "400", "closed")
add("9112 2.2", "white space before the first header", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", "400", "closed")
add("9112 2.2", "white space alone on the first line", b"GET / HTTP/1.1\r\n \r\nHost: x\r\n\r\n", "400", "closed")
add("9112 2.2", "white space before the request line", b" " + OK, "400", "closed")
add("9112 2.2", "a NUL first", b"\0", "400", "closed")
add("9112 2.2", "TLS on a port without it", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", "closed")
add("9112 2.2", "SSH on a port of HTTP", b"SSH-2.0-OpenSSH_9.2\r\n", "400", "closed")
add("9112 2.2", "SMTP on a port of HTTP", b"EHLO example.com\r\n", "400", "closed")
add("9112 2.2", "nonsense", b"nonsense\r\n\r\n", "400", "closed")
add("9112 2.2", "bytes above 127 first", b"\xff\xfe\xfd", "400", "closed")
add("9112 2.3", "HTTP/1.0", get(version=b"HTTP/1.0"), "200", "closed")
add("9112 2.3", "HTTP/1.2 is read as 1.1", get(version=b"HTTP/1.2"), "200", "open", b"GET / ")
add("9112 2.3", "HTTP/1.9 is read as 1.1", get(version=b"HTTP/1.9"), "200", "open")
add("9110 15.6.6", "HTTP/2.0", get(version=b"HTTP/2.0"), "505", "closed")
add("9110 15.6.6", "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", "closed")
add("9110 15.6.6", "HTTP/3.0", get(version=b"HTTP/3.0"), "505", "closed")
add("9110 15.6.6", "HTTP/0.9", get(version=b"HTTP/0.9"), "505", "closed")
add("9110 15.6.6", "HTTP/0.0", get(version=b"HTTP/0.0"), "505", "closed")
add("9110 15.6.6", "RTSP/1.0", get(version=b"RTSP/1.0"), "505", "closed")
add("9110 15.6.6", "a method and version of RTSP", get(method=b"DESCRIBE", version=b"RTSP/1.0"), "505", "closed")
add("9110 15.6.6", "ICE/1.0", get(method=b"SOURCE", version=b"ICE/1.0"), "505", "closed")
add("9110 15.6.6", "HTTPS/1.1", get(version=b"HTTPS/1.1"), "505", "closed")
add("9110 15.6.6", "HTTP/11", get(version=b"HTTP/11"), "505", "closed")
add("9110 15.6.6", "HTTP/1", get(version=b"HTTP/1"), "505", "closed")
add("9110 15.6.6", "HTTP/1.10", get(version=b"HTTP/1.10"), "505", "closed")
add("9112 2.3", "http/1.1 in lower case", get(version=b"http/1.1"), "400", "closed")
add("9112 2.3", "Http/1.1", get(version=b"Http/1.1"), "400", "closed")
add("9112 2.3", "HTTP/1,1", get(version=b"HTTP/1,1"), "400", "closed")
add("9112 2.3", "HTTP/ 1.1", get(version=b"HTTP/ 1.1"), "400", "closed")
add("9112 2.3", "HTTP/1.1x", get(version=b"HTTP/1.1x"), "400", "closed")
add("9112 2.3", "HTTP/x.y", get(version=b"HTTP/x.y"), "400", "closed")
add("9112 2.3", "HTTP/-1.1", get(version=b"HTTP/-1.1"), "400", "closed")
add("9112 2.3", "no version", b"GET /\r\n\r\n", "400", "closed")
add("9112 2.3", "no version, and headers", b"GET /\r\nHost: x\r\n\r\n", "400", "closed")

# ---- RFC 9112, 3: the request line ----

add("9112 3", "two spaces behind the method", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "two spaces behind the target", b"GET /  HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a space behind the version", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a tab in place of a space", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a form feed in place of a space", b"GET\x0c/ HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a vertical tab in place of a space", b"GET\x0b/ HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a space in the target", get(target=b"/a b"), "400", "closed")
add("9112 3", "no target", b"GET HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "an empty target", b"GET  HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a line of one word", b"GET\r\n" + H + b"\r\n", "400", "closed")
add("9112 3", "a target of 30,000 bytes", get(target=b"/" + b"a" * 30_000), "200", "open")
add("9112 3", "a target of 40,000 bytes", get(target=b"/" + b"a" * 40_000), "414", "closed")
add("9112 3", "a target of 40,000 bytes, in two reads", (b"GET /" + b"a" * 20_000, b"a" * 20_000), "414", "closed")
add("9112 3", "a target that does not end", b"GET /" + b"a" * 33_000, "414", "closed")
add("9112 3", "a target of 40,000 bytes behind a request", OK + get(target=b"/" + b"a" * 40_000), "200 414", "closed")
add("9112 3", "a method of 40,000 bytes", b"A" * 40_000, "501", "closed")
add("9112 3.1", "HEAD", get(method=b"HEAD"), "200", "open", b"HEAD / ")
add("9112 3.1", "PUT without a body", get(method=b"PUT"), "200", "open")
add("9112 3.1", "PATCH without a body", get(method=b"PATCH"), "200", "open")
add("9112 3.1", "DELETE", get(method=b"DELETE"), "200", "open")
add("9112 3.1", "OPTIONS", get(method=b"OPTIONS"), "200", "open", b"OPTIONS / ")
for _method in (b"get", b"Get", b"FOO", b"PROPFIND", b"QUERY", b"TRACE", b"M-SEARCH", b"SOURCE", b"PRI", b"LINK"):
    add("9110 9.1", f"{_method.decode()} is not implemented", get(method=_method), "501", "closed")
add("9110 9.3.6", "CONNECT is not implemented", get(method=b"CONNECT", target=b"example.com:443"), "501", "closed")
add("9110 9.1", "a method of every token character", get(method=b"!#$%&'*+-.^_`|~0aZ"), "501", "closed")
for _bad in (b"G@T", b"GE(T", b"G/T", b"GE\x00T", b"G\xc3\x89T", b"GET,", b'"GET"', b"{GET}", b"GET:"):
    add("9110 9.1", f"{_bad!r} is no token", get(method=_bad), "400", "closed")
add("9110 9.1", "no method", b" / HTTP/1.1\r\n" + H + b"\r\n", "400", "closed")

# ---- RFC 9112, 3.2: targets ----

for _target in (
    b"//",
    b"/a/../b",
    b"/a%20b",
    b"/a%2Fb",
    b"/%00",
    b"/%zz",
    b"/%",
    b"/a;b=c",
    b"/a:b@c",
    b"/*",
    b"/?",
    b"/??",
    b"/?a=/b?c",
    b"/~user",
    b"/a'b(c)!$&+,=",
    b'/"<>\\^`{|}',
):
    add(
        "9112 3.2.1",
        f"origin form {_target!r}",
        get(target=_target),
        "200",
        "open",
        b"GET %s " % _target.removesuffix(b"?") if _target == b"/?" else b"GET %s " % _target,
    )
for _target in (
    b"/a#b",
    b"/#",
    b"/a\x00b",
    b"/a\x7f",
    b"/\x80",
    b"/caf\xc3\xa9",
    b"/a\x01",
    b"/a\tb",
    b"a",
    b"a/b",
    b"?a",
    b"*",
    b"**",
    b"*/a",
    b"#",
):
    add("9112 3.2", f"target {_target!r}", get(target=_target), "400", "closed")
add("9112 3.2.2", "absolute form", get(target=b"http://x/a?b"), "200", "open", b"GET /a?b ")
add("9112 3.2.2", "absolute form without a path", get(target=b"http://x"), "200", "open", b"GET / ")
add("9112 3.2.2", "absolute form with a query and no path", get(target=b"http://x?a"), "200", "open", b"GET /?a ")
add("9112 3.2.2", "absolute form of https", get(target=b"https://x/a"), "200", "open", b"GET /a ")
add("9112 3.2.2", "absolute form in capitals", get(target=b"HTTP://X/a"), "200", "open", b"GET /a ")
add("9112 3.2.2", "absolute form with a port", get(target=b"http://x:8000/a"), "200", "open", b"GET /a ")
add("9112 3.2.2", "absolute form with an IPv6 address", get(target=b"http://[::1]:80/a"), "200", "open", b"GET /a ")
add(
    "9112 3.2.2",
    "absolute form on HTTP/1.0",
    get(target=b"http://x/a", version=b"HTTP/1.0", host=False),
    "200",
    "closed",
)
add("9112 3.2.2", "absolute form and no Host", get(target=b"http://x/a", host=False), "400", "closed")
add(
    "9112 3.2.2",
    "OPTIONS of an absolute form without a path",
    get(method=b"OPTIONS", target=b"http://x"),
    "204",
    "open",
)
for _target in (
    b"http:///a",
    b"http://:80/a",
    b"http://u@x/a",
    b"http://u:p@x/a",
    b"http://x y/a",
    b"http://x,y/a",
    b"http://x:80:80/a",
    b"http://[::1/a",
    b"http://x:port/a",
    b"http://x/a#b",
    b"http:/a",
    b"http:a",
    b"http://",
    b"ftp://x/a",
    b"ws://x/a",
    b"file:///etc/passwd",
    b"urn:a:b",
    b"://x/a",
    b"x:80",
):
    add("9112 3.2.2", f"target {_target!r}", get(target=_target), "400", "closed")
add(
    "9112 3.2",
    "a malformed Host with an absolute form",
    get(b"Host: a b", target=b"http://x/", host=False),
    "400",
    "closed",
)
add("9112 3.2", "two Hosts with an absolute form", get(b"Host: y", target=b"http://x/"), "400", "closed")
add("9112 3.2", "no Host with an absolute form", get(target=b"http://x/", host=False), "400", "closed")
add("9112 3.2.3", "authority form outside CONNECT", get(target=b"example.com:80"), "400", "closed")
add("9112 3.2.4", "OPTIONS *", get(method=b"OPTIONS", target=b"*"), "204", "open")
add("9112 3.2.4", "OPTIONS * again and again", get(method=b"OPTIONS", target=b"*") * 5, "204 204 204 204 204", "open")
add(
    "9112 3.2.4",
    "OPTIONS * with a body",
    get(b"Content-Length: 3", method=b"OPTIONS", target=b"*") + b"abc" + OK,
    "204 200",
    "open",
)
add("9112 3.2.4", "HEAD *", get(method=b"HEAD", target=b"*"), "400", "closed")
add("9112 3.2.4", "POST *", get(method=b"POST", target=b"*"), "400", "closed")

# ---- RFC 9112, 3.2 and RFC 9110, 7.2: Host ----

for _host in (
    b"",
    b"example.com",
    b"example.com:8000",
    b"example.com:",
    b"127.0.0.1",
    b"[::1]",
    b"[::1]:8000",
    b"[v1.a:b]",
    b"a_b-c.d",
    b"x%20y",
    b"EXAMPLE.com.",
    b"sub.example.com:65535",
    b"xn--bcher-kva.example",
):
    add("9110 7.2", f"Host {_host!r}", get(b"Host: " + _host, host=False), "200", "open")
for _host in (
    b"a b",
    b"a/b",
    b"u@b",
    b"a, b",
    b"a,b",
    b"http://a",
    b"a:b",
    b"a:80:80",
    b"[::1",
    b"::1",
    b"[::1]x",
    b"[]",
    b"a?b",
    b"a#b",
    b"a\\b",
    b"a%zz",
    b"a\tb",
    b"a:-1",
    b'"a"',
    b"<a>",
    b"{a}",
    b"a\xff",
    b"caf\xc3\xa9",
    b"a|b",
    b"a^b",
):
    add("9112 3.2", f"Host {_host!r}", get(b"Host: " + _host, host=False), "400", "closed")
add("9112 3.2", "no Host", get(host=False), "400", "closed")
add("9112 3.2", "no Host on HTTP/1.0", get(host=False, version=b"HTTP/1.0"), "200", "closed")
add("9112 3.2", "two Hosts", get(b"Host: y"), "400", "closed")
add("9112 3.2", "the same Host twice", get(b"Host: x"), "400", "closed")
add("9112 3.2", "two Hosts on HTTP/1.0", get(b"Host: y", version=b"HTTP/1.0"), "400", "closed")
add("9112 3.2", "two Hosts, one in capitals", get(b"HOST: y"), "400", "closed")
add("9112 3.2", "a malformed Host on HTTP/1.0", get(b"Host: a b", version=b"HTTP/1.0", host=False), "400", "closed")
add("9110 5.5", "white space around a Host", get(b"Host: \t x \t", host=False), "200", "open")
add("9110 7.2", "a Host without white space", get(b"Host:x", host=False), "200", "open")

# ---- RFC 9112, 5 and RFC 9110, 5: header lines ----

add("9112 5", "a header without white space", get(b"A:b"), "200", "open")
add("9112 5", "an empty value", get(b"A:"), "200", "open")
add("9112 5", "a value of white space", get(b"A:  \t "), "200", "open")
add("9110 5.5", "bytes above 127 in a value", get(b"A: caf\xc3\xa9 \xff"), "200", "open")
add("9110 5.5", "a tab in a value", get(b"A: b\tc"), "200", "open")
add("9110 5.1", "a name of every token character", get(b"!#$%&'*+-.^_`|~0aZ: b"), "200", "open")
for _line in (
    b"A : b",
    b"A\t: b",
    b" A: b",
    b"\tA: b",
    b"A",
    b": b",
    b":",
    b"A b: c",
    b"A\0: b",
    b"A\x7f: b",
    b"A(: b",
    b"A/B: c",
    b"A[: b",
    b"A\xff: b",
    b"A: b\0c",
    b"A: b\x01c",
    b"A: b\x7fc",
    b"A: b\x08",
    b"A: \x1b[0m",
    b'"A": b',
    b"A=b",
    b"A; b",
):
    add("9112 5.1", f"header line {_line!r}", get(_line), "400", "closed")
add("9112 5.2", "a folded value", get(b"A: b\r\n c"), "400", "closed")
add("9112 5.2", "a value folded with a tab", get(b"A: b\r\n\tc"), "400", "closed")
add("9112 5.2", "an empty value that is folded", get(b"A:\r\n b"), "400", "closed")
add("9112 5.2", "a folded Host", b"GET / HTTP/1.1\r\nHost:\r\n x\r\n\r\n", "400", "closed")
add(
    "9112 5.2",
    "a folded Transfer-Encoding",
    get(b"Transfer-Encoding:\r\n chunked", method=b"POST") + END,
    "400",
    "closed",
)
add("9112 5.2", "a folded Content-Length", get(b"Content-Length:\r\n 3", method=b"POST") + b"abc", "400", "closed")
add("6585 5", "90 headers", get(*(b"X-%d: a" % n for n in range(90))), "200", "open")
add("6585 5", "a value of 20,000 bytes", get(b"A: " + b"a" * 20_000), "200", "open")
add("6585 5", "a value of 40,000 bytes", get(b"A: " + b"a" * 40_000), "431", "closed")
add("6585 5", "a name of 40,000 bytes", get(b"A" * 40_000 + b": a"), "431", "closed")
add("6585 5", "headers of 40,000 bytes", get(*(b"X-%05d: aaaaaaaaa" % n for n in range(2_000))), "431", "closed")
add("6585 5", "a list of 1,000 options", get(b"Connection: " + b"a," * 1_000), "431", "closed")
add("6585 5", "1,000 empty expectations", get(b"Expect: " + b"," * 1_000 + b"100-continue"), "431", "closed")
add("6585 5", "1,000 codings", get(b"Transfer-Encoding: " + b"a," * 1_000 + b"chunked"), "431", "closed")
add("6585 5", "1,000 empty codings", get(b"Transfer-Encoding: " + b"," * 1_000 + b"chunked"), "431", "closed")
add("6585 5", "1,000 short lines", get(*[b"A:"] * 1_000), "431", "closed")
add("6585 5", "254 headers", get(*[b"A: bcdefgh"] * 253), "200", "open")
add("6585 5", "255 headers", get(*[b"A: bcdefgh"] * 254), "431", "closed")
add("6585 5", "255 headers of an absolute form", get(*[b"A: bcdefgh"] * 254, target=b"http://x/"), "431", "closed")
add("6585 5", "headers that do not end", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6_000, "431", "closed")
add("6585 5", "headers of 40,000 bytes behind a request", OK + get(b"A: " + b"a" * 40_000), "200 431", "closed")
add("6585 5", "a head of 30,000 bytes with its body", post(b"a" * 30_000, b"A: " + b"a" * 30_000), "200", "open")
add("6585 5", "a small head with a large body", post(b"a" * 60_000), "200", "open")

# ---- RFC 9112, 6: bodies ----

add("9112 6.2", "a body", post(b"abc"), "200", "open", b"POST / abc")
add("9112 6.2", "an empty body", post(b""), "200", "open", b"POST / ")
add(
    "9112 6.3",
    "a POST without a length has no body",
    get(method=b"POST") + NEXT,
    "200 200",
    "open",
    b"POST / ",
    b"GET /next ",
)
add(
    "9112 6.2",
    "a body of a GET",
    get(b"Content-Length: 3") + b"abc" + NEXT,
    "200 200",
    "open",
    b"GET / abc",
    b"GET /next ",
)
add(
    "9112 6.2",
    "a body of a DELETE",
    get(b"Content-Length: 3", method=b"DELETE") + b"abc" + NEXT,
    "200 200",
    "open",
    b"DELETE / abc",
    b"GET /next ",
)
add(
    "9112 6.2",
    "a body of a HEAD",
    get(b"Content-Length: 3", method=b"HEAD") + b"abc" + NEXT,
    "200 200",
    "open",
    b"HEAD / abc",
    b"GET /next ",
)
add("9112 6.2", "a part of a body", get(b"Content-Length: 5", method=b"POST") + b"abc", "", "body")
add(
    "9112 6.2",
    "a body in three reads",
    (get(b"Content-Length: 5", method=b"POST"), b"ab", b"cde"),
    "200",
    "open",
    b"POST / abcde",
)
add(
    "9112 6.2",
    "leading zeros of a length",
    get(b"Content-Length: 0003", method=b"POST") + b"abc" + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add(
    "9110 5.5",
    "white space around a length",
    get(b"Content-Length: \t 3 \t", method=b"POST") + b"abc" + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add("9112 6.2", "a body that looks like a request", post(OK) + NEXT, "200 200", "open", b"POST / " + OK, b"GET /next ")
add(
    "9112 6.2",
    "a body that ends in an empty line",
    post(b"a\r\n\r\n") + NEXT,
    "200 200",
    "open",
    b"POST / a\r\n\r\n",
    b"GET /next ",
)
for _length in (
    b"-1",
    b"+3",
    b"0x3",
    b"3.0",
    b"3e0",
    b"three",
    b"",
    b" ",
    b"3 3",
    b"3,3",
    b"3, 3",
    b"3;",
    b"\xb3",
    b"99999999999999999999999",
    b"1" * 300,
    b"0b11",
    b"3_0",
    b"'3'",
    b"3\x0b",
):
    add(
        "9112 6.3",
        f"Content-Length {_length[:24]!r}",
        get(b"Content-Length: " + _length, method=b"POST") + b"abc" + NEXT,
        "400",
        "closed",
    )
add(
    "9112 6.3", "two lengths", get(b"Content-Length: 3", b"Content-Length: 0", method=b"POST") + b"abc", "400", "closed"
)
add(
    "9112 6.3",
    "the same length twice",
    get(b"Content-Length: 3", b"Content-Length: 3", method=b"POST") + b"abc",
    "400",
    "closed",
)
add(
    "9112 6.1",
    "both lengths",
    get(b"Content-Length: 3", b"Transfer-Encoding: chunked", method=b"POST") + END + NEXT,
    "400",
    "closed",
)
add(
    "9112 6.1",
    "both lengths, the other way round",
    get(b"Transfer-Encoding: chunked", b"Content-Length: 3", method=b"POST") + END + NEXT,
    "400",
    "closed",
)
add(
    "9112 6.1",
    "both lengths, the second 0",
    get(b"Transfer-Encoding: chunked", b"Content-Length: 0", method=b"POST") + END + NEXT,
    "400",
    "closed",
)
for _coding in (b"gzip", b"gzip, chunked", b"deflate", b"identity", b"xchunked", b"chunkedx", b"br,chunked", b"x-y"):
    add(
        "9112 6.1",
        f"Transfer-Encoding {_coding!r} is not implemented",
        get(b"Transfer-Encoding: " + _coding, method=b"POST") + END + NEXT,
        "501",
        "closed",
    )
for _coding in (
    b"",
    b",",
    b"chunked,",
    b",chunked",
    b"chunked, chunked",
    b"chunked, identity",
    b"chunked, gzip",
    b"chunked chunked",
    b"\x0bchunked",
    b"chunked\x0b",
    b'"chunked"',
    b"chunked/",
    b"(chunked)",
):
    add(
        "9112 6.3",
        f"Transfer-Encoding {_coding!r}",
        get(b"Transfer-Encoding: " + _coding, method=b"POST") + END + NEXT,
        "400",
        "closed",
    )
add(
    "9112 7",
    "chunked in capitals",
    get(b"Transfer-Encoding: CHUNKED", method=b"POST") + C3 + END + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add(
    "9110 5.5",
    "white space around chunked",
    get(b"Transfer-Encoding:  chunked \t", method=b"POST") + C3 + END + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add(
    "9112 6.1",
    "codings on two lines",
    get(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", method=b"POST") + END,
    "501",
    "closed",
)
add(
    "9112 6.3",
    "chunked on two lines",
    get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", method=b"POST") + END,
    "400",
    "closed",
)
add(
    "9112 6.1",
    "chunked on HTTP/1.0",
    get(b"Transfer-Encoding: chunked", method=b"POST", version=b"HTTP/1.0") + C3 + END,
    "400",
    "closed",
)
add(
    "9112 6.1",
    "chunked on HTTP/1.0 that asks to stay",
    get(b"Transfer-Encoding: chunked", b"Connection: keep-alive", method=b"POST", version=b"HTTP/1.0")
    + C3
    + END
    + NEXT,
    "400",
    "closed",
)
add(
    "9112 6.3",
    "Transfer-Encoding with a space before the colon",
    get(b"Transfer-Encoding : chunked", method=b"POST") + END,
    "400",
    "closed",
)
add(
    "9112 6.3",
    "Content-Length with a space before the colon",
    get(b"Content-Length : 3", method=b"POST") + b"abc",
    "400",
    "closed",
)
add(
    "9110 5.1",
    "Transfer_Encoding is another header",
    get(b"Transfer_Encoding: chunked", method=b"POST") + NEXT,
    "200 200",
    "open",
    b"POST / ",
    b"GET /next ",
)
add(
    "9110 5.1",
    "Content_Length is another header",
    get(b"Content_Length: 50", method=b"POST") + NEXT,
    "200 200",
    "open",
    b"POST / ",
    b"GET /next ",
)
for _name in (b"Content-Lengthx", b"Content-Lengt", b"Transfer-Encodingx", b"Transfer-Encodin", b"X-Transfer-Encoding"):
    add(
        "9110 5.1",
        f"{_name.decode()} is another header",
        get(_name + b": chunked", method=b"POST") + NEXT,
        "200 200",
        "open",
        b"POST / ",
        b"GET /next ",
    )

# ---- RFC 9112, 7.1: chunked ----

_chunks: list[tuple[str, bytes, bytes]] = [
    ("one chunk", C3 + END, b"abc"),
    ("no chunk", END, b""),
    ("two chunks", C3 + b"2\r\nde\r\n" + END, b"abcde"),
    ("a size in lower case", b"a\r\n0123456789\r\n" + END, b"0123456789"),
    ("a size in capitals", b"A\r\n0123456789\r\n" + END, b"0123456789"),
    ("a size with leading zeros", b"0003\r\nabc\r\n" + END, b"abc"),
    ("a last chunk of many zeros", C3 + b"000\r\n\r\n", b"abc"),
    ("a chunk with a line end in it", b"4\r\na\r\nb\r\n" + END, b"a\r\nb"),
    ("a chunk that looks like the end", b"5\r\n0\r\n\r\n\r\n" + END, b"0\r\n\r\n"),
    ("an extension", b"3;a\r\nabc\r\n" + END, b"abc"),
    ("an extension with a value", b"3;a=b\r\nabc\r\n" + END, b"abc"),
    ("an extension with a quoted value", b'3;a="b; c"\r\nabc\r\n' + END, b"abc"),
    ("an extension with an escape", b'3;a="b\\"c"\r\nabc\r\n' + END, b"abc"),
    ("an extension with an empty quoted value", b'3;a=""\r\nabc\r\n' + END, b"abc"),
    ("two extensions", b"3;a;b=c\r\nabc\r\n" + END, b"abc"),
    ("white space around an extension's semicolon", b"3 ; a\r\nabc\r\n" + END, b"abc"),
    ("a tab before a semicolon", b"3\t;a\r\nabc\r\n" + END, b"abc"),
    ("white space around an extension's equals sign", b"3;a = b\r\nabc\r\n" + END, b"abc"),
    ("an extension of the last chunk", C3 + b"0;a=b\r\n\r\n", b"abc"),
    ("a trailer", C3 + b"0\r\nA: b\r\n\r\n", b"abc"),
    ("two trailers", C3 + b"0\r\nA: b\r\nC: d\r\n\r\n", b"abc"),
    ("an empty trailer", C3 + b"0\r\nA:\r\n\r\n", b"abc"),
    ("trailer Connection: close", C3 + b"0\r\nConnection: close\r\n\r\n", b"abc"),
    ("trailer Connection: keep-alive", C3 + b"0\r\nConnection: keep-alive\r\n\r\n", b"abc"),
    ("trailer Connection: upgrade", C3 + b"0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", b"abc"),
    ("trailer Proxy-Connection: close", C3 + b"0\r\nProxy-Connection: close\r\n\r\n", b"abc"),
    ("trailer Content-Length", C3 + b"0\r\nContent-Length: 50\r\n\r\n", b"abc"),
    ("trailer Transfer-Encoding", C3 + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"abc"),
    ("trailer Host", C3 + b"0\r\nHost: y\r\n\r\n", b"abc"),
    ("trailer Expect", C3 + b"0\r\nExpect: 100-continue\r\n\r\n", b"abc"),
    ("a trailer of 10,000 bytes", C3 + b"0\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", b"abc"),
]
for _name, _coded, _body in _chunks:
    add(
        "9112 7.1",
        f"{_name}, and the next request",
        chunked(_coded) + NEXT,
        "200 200",
        "open",
        b"POST / " + _body,
        b"GET /next ",
    )
add(
    "9112 7.1",
    "a body in single bytes",
    tuple(bytes([byte]) for byte in chunked(C3 + b"1\r\nd\r\n" + END) + NEXT),
    "200 200",
    "open",
    b"POST / abcd",
    b"GET /next ",
)
add(
    "9112 7.1",
    "a thousand and one chunks",
    chunked(b"1\r\na\r\n" * 1001 + END) + NEXT,
    "200 200",
    "open",
    b"POST / " + b"a" * 1001,
    b"GET /next ",
)
add("9112 7.1", "so far no size", chunked(b""), "", "body")
add("9112 7.1", "a part of a size", chunked(b"3"), "", "body")
add("9112 7.1", "a part of a chunk", chunked(b"3\r\nab"), "", "body")
add("9112 7.1", "no end", chunked(C3), "", "body")
add("9112 7.1", "a part of the end", chunked(C3 + b"0\r\n"), "", "body")
add("9112 7.1", "a part of the trailers", chunked(C3 + b"0\r\nA: b\r\n"), "", "body")
for _name, _coded in (
    ("a size that is none", b"x\r\nabc\r\n"),
    ("an empty size", b"\r\nabc\r\n"),
    ("a bare LF instead of a trailer", C3 + b"0\r\n\n"),
    ("a bare LF at the end of a trailer, and no more", C3 + b"0\r\nA: b\n"),
    ("a trailer that is none, without its end", C3 + b"0\r\nA b"),
    ("a size with a sign", b"+3\r\nabc\r\n"),
    ("a size below zero", b"-3\r\nabc\r\n"),
    ("a size in 0x", b"0x3\r\nabc\r\n"),
    ("a size with an underscore", b"1_0\r\nabc\r\n"),
    ("a size with a point", b"3.0\r\nabc\r\n"),
    ("a size of 17 digits", b"00000000000000003\r\nabc\r\n"),
    ("a size beyond 64 bits", b"fffffffffffffffff\r\nabc\r\n"),
    ("white space before a size", b" 3\r\nabc\r\n"),
    ("white space behind a size", b"3 \r\nabc\r\n"),
    ("a tab behind a size", b"3\t\r\nabc\r\n"),
    ("a bare LF behind a size", b"3\nabc\r\n"),
    ("a bare CR behind a size", b"3\rabc\r\n"),
    ("two CRs behind a size", b"3\r\r\nabc\r\n"),
    ("a bare LF behind a chunk", b"3\r\nabc\n0\r\n\r\n"),
    ("a bare CR behind a chunk", b"3\r\nabc\r0\r\n\r\n"),
    ("a chunk longer than its size", b"2\r\nabc\r\n0\r\n\r\n"),
    ("a chunk shorter than its size", b"5\r\nabc\r\n0\r\n\r\n"),
    ("no line end behind a chunk", b"3\r\nabc0\r\n\r\n"),
    ("an extension without a name", b"3;\r\nabc\r\n"),
    ("an extension without a value", b"3;a=\r\nabc\r\n"),
    ("a quote that does not end", b'3;a="b\r\nabc\r\n'),
    ("a NUL in an extension", b"3;a=\0\r\nabc\r\n"),
    ("a bare LF in an extension", b"3;a\nb\r\nabc\r\n"),
    ("a bare CR in an extension", b"3;a\rb\r\nabc\r\n"),
    ("a space in an extension's name", b"3;a b\r\nabc\r\n"),
    ("a trailer that is none", C3 + b"0\r\nnonsense\r\n\r\n"),
    ("a trailer with a space before the colon", C3 + b"0\r\nA : b\r\n\r\n"),
    ("a folded trailer", C3 + b"0\r\nA: b\r\n c\r\n\r\n"),
    ("a NUL in a trailer", C3 + b"0\r\nA: \0\r\n\r\n"),
    ("a bare LF behind a trailer", C3 + b"0\r\nA: b\nC: d\r\n\r\n"),
    ("a bare LF as the end", C3 + b"0\r\n\n\r\n\r\n"),
    ("a bare LF behind the last size", C3 + b"0\n\r\n"),
):
    add("9112 7.1", _name, chunked(_coded) + NEXT, "400", "closed")
add("9112 7.1.1", "an extension of 5,000 bytes", chunked(b"3;a=" + b"b" * 5_000 + b"\r\nabc\r\n"), "431", "closed")
add("9112 7.1.1", "an extension that does not end", chunked(b"3;a=" + b"b" * 5_000), "431", "closed")
add(
    "9112 7.1.1",
    "extensions of 40,000 bytes together",
    chunked((b"1;a=" + b"b" * 1_000 + b"\r\na\r\n") * 40 + END),
    "431",
    "closed",
)
add(
    "9112 7.1.2",
    "trailers of 40,000 bytes",
    chunked(C3 + b"0\r\n" + b"A: bcdefgh\r\n" * 4_000 + b"\r\n"),
    "431",
    "closed",
)
add(
    "9112 7.1.2",
    "trailers of 40,000 bytes in four reads",
    (chunked(C3 + b"0\r\n"), *(b"A: bcdefgh\r\n" * 1_000 for _ in range(4))),
    "431",
    "closed",
)
add(
    "9112 7.1.2",
    "trailers in single bytes, and the next request",
    tuple(bytes([byte]) for byte in chunked(C3 + b"0\r\nA: b\r\nC:\r\n\r\n") + NEXT),
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add("9112 7.1.2", "trailers that do not end", chunked(C3 + b"0\r\nA: " + b"b" * 40_000), "431", "closed")

# ---- RFC 9112, 9: connections ----

add("9112 9.3", "Connection: close", get(b"Connection: close") + NEXT, "200", "closed", b"GET / ")
add("9112 9.3", "Connection: Close", get(b"Connection: Close") + NEXT, "200", "closed")
add("9112 9.3", "Connection: CLOSE, with white space", get(b"Connection: CLOSE ") + NEXT, "200", "closed")
add("9112 9.3", "close in a list", get(b"Connection: te, close") + NEXT, "200", "closed")
add("9112 9.3", "close first in a list", get(b"Connection: close, te") + NEXT, "200", "closed")
add("9112 9.3", "close in a list without white space", get(b"Connection: te,close,x") + NEXT, "200", "closed")
add("9112 9.3", "close on a second line", get(b"Connection: te", b"Connection: close") + NEXT, "200", "closed")
add("9112 9.3", "close and keep-alive", get(b"Connection: keep-alive, close") + NEXT, "200", "closed")
add(
    "9112 9.3",
    "close and keep-alive, the other way round",
    get(b"Connection: close, keep-alive") + NEXT,
    "200",
    "closed",
)
add("9112 9.3", "closed is another option", get(b"Connection: closed") + NEXT, "200 200", "open")
add("9112 9.3", "unclose is another option", get(b"Connection: unclose") + NEXT, "200 200", "open")
add("9112 9.3", "an empty Connection", get(b"Connection:") + NEXT, "200 200", "open")
add("9112 9.3", "a Connection of commas", get(b"Connection: ,,") + NEXT, "200 200", "open")
add("9112 9.3", "Connection: keep-alive", get(b"Connection: keep-alive") + NEXT, "200 200", "open")
add(
    "9112 9.3",
    "Connection: Content-Length names a header",
    get(b"Connection: content-length", b"Content-Length: 3", method=b"POST") + b"abc" + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add("9112 9.3", "HTTP/1.0 ends", get(version=b"HTTP/1.0") + NEXT, "200", "closed")
add(
    "9112 9.3", "HTTP/1.0 that asks to stay", get(b"Connection: keep-alive", version=b"HTTP/1.0") * 2, "200 200", "open"
)
add(
    "9112 9.3",
    "HTTP/1.0 that asks to stay, in capitals",
    get(b"Connection: Keep-Alive", version=b"HTTP/1.0") + NEXT,
    "200 200",
    "open",
)
add(
    "9112 9.3",
    "HTTP/1.0 with keep-alive and close",
    get(b"Connection: keep-alive, close", version=b"HTTP/1.0") + NEXT,
    "200",
    "closed",
)
add("9112 9.3", "HTTP/1.0 with another option", get(b"Connection: te", version=b"HTTP/1.0") + NEXT, "200", "closed")
add("9112 9.3", "HTTP/1.0 with a body", post(b"abc", version=b"HTTP/1.0"), "200", "closed", b"POST / abc")
add(
    "9112 C.2.2", "Proxy-Connection: close is another header", get(b"Proxy-Connection: close") + NEXT, "200 200", "open"
)
add(
    "9112 C.2.2",
    "Proxy-Connection: keep-alive on HTTP/1.0",
    get(b"Proxy-Connection: keep-alive", version=b"HTTP/1.0") + NEXT,
    "200",
    "closed",
)
add("9112 C.2.2", "Keep-Alive is another header", get(b"Keep-Alive: timeout=1, max=1") + NEXT, "200 200", "open")
add(
    "9112 9.3.2",
    "pipelined requests",
    OK * 3 + NEXT,
    "200 200 200 200",
    "open",
    b"GET / ",
    b"GET / ",
    b"GET / ",
    b"GET /next ",
)
add("9112 9.3.2", "a hundred pipelined requests", OK * 100, " ".join(["200"] * 100), "open")
add(
    "9112 9.3.2",
    "pipelined bodies",
    post(b"a") + post(b"b") + chunked(b"1\r\nc\r\n" + END) + NEXT,
    "200 200 200 200",
    "open",
    b"POST / a",
    b"POST / b",
    b"POST / c",
    b"GET /next ",
)
add("9112 9.3.2", "half a head behind a request", OK + b"GET / HT", "200", "head")
add("9112 9.3.2", "half a head behind a body", post(b"abc") + b"GET / HTTP/1.1\r\nHo", "200", "head")
add("9112 9.3.2", "half a body behind a request", OK + get(b"Content-Length: 3", method=b"POST") + b"a", "200", "body")
add("9112 9.3.2", "a malformed request behind a good one", OK + b"nonsense\r\n\r\n", "200 400", "closed")
add(
    "9112 9.3.2",
    "a malformed request between good ones",
    OK + b"nonsense\r\n\r\n" + NEXT,
    "200 400",
    "closed",
    b"GET / ",
)
add("9112 9.3.2", "a malformed request behind a body", post(b"abc") + b"x", "200", "head")
add("9112 9.3.2", "a malformed chunk behind a request", OK + chunked(b"x\r\n"), "200 400", "closed")
add("9112 9.3.2", "two Hosts behind a good request", OK + get(b"Host: y"), "200 400", "closed")
add("9112 9.3.2", "a version behind a good request", OK + get(version=b"HTTP/2.0"), "200 505", "closed")
add("9112 9.6", "bytes behind Connection: close", get(b"Connection: close") + b"nonsense\r\n\r\n", "200", "closed")
add("9112 9.6", "a head in single bytes", tuple(bytes([byte]) for byte in OK), "200", "open", b"GET / ")
add("9112 9.6", "two heads in single bytes", tuple(bytes([byte]) for byte in OK + NEXT), "200 200", "open")
add("9112 9.6", "half a head", b"GET / HTTP/1.1\r\nHo", "", "head")
add("9112 9.6", "half a method", b"GE", "", "head")
add("9112 9.6", "a head but for its last byte", OK[:-1], "", "head")

# ---- RFC 9110, 7.8: Upgrade ----

for _upgrade in (b"h2c", b"websocket", b"HTTP/3.0", b"TLS/1.0", b"a, b"):
    add(
        "9110 7.8",
        f"Upgrade: {_upgrade.decode()} is ignored",
        get(b"Connection: upgrade", b"Upgrade: " + _upgrade) + NEXT,
        "200 200",
        "open",
        b"GET / ",
        b"GET /next ",
    )
add(
    "9110 7.8",
    "an upgrade with a body",
    post(b"abc", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB") + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add(
    "9110 7.8",
    "an upgrade with chunks",
    chunked(C3 + END, b"Connection: upgrade", b"Upgrade: h2c") + NEXT,
    "200 200",
    "open",
    b"POST / abc",
    b"GET /next ",
)
add("9110 7.8", "an upgrade that closes", get(b"Connection: upgrade, close", b"Upgrade: h2c") + NEXT, "200", "closed")
add("9110 7.8", "Upgrade without its option", get(b"Upgrade: h2c") + NEXT, "200 200", "open")
add("9110 7.8", "the option without Upgrade", get(b"Connection: upgrade") + NEXT, "200 200", "open")
add(
    "9110 7.8",
    "an upgrade on HTTP/1.0",
    get(b"Connection: upgrade", b"Upgrade: h2c", version=b"HTTP/1.0"),
    "200",
    "closed",
)

# ---- RFC 9110, 10.1.1: Expect ----

_expecting = get(b"Content-Length: 3", b"Expect: 100-continue", method=b"POST")
add("9110 10.1.1", "100-continue", _expecting, "100", "body")
add("9110 10.1.1", "100-continue, and the body", (_expecting, b"abc"), "100 200", "open", b"POST / abc")
add("9110 10.1.1", "100-continue with its body", _expecting + b"abc", "200", "open", b"POST / abc")
add(
    "9110 10.1.1",
    "100-continue in capitals",
    get(b"Content-Length: 3", b"Expect: 100-CONTINUE", method=b"POST"),
    "100",
    "body",
)
add(
    "9110 5.5",
    "100-continue with white space",
    get(b"Content-Length: 3", b"Expect:  100-continue \t", method=b"POST"),
    "100",
    "body",
)
add(
    "9110 10.1.1",
    "100-continue of chunks",
    (get(b"Transfer-Encoding: chunked", b"Expect: 100-continue", method=b"POST"), C3 + END),
    "100 200",
    "open",
    b"POST / abc",
)
add("9110 10.1.1", "100-continue without a body", get(b"Expect: 100-continue"), "200", "open")
add(
    "9110 10.1.1",
    "100-continue with an empty body",
    get(b"Expect: 100-continue", b"Content-Length: 0", method=b"POST"),
    "200",
    "open",
)
add(
    "9110 10.1.1",
    "100-continue on HTTP/1.0 is ignored",
    get(b"Content-Length: 3", b"Expect: 100-continue", method=b"POST", version=b"HTTP/1.0"),
    "",
    "body",
)
for _expect in (b"", b" ", b",", b", ,"):
    add(
        "9110 10.1.1",
        f"Expect {_expect!r} expects nothing",
        get(b"Content-Length: 3", b"Expect:" + _expect, method=b"POST"),
        "",
        "body",
    )
add("9110 10.1.1", "another expectation", get(b"Expect: x-other"), "417", "closed")
add(
    "9110 10.1.1",
    "another expectation next to 100-continue",
    get(b"Expect: x-other, 100-continue", b"Content-Length: 3", method=b"POST") + b"abc",
    "417",
    "closed",
)
add(
    "9110 10.1.1",
    "another expectation behind 100-continue",
    get(b"Expect: 100-continue, x-other", b"Content-Length: 3", method=b"POST"),
    "417",
    "closed",
)
add(
    "9110 10.1.1",
    "another expectation on its own line",
    get(b"Expect: 100-continue", b"Expect: x-other", b"Content-Length: 3", method=b"POST"),
    "417",
    "closed",
)
add(
    "9110 10.1.1",
    "another expectation on HTTP/1.0 is ignored",
    get(b"Expect: x-other", version=b"HTTP/1.0"),
    "200",
    "closed",
)
add(
    "9110 10.1.1",
    "a response that does not wait ends the connection",
    get(b"Content-Length: 3", b"Expect: 100-continue", method=b"POST", target=b"/early"),
    "200",
    "closed",
)
add(
    "9110 9.3",
    "a response that does not wait, and the rest of a small body",
    (get(b"Content-Length: 3", method=b"POST", target=b"/early") + b"a", b"bc" + NEXT),
    "200 200",
    "open",
)
add(
    "9112 9.6",
    "a response that does not wait for a large body",
    (get(b"Content-Length: 1000000", method=b"POST", target=b"/early") + b"a", b"bc" + NEXT),
    "200",
    "closed",
)
add(
    "9112 9.6",
    "a response that does not wait for chunks",
    (get(b"Transfer-Encoding: chunked", method=b"POST", target=b"/early"), C3 + END + NEXT),
    "200",
    "closed",
)
add("9110 5.3", "two values of a header in two lines", get(b"A: b", b"A: c"), "200", "open")

VECTORS = [
    Vector(
        section,
        name,
        sent if isinstance(sent, tuple) else (sent,),
        [int(status) for status in statuses.split()],
        after,
        got,
    )
    for section, name, sent, statuses, after, got in _rows
]
