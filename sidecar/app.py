"""The process: what is started and stopped, in which order.

One nursery owns every task. The start makes the parts from the inside out and only then listens;
the stop goes the other way: not ready, no new requests, what is in flight, the queue, the rest.
"""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import msgspec
import structlog
import trio

from sidecar import exporters, metrics
from sidecar.admin import health as health_api
from sidecar.admin import redactions as redactions_api
from sidecar.admin.health import Health
from sidecar.cache import api as cache_api
from sidecar.cache.tiers import Cache
from sidecar.http.asgi import Application, ASGIApp
from sidecar.http.openapi import document
from sidecar.http.pages import create_app
from sidecar.http.server import bind, serve
from sidecar.pipeline.dispatch import Pipeline
from sidecar.receivers import events, otlp_http
from sidecar.receivers.intake import Intake
from sidecar.receivers.otlp_grpc import GrpcReceiver
from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Redactions
from sidecar.redaction.rules import load_rules
from sidecar.settings import Settings

_log = structlog.get_logger(__name__)


class StartError(Exception):
    """The process cannot start; the message is one line for the operator."""


class Listener(msgspec.Struct, frozen=True):
    """One socket and what is served on it."""

    name: str
    sock: socket.socket
    app: ASGIApp


class Sidecar:
    """All parts of the process, made but not started.

    Args:
        settings: checked ones.

    Raises:
        RulesError: the rules folder cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stopping = trio.Event()
        engine = Engine(load_rules(settings.rules_dir), settings.sidecar_hash_key.encode())
        redactions = Redactions()
        self.cache = Cache.from_url(settings.redis_url, settings.sidecar_cache_bytes)
        self.pipeline = Pipeline(
            exporters.build(settings), queue_bytes=settings.sidecar_queue_bytes
        )
        self.health = Health(
            settings.telemetry_cache_version,
            self.cache,
            self.pipeline,
            engine,
            redis_configured=bool(settings.redis_url),
            loki_configured=bool(settings.loki_url),
        )
        limit = settings.sidecar_max_body_bytes
        intake = Intake(engine, self.pipeline.put, redactions, self._stopping.is_set)
        self._otlp = otlp_http.routes(intake, limit)
        self._admin = health_api.routes(self.health)
        self._api = [
            *events.routes(intake, limit),
            *cache_api.routes(self.cache, limit),
            *redactions_api.routes(engine, redactions, limit),
            *self._otlp,
            *self._admin,
        ]
        self._grpc = GrpcReceiver(intake, limit)
        metrics.BUILD_INFO.labels(settings.telemetry_cache_version).set(1)
        metrics.RULES.set(len(engine.rules.rules))

    def stop(self) -> None:
        """Begin the stop: not ready from now on."""
        self.health.stopping = True
        self._stopping.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called, then finish what is in flight and flush the queue.

        Raises:
            StartError: a port cannot be had.
        """
        drain_seconds = self.settings.sidecar_drain_seconds
        with ExitStack() as sockets:
            listeners = [sockets.enter_context(listener) for listener in self._listeners()]
            async with trio.open_nursery() as nursery:
                await nursery.start(self.cache.run)
                nursery.start_soon(self.pipeline.run)
                async with trio.open_nursery() as servers:
                    for listener in listeners:
                        await servers.start(
                            partial(
                                serve,
                                listener.app,
                                listener.sock,
                                stopping=self._stopping,
                                grace_seconds=drain_seconds,
                            )
                        )
                    self.health.started = True
                    self._log_ready(listeners)
                    task_status.started()
                with trio.move_on_after(drain_seconds):
                    await self.pipeline.drained()
                nursery.cancel_scope.cancel()
        _log.info("stopped")

    def _listeners(self) -> Iterator[Listener]:
        """Bind every socket, so that a taken port is known before anything runs."""
        settings = self.settings
        host = settings.sidecar_host
        api = Application(
            self._api,
            fallback=create_app(self._api, document(self._api, settings.telemetry_cache_version)),
        )
        otlp = Application(self._otlp)
        admin = Application(self._admin)
        for name, variable, listen_host, port, app in (
            ("api", "SIDECAR_PORT", host, settings.sidecar_port, api),
            ("otlp_http", "SIDECAR_OTLP_HTTP_PORT", host, settings.sidecar_otlp_http_port, otlp),
            (
                "otlp_grpc",
                "SIDECAR_OTLP_GRPC_PORT",
                host,
                settings.sidecar_otlp_grpc_port,
                self._grpc,
            ),
            (
                "metrics",
                "PROMETHEUS_PORT",
                settings.sidecar_metrics_host,
                settings.prometheus_port,
                admin,
            ),
        ):
            if port:
                try:
                    sock = bind(listen_host, port)
                except OSError as error:
                    raise StartError(
                        f"{variable}='{port}': cannot listen on {listen_host}:{port}: "
                        f"{error.strerror}"
                    ) from None
                yield Listener(name, sock, app)

    def _log_ready(self, listeners: list[Listener]) -> None:
        _log.info(
            "ready",
            version=self.settings.telemetry_cache_version,
            exporters=self.settings.exporters,
            **{listener.name: listener.sock.getsockname()[1] for listener in listeners},
        )


async def stop_on_signal(sidecar: Sidecar, task_status: trio.TaskStatus[None]) -> None:
    """Stop the sidecar on SIGTERM or SIGINT; a second one ends the process at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            _log.info("stopping", signal=signal.Signals(number).name)
            sidecar.stop()
            return
