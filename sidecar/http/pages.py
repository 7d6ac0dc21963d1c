"""The Quart app: cold routes, and the documentation pages with all they need.

The pages load nothing from elsewhere, and their content security policy does not let them.
"""

import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import trio
from quart import Response as QuartResponse
from quart import request as quart_request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, NotFound

from sidecar.http.asgi import ASGIApp, join_headers
from sidecar.http.failures import log_failure
from sidecar.http.messages import Handler, HTTPError, Request, Response, problem
from sidecar.http.routing import Route

_STATIC = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
# Both pages set styles inline, and have their pictures as data: URLs.
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# Addresses are relative, so that the pages work behind a proxy that adds a prefix.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Telemetry sidecar: API</title>
<link rel="icon" href="static/favicon-32x32.png">
{style}</head>
<body>
<div id="page"></div>
<script src="static/{library}"></script>
<script src="static/{start}"></script>
</body>
</html>
"""
_DOCS = _PAGE.format(
    style='<link rel="stylesheet" href="static/swagger-ui.css">\n',
    library="swagger-ui-bundle.js",
    start="docs.js",
)
_REDOCS = _PAGE.format(
    style="<style>body { margin: 0 }</style>\n", library="redoc.standalone.js", start="redocs.js"
)

_View = Callable[..., Awaitable[QuartResponse]]


def create_app(routes: list[Route], document: dict[str, Any]) -> ASGIApp:
    """Return the Quart app, as the fallback of an `Application`.

    It serves every route that is not direct, ``/openapi.json``, and the pages ``/docs`` (Swagger
    UI) and ``/redocs`` (ReDoc) with their assets under ``/static/``. Errors are
    ``application/problem+json``.

    Args:
        routes: of which those with ``direct=False`` are served.
        document: the OpenAPI document.
    """
    app = QuartTrio("sidecar", static_folder=None)
    # A path is what the table says; nothing is redirected to a cleaner one.
    app.url_map.merge_slashes = False
    for route in routes:
        if route.handler is not None and not route.direct:
            _add(app, route.method, route.path, _view(route.handler))
    encoded = msgspec.json.encode(document)
    _add(app, "GET", "/openapi.json", _constant(encoded, {"content-type": "application/json"}))
    _add(app, "GET", "/docs", _constant(_DOCS.encode(), _PAGE_HEADERS))
    _add(app, "GET", "/redocs", _constant(_REDOCS.encode(), _PAGE_HEADERS))
    _add(app, "GET", "/static/<name>", _asset)
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(HTTPError, _refused_by_handler)
    app.register_error_handler(Exception, _failed)
    return cast(ASGIApp, app)


def _add(app: QuartTrio, method: str, path: str, view: _View) -> None:
    app.add_url_rule(
        path,
        endpoint=f"{method} {path}",
        view_func=view,
        methods=[method],
        provide_automatic_options=False,
    )


def _view(handler: Handler) -> _View:
    async def view() -> QuartResponse:
        return _quart(
            await handler(
                Request(
                    method=quart_request.method,
                    path=quart_request.path,
                    query=quart_request.query_string.decode("latin-1"),
                    headers=join_headers(quart_request.scope["headers"]),
                    receive=_no_body,
                )
            )
        )

    return view


async def _no_body() -> bytes:
    # A route that takes a body is direct.
    return b""


def _constant(body: bytes, headers: dict[str, str]) -> _View:
    async def view() -> QuartResponse:
        return _quart(Response(200, headers, body))

    return view


def _quart(response: Response) -> QuartResponse:
    return QuartResponse(response.body, status=response.status, headers=response.headers)


async def _asset(name: str) -> QuartResponse:
    # Looked up in the folder's listing, so no name can lead out of it.
    files = {path.name: path for path in _STATIC.iterdir()}
    media_type = _MEDIA_TYPES.get(Path(name).suffix)
    if media_type is None or not files.keys() & {name, f"{name}.gz"}:
        raise NotFound
    headers = {
        "content-type": media_type,
        "cache-control": "max-age=3600",
        "x-content-type-options": "nosniff",
    }
    if name in files:
        return _quart(Response(200, headers, await trio.Path(files[name]).read_bytes()))
    headers["vary"] = "accept-encoding"
    body = await trio.Path(files[f"{name}.gz"]).read_bytes()
    if quart_request.accept_encodings.quality("gzip") > 0:
        headers["content-encoding"] = "gzip"
    else:
        body = await trio.to_thread.run_sync(gzip.decompress, body)
    return _quart(Response(200, headers, body))


async def _refused(error: HTTPException) -> QuartResponse:
    headers = {}
    if error.code == 405:
        headers["allow"] = ", ".join(sorted(getattr(error, "valid_methods", None) or []))
    detail = {
        404: "There is nothing at this path; GET /docs lists what there is.",
        405: f"This path takes {headers.get('allow')}.",
    }.get(error.code or 500, error.name + ".")
    return _quart(problem(HTTPError(error.code or 500, detail, headers)))


async def _refused_by_handler(error: HTTPError) -> QuartResponse:
    return _quart(problem(error))


async def _failed(error: Exception) -> QuartResponse:
    log_failure(error)
    return _quart(problem(HTTPError(500, "The sidecar failed; its log says where.")))
