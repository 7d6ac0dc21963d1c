"""Health: what kubelet, Prometheus and people are told of the process."""

from typing import Literal

import msgspec
from prometheus_client.exposition import choose_encoder

from sidecar.cache.tiers import Cache
from sidecar.http.messages import Request, Response, json_response
from sidecar.http.routing import Body, Route
from sidecar.metrics import REGISTRY
from sidecar.pipeline.dispatch import ExporterState, Pipeline
from sidecar.redaction.reload import RulesInForce

_STUCK_SECONDS = 60.0


class Check(msgspec.Struct):
    """One part of the process: whether it works, and one line about it."""

    ok: bool
    detail: str


class HealthResponse(msgspec.Struct):
    """What `GET /health` answers."""

    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    redis_connected: bool
    loki_configured: bool
    checks: dict[str, Check]


class ServiceResponse(msgspec.Struct):
    """What `GET /healthz` answers."""

    ok: bool
    service: str


class LiveResponse(msgspec.Struct):
    """What `GET /livez` answers."""

    ok: bool


class ReadyResponse(msgspec.Struct):
    """What `GET /readyz` answers; exporters that are stuck are named, but change nothing in it.

    A target that is down must not take the pod out of service.
    """

    ok: bool
    stuck_exporters: list[str]


class Health:
    """The state of the process.

    Args:
        version: reported by `GET /health`.
        cache, pipeline, rules: what is looked at.
        redis_configured, loki_configured: by the settings.

    Attributes:
        started: all listeners accept.
        stopping: the process is on its way out.
    """

    def __init__(
        self,
        version: str,
        cache: Cache,
        pipeline: Pipeline,
        rules: RulesInForce,
        *,
        redis_configured: bool,
        loki_configured: bool,
    ) -> None:
        self._version = version
        self._cache = cache
        self._pipeline = pipeline
        self._rules = rules
        self._redis_configured = redis_configured
        self._loki_configured = loki_configured
        self.started = False
        self.stopping = False

    @property
    def ready(self) -> bool:
        """Tell whether requests should come here."""
        return self.started and not self.stopping

    def report(self) -> HealthResponse:
        """Return the whole state.

        ``unhealthy`` while it starts or stops; ``degraded`` when Redis is configured and away, an
        exporter fails, the queue takes nothing in, or a change of the rules was refused, since
        requests are still answered then.
        """
        checks = {
            "rules": self._rules_check(),
            "redis": self._redis_check(),
            "queue": self._queue_check(),
        }
        for state in self._pipeline.states:
            checks[f"exporter_{state.name}"] = Check(state.ok, self._export_detail(state))
        good = all(check.ok for check in checks.values())
        return HealthResponse(
            "unhealthy" if not self.ready else "healthy" if good else "degraded",
            self._version,
            self._cache.redis_connected,
            self._loki_configured,
            checks,
        )

    def _rules_check(self) -> Check:
        detail = f"{len(self._rules.engine.rules.rules)} rules in force"
        refused = self._rules.refused
        if refused is None:
            return Check(True, detail)
        when = f"{refused.at:%H:%M:%S}Z"
        return Check(False, f"{detail}; the change of {when} was refused: {refused.reason}")

    def _queue_check(self) -> Check:
        queue = self._pipeline.queue
        if queue.failing is not None:
            return Check(False, f"nothing can be taken in: {queue.failing}")
        waiting = sum(sum(records.values()) for records in queue.left().values())
        return Check(True, f"{'on disk' if queue.durable else 'in memory'}, {waiting} records wait")

    def _export_detail(self, state: ExporterState) -> str:
        if state.ok:
            return "exporting"
        age = self._pipeline.queue.age(state.name)
        how = "stuck" if state.name in self.stuck_exporters else "failing"
        return f"{how}: {state.error}; the oldest record has waited for {age:.0f} s"

    @property
    def stuck_exporters(self) -> list[str]:
        """The names of the exporters that fail while records have waited for a minute."""
        queue = self._pipeline.queue
        return [
            state.name
            for state in self._pipeline.states
            if not state.ok and queue.age(state.name) > _STUCK_SECONDS
        ]

    def _redis_check(self) -> Check:
        if not self._redis_configured:
            return Check(True, "not configured; the cache is in memory")
        if self._cache.redis_connected:
            return Check(True, "connected")
        return Check(False, "not reachable; the cache is in memory until it is")


def routes(health: Health) -> list[Route]:
    """Return the routes that both the API and the cluster's listener have."""

    async def full(_: Request) -> Response:
        return json_response(health.report())

    async def service(_: Request) -> Response:
        return json_response(ServiceResponse(True, "telemetry-cache"))

    async def live(_: Request) -> Response:
        return json_response(LiveResponse(True))

    async def ready(_: Request) -> Response:
        answer = ReadyResponse(health.ready, health.stuck_exporters)
        return json_response(answer, 200 if health.ready else 503)

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(200, {"content-type": content_type}, encode(REGISTRY))

    readiness = {
        200: Body("Yes.", {"application/json": ReadyResponse}),
        503: Body("No.", {"application/json": ReadyResponse}),
    }
    table = [
        ("/health", full, "The state of every part", {200: _json("The state.", HealthResponse)}),
        ("/healthz", service, "Which service this is", {200: _json("It.", ServiceResponse)}),
        ("/livez", live, "Is the process alive?", {200: _json("Yes.", LiveResponse)}),
        ("/readyz", ready, "Should requests come here?", readiness),
        (
            "/metrics",
            metrics,
            "Prometheus metrics (OpenMetrics on request)",
            {200: Body("The metrics.", {"text/plain": str, "application/openmetrics-text": str})},
        ),
    ]
    return [
        Route(
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            tag="Health and metrics",
            responses=responses,
        )
        for path, handler, summary, responses in table
    ]


def _json(description: str, kind: type[msgspec.Struct]) -> Body:
    return Body(description, {"application/json": kind})
