"""The routes in force.

They change with the rules, as a whole: a call keeps the route that it began with. The connections
of a route that stays as it is stay too; those of one that has gone, or has changed, are closed when
the last call has ended that began with it.
"""

import msgspec
import trio

from sidecar.http.messages import HTTPError
from sidecar.proxy.route import ProxyRoute
from sidecar.proxy.upstream import Upstream
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.reload import RulesInForce

# So often connections that are no longer used are looked for.
_TICK_SECONDS = 10.0


class Destination(msgspec.Struct, frozen=True):
    """One route in force.

    Attributes:
        route: as it is declared.
        upstream: the way there.
        redactor: the rules for what passes.
        cache_name: what its answers are kept under. Answers that were redacted are so by the rules
            of their time, so other rules have other answers.
    """

    route: ProxyRoute
    upstream: Upstream
    redactor: Redactor
    cache_name: str


class Destinations:
    """All routes in force.

    Args:
        rules: that declare them.
    """

    def __init__(self, rules: RulesInForce) -> None:
        self._rules = rules
        self._engine = rules.engine
        self._all = self._build({})
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Close connections that are no longer wanted, until cancelled; then all."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    await trio.sleep(_TICK_SECONDS)
                    for destination in self._all.values():
                        destination.upstream.close_expired()
        finally:
            for destination in self._all.values():
                destination.upstream.close()

    def find(self, name: str) -> Destination:
        """Return the route of this name; raises `HTTPError` 404 when there is none."""
        if self._rules.engine is not self._engine:
            self._renew()
        try:
            return self._all[name]
        except KeyError:
            raise HTTPError(404, "There is no route of this name in the rules folder.") from None

    def _renew(self) -> None:
        before, self._engine = self._all, self._rules.engine
        self._all = self._build(before)
        kept = {id(destination.upstream) for destination in self._all.values()}
        for destination in before.values():
            if id(destination.upstream) not in kept and self._nursery is not None:
                self._nursery.start_soon(destination.upstream.retire)

    def _build(self, before: dict[str, Destination]) -> dict[str, Destination]:
        digest = self._rules.digest[:16]
        destinations = {}
        for route in self._engine.rules.routes:
            old = before.get(route.name)
            destinations[route.name] = Destination(
                route,
                old.upstream if old is not None and old.route == route else Upstream(route),
                self._engine.redactor("http").exempting(route.keep),
                f"{route.name}:{digest}" if route.redacts_response else route.name,
            )
        return destinations
