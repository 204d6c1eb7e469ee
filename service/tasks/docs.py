"""`/openapi.json` and `/docs`: the description of the service, for programs and as Swagger UI's page.

Swagger UI's files come from an installed package, so that the page works without internet. Knows that they are files.
Must not know what the description says.
"""

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from litestar import Response, Router, route
from litestar.params import FromPath

from service.http import errors
from service.http.asgi import GET_AND_HEAD

# What the page may load: its own files and nothing from elsewhere. Swagger UI sets styles from its script and has its
# icons as data: URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Task service</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<style>body { margin: 0 }</style>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
"""
_START = b"""\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""
_JAVASCRIPT = "text/javascript"


def router(document: bytes) -> Router:
    """`/openapi.json`, which is `document`; `/docs` and its files."""

    @route("/openapi.json", http_method=GET_AND_HEAD, sync_to_thread=False)
    def openapi() -> Response[bytes]:
        return _answer(document, "application/json")

    @route("/docs", http_method=GET_AND_HEAD, sync_to_thread=False)
    def docs() -> Response[bytes]:
        return _answer(_PAGE, "text/html", **{"content-security-policy": CONTENT_SECURITY_POLICY})

    @route("/docs/{name:str}", http_method=GET_AND_HEAD, sync_to_thread=True)
    def docs_file(name: FromPath[str]) -> Response[bytes]:
        if name == "start.js":
            return _answer(_START, _JAVASCRIPT)
        if name not in _FILES:
            raise errors.not_found()
        source, media_type = _FILES[name]
        return _answer(_read(source), media_type, **{"cache-control": "max-age=86400"})

    return Router("/", route_handlers=[openapi, docs, docs_file])


_FILES = {
    "swagger-ui.css": ("swagger_style.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger_bundle.js", _JAVASCRIPT),
}


@cache
def _read(name: str) -> bytes:
    # The package is not imported: it would read all its files, 9 MB of them.
    return Path(str(distribution("offapi").locate_file("offapi"))).joinpath(name).read_bytes()


def _answer(body: bytes, media_type: str, **headers: str) -> Response[bytes]:
    return Response(
        body,
        media_type=media_type,
        headers={"cache-control": "no-cache"} | headers,
    )
