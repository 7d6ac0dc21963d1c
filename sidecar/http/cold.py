"""The application of cold routes, made when the first of them is asked for.

Most processes never serve one, and the library behind them takes 8 MiB and a quarter of a second.
"""

import trio

from sidecar.http.asgi import ASGIApp, Receive, Scope, Send
from sidecar.http.routing import Route


class ColdRoutes:
    """An ASGI application, see `sidecar.http.pages.create_app`.

    Args:
        routes: of which those that are not direct are served.
        version: of the API.
    """

    def __init__(self, routes: list[Route], version: str) -> None:
        self._routes = routes
        self._version = version
        self._app: ASGIApp | None = None
        self._making = trio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        async with self._making:
            if self._app is None:
                # In a thread, so that nothing waits for it but those who want it.
                self._app = await trio.to_thread.run_sync(self._make)
        await self._app(scope, receive, send)

    def _make(self) -> ASGIApp:
        from sidecar.http.openapi import document
        from sidecar.http.pages import create_app

        return create_app(self._routes, document(self._routes, self._version))
