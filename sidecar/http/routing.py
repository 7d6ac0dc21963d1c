"""The table of routes: one row an operation, from which both serving and OpenAPI are made."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sidecar.http.messages import (
    Handler,
    HTTPError,
    Problem,
    Request,
    Response,
    StreamHandler,
)


class Body(msgspec.Struct, frozen=True):
    """The body of a request or response, for the documentation.

    Attributes:
        description: one sentence.
        content: media type → the msgspec type of its JSON, or ``str`` or ``bytes`` for what is
            not JSON.
        example: a JSON value that the documentation offers to try.
    """

    description: str
    content: Mapping[str, Any] = {}
    example: Any = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of the API.

    Attributes:
        method: upper case. A ``GET`` route answers ``HEAD`` too.
        path: literal, or with ``{names}`` where a streaming handler answers all that begins as it
            does, by any method.
        handler: what answers it, or None.
        stream: what answers it piece by piece, or None.
        summary: one line for the documentation.
        tag: the group it stands in there.
        query: a Struct whose fields are the query parameters (text), or None.
        request: the body it takes, or None.
        responses: status → body; statuses that any request may get (400, 413, …) included.
        direct: served without Quart. So are all routes that take a body or must be fast.
    """

    method: str
    path: str
    handler: Handler | None = None
    stream: StreamHandler | None = None
    summary: str
    tag: str
    query: type[msgspec.Struct] | None = None
    request: Body | None = None
    responses: Mapping[int, Body]
    direct: bool = True


PROBLEM = {"application/problem+json": Problem}


def problems(**descriptions: str) -> dict[int, Body]:
    """Return documented error responses: ``problems(_400="Malformed JSON.", …)``."""
    return {
        int(status.removeprefix("_")): Body(text, PROBLEM) for status, text in descriptions.items()
    }


class Router:
    """Finds the handler of a request among routes with literal paths."""

    def __init__(self, routes: list[Route]) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}
        for route in routes:
            if route.handler is None:
                continue
            methods = self._handlers.setdefault(route.path, {})
            methods[route.method] = route.handler
            if route.method == "GET":
                methods["HEAD"] = route.handler

    def __contains__(self, path: str) -> bool:
        """Tell whether any method of this path is here."""
        return path in self._handlers

    async def __call__(self, request: Request) -> Response:
        """Answer the request; raises `HTTPError` 404 or 405 when no route does."""
        methods = self._handlers.get(request.path)
        if methods is None:
            raise HTTPError(404, "There is nothing at this path.")
        handler = methods.get(request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            raise HTTPError(405, f"This path takes {allowed}.", {"allow": allowed})
        return await handler(request)
