"""`/openapi.json` and `/docs`: the description of the service, for programs and as Swagger UI's page.

Swagger UI's files come from the package offapi, so that the page works without internet. People paste tokens into this
page, so its scripts are checked: only the very bytes of Swagger's own release are served, and the browser checks them
again. The description comes as bytes: must not import service.tasks.openapi.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Router, route
from litestar.params import FromPath

from service.http import errors
from service.http.asgi import GET_AND_HEAD, line
from service.http.request_record import record_of
from service.http.responses import EmptyResponse, Response

_JAVASCRIPT = "text/javascript"


class SwaggerFile(msgspec.Struct, frozen=True):
    """A file of npm's swagger-ui-dist. `source` is its name in offapi."""

    source: str
    media_type: str
    sha256: str


SWAGGER_UI_VERSION = "5.33.1"  # the hashes are those of npm's swagger-ui-dist of this version
SWAGGER_UI = {
    "swagger-ui.css": SwaggerFile(
        "swagger_style.css", "text/css", "1ac324f7dcd27e4b9386b4bd6421271ec147e922a22c05ba24b11515e9aa6321"
    ),
    "swagger-ui-bundle.js": SwaggerFile(
        "swagger_bundle.js", _JAVASCRIPT, "050bc415ee7048dcd881682678f720264e7da5e373f7461d7c58c755305255f7"
    ),
}

# What the page may load: its own files and nothing from elsewhere. Swagger UI sets styles from its script and has its
# icons as data: URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def _integrity(name: str) -> str:
    """The file's hash as Subresource Integrity writes it."""
    return "sha256-" + b64encode(bytes.fromhex(SWAGGER_UI[name].sha256)).decode()


# The links are relative, so that they hold behind a proxy that strips a prefix.
_PAGE = f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Task service</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css" integrity="{_integrity("swagger-ui.css")}">
<style>body {{ margin: 0 }}</style>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js" integrity="{_integrity("swagger-ui-bundle.js")}"></script>
<script src="docs/start.js"></script>
""".encode()
_START = b"""\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  validatorUrl: null,
});
"""


def router(document: Callable[[str], bytes]) -> Router:
    """`/openapi.json`, which is `document` of the prefix that a proxy strips; `/docs` and its files."""

    @route("/openapi.json", http_method=GET_AND_HEAD, sync_to_thread=False)
    def openapi(request: Request[Any, Any, Any]) -> Response:
        return _response(document(record_of(request.scope).prefix), "application/json")

    @route("/docs", http_method=GET_AND_HEAD, sync_to_thread=False)
    def docs() -> Response:
        return _response(_PAGE, "text/html", **{"content-security-policy": CONTENT_SECURITY_POLICY})

    @route("/docs/{name:str}", http_method=GET_AND_HEAD, sync_to_thread=True)
    def docs_file(name: FromPath[str]) -> Response:
        if name == "start.js":
            return _response(_START, _JAVASCRIPT)
        if name not in SWAGGER_UI:
            raise errors.not_found()
        return _response(swagger_file(name), SWAGGER_UI[name].media_type, **{"cache-control": "max-age=86400"})

    @route("/", http_method=GET_AND_HEAD, sync_to_thread=False)
    def root(request: Request[Any, Any, Any]) -> EmptyResponse:
        return EmptyResponse(307, line(b"location", f"{record_of(request.scope).prefix}/docs".encode()))

    return Router("/", route_handlers=[root, openapi, docs, docs_file])


@cache
def swagger_file(name: str) -> bytes:
    """The bytes of a file of SWAGGER_UI. Raises RuntimeError where they are not Swagger's own."""
    file = SWAGGER_UI[name]
    # The package is not imported: it would read all its files, 9 MB of them.
    content = Path(str(distribution("offapi").locate_file("offapi"))).joinpath(file.source).read_bytes()
    if sha256(content).hexdigest() != file.sha256:
        raise RuntimeError(f"offapi's {file.source} is not {name} of swagger-ui-dist {SWAGGER_UI_VERSION}")
    return content


def _response(body: bytes, media_type: str, **headers: str) -> Response:
    sent = {"cache-control": "no-cache"} | headers
    charset = "; charset=utf-8" if media_type.startswith("text/") else ""
    return Response(
        200,
        body,
        b"".join(line(name.encode(), value.encode()) for name, value in sent.items()),
        content_type=line(b"content-type", f"{media_type}{charset}".encode()),
        shared=True,
    )
