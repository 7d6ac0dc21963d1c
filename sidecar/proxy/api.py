"""The proxy over HTTP: all below ``/proxy/``, by any method that llhttp knows."""

from sidecar.http.routing import Body, Route, problems
from sidecar.proxy.proxy import Proxy

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def routes(proxy: Proxy) -> list[Route]:
    """Return the routes, a row for each method that clients use."""
    return [
        Route(
            method=method,
            path="/proxy/{route}/{path}",
            stream=proxy.handle,
            summary="Call the upstream of a route",
            tag="Proxy",
            responses={
                200: Body("Whatever the upstream answers, with its status."),
                204: Body("A rule, or the route, says that this is not passed on."),
                **problems(
                    _400="The path has segments of dots, or the body is not what its type says.",
                    _404="There is no such route.",
                    _408="The body did not arrive in time.",
                    _413="The body is too large to be redacted.",
                    _415="The body is of a type that cannot be redacted.",
                    _429="There is no room for the body.",
                    _502="The upstream cannot be reached, or its answer could not be redacted.",
                    _503="Shutting down, or too many calls of this route are under way.",
                    _504="The upstream took too long, or only-if-cached is not in the cache.",
                    _508="The upstream leads back here.",
                ),
            },
        )
        for method in _METHODS
    ]
