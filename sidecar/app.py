"""The process: what is started and stopped, in which order.

One nursery owns every task. The start makes the parts from the inside out and only then listens;
the stop goes the other way: not ready, no new requests, what is in flight, the queue, the rest.
"""

import gc
import math
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module

import msgspec
import structlog
import trio

from sidecar import exporters, metrics
from sidecar.admin import health as health_api
from sidecar.admin import redactions as redactions_api
from sidecar.admin.health import Health
from sidecar.cache import api as cache_api
from sidecar.cache.tiers import Cache
from sidecar.http import http1
from sidecar.http.application import Application
from sidecar.http.asgi import ASGIApp
from sidecar.http.cold import ColdRoutes
from sidecar.http.listening import bind
from sidecar.pipeline.dispatch import Pipeline
from sidecar.pipeline.queue import Queue
from sidecar.pressure import Pressure, memory_limit
from sidecar.proxy import api as proxy_api
from sidecar.proxy.proxy import Proxy
from sidecar.receivers import events, otlp_http
from sidecar.receivers.intake import Intake
from sidecar.receivers.otlp_grpc import GrpcReceiver
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Redactions
from sidecar.settings import Settings

_log = structlog.get_logger(__name__)


# A thread that computes lets another one run after this. The event loop gives way several times for
# each request, so with the default of 5 ms a request would wait for tens of them.
_SWITCH_SECONDS = 0.001
# What is left to requests that take nothing in, once the queue is flushed.
_GRACE_SECONDS = 2.0


class StartError(Exception):
    """The process cannot start; the message is one line for the operator."""


class Listener(msgspec.Struct, frozen=True):
    """One socket and what serves on it."""

    name: str
    sock: socket.socket
    serve: Callable[..., Awaitable[None]]


class Sidecar:
    """All parts of the process, made but not started: `listen`, then `run`.

    Args:
        settings: checked ones.

    Raises:
        RulesError: the rules folder cannot be used.
        SettingsError: the Redis URL cannot be used after all.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stopping = trio.Event()
        self._flushed = trio.Event()
        self._drain_ends = math.inf
        self._listeners: list[Listener] = []
        self._rules = rules = RulesInForce(settings.rules_dir, settings.sidecar_hash_key.encode())
        redactions = Redactions()
        self.cache = Cache.from_url(
            settings.redis_url, settings.sidecar_cache_bytes, settings.sidecar_cache_key_file
        )
        built = exporters.build(settings)
        queue = Queue(
            {exporter.name: exporter.signals for exporter in built},
            max_bytes=settings.queue_bytes,
            max_age=settings.sidecar_queue_max_age,
            directory=settings.queue_dir,
            fsync=settings.sidecar_queue_sync == "full",
            linger=settings.sidecar_batch_seconds,
        )
        self.pipeline = Pipeline(built, queue)
        self.health = Health(
            settings.telemetry_cache_version,
            self.cache,
            self.pipeline,
            rules,
            redis_configured=bool(settings.redis_url),
            loki_configured=bool(settings.loki_url),
        )
        limit = settings.sidecar_max_body_bytes
        self._pressure = Pressure(limit, memory_limit(settings.sidecar_memory_limit))
        self._intake = intake = Intake(
            rules, queue.pack, self.pipeline.put, redactions, self._pressure, self._stopping.is_set
        )
        self._proxy = Proxy(
            rules, self.cache, redactions, self._pressure, limit, self._stopping.is_set
        )
        self._otlp = otlp_http.routes(intake, limit)
        self._admin = health_api.routes(self.health)
        self._api = [
            *events.routes(intake, limit),
            *cache_api.routes(self.cache, limit),
            *redactions_api.routes(rules, redactions, limit),
            *proxy_api.routes(self._proxy),
            *self._otlp,
            *self._admin,
        ]
        self._grpc = GrpcReceiver(intake, limit, self._pressure)
        metrics.BUILD_INFO.labels(settings.telemetry_cache_version).set(1)

    def listen(self) -> None:
        """Bind every port, so that one that is taken is known before anything runs.

        Raises:
            StartError: a port cannot be had.
        """
        settings = self.settings
        host = settings.sidecar_host
        pressure = self._pressure
        pages = ColdRoutes(self._api, settings.telemetry_cache_version)
        api = partial(http1.serve, Application(self._api, pressure, fallback=pages))
        otlp = partial(http1.serve, Application(self._otlp, pressure))
        admin = partial(http1.serve, Application(self._admin))
        grpc = partial(_serve_http2, self._grpc)
        for name, at, port, serve in (
            ("SIDECAR_PORT", host, settings.sidecar_port, api),
            ("SIDECAR_OTLP_HTTP_PORT", host, settings.sidecar_otlp_http_port, otlp),
            ("SIDECAR_OTLP_GRPC_PORT", host, settings.sidecar_otlp_grpc_port, grpc),
            ("PROMETHEUS_PORT", settings.sidecar_metrics_host, settings.prometheus_port, admin),
        ):
            if not port:
                continue
            try:
                self._listeners.append(Listener(name, bind(at, port), serve))
            except OSError as error:
                self.close()
                reason = error.strerror or str(error)
                raise StartError(f"{name}='{port}': cannot listen on {at}: {reason}") from None

    def close(self) -> None:
        """Close every socket."""
        for listener in self._listeners:
            listener.sock.close()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, finish what is in flight, flush the queue.

        What is in flight and the queue together have ``SIDECAR_DRAIN_SECONDS``; a second signal
        ends that early.
        """
        *receiving, admin = self._listeners
        sys.setswitchinterval(_SWITCH_SECONDS)
        # What is there now stays, so no collection need go through it again and again.
        gc.collect()
        gc.freeze()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._stop_on_signal, nursery.cancel_scope)
            await nursery.start(self._rules.run, self._stopping)
            await nursery.start(self.cache.run)
            await nursery.start(self.pipeline.run)
            await nursery.start(self._proxy.run)
            nursery.start_soon(self._pressure.run)
            # Until it is cancelled at the end, so that kubelet and Prometheus can see the stop.
            await self._serve(nursery, admin, until=trio.Event())
            async with trio.open_nursery() as receivers:
                for listener in receiving:
                    await self._serve(receivers, listener, until=self._flushed)
                self.health.started = True
                self._log_ready()
                await self._stopping.wait()
                # Until the queue is empty, new requests are answered, with 503.
                with trio.CancelScope(deadline=self._drain_ends):
                    await self._intake.idle()
                    await self._proxy.idle()
                    await self.pipeline.drained()
                self._flushed.set()
            nursery.cancel_scope.cancel()
        _log.info("stopped")

    async def _serve(self, nursery: trio.Nursery, listener: Listener, until: trio.Event) -> None:
        start = partial(listener.serve, listener.sock, stopping=until, grace_seconds=_GRACE_SECONDS)
        await nursery.start(start)

    async def _stop_on_signal(
        self, everything: trio.CancelScope, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                if self._stopping.is_set():
                    everything.cancel()
                    return
                _log.info("stopping", signal=signal.Signals(number).name)
                self._drain_ends = trio.current_time() + self.settings.sidecar_drain_seconds
                self.health.stopping = True
                self._stopping.set()

    def _log_ready(self) -> None:
        ports = {
            listener.name.lower(): listener.sock.getsockname()[1] for listener in self._listeners
        }
        _log.info(
            "ready",
            version=self.settings.telemetry_cache_version,
            rules=len(self._rules.engine.rules.rules),
            rules_digest=self._rules.digest[:12],
            exporters=self.settings.exporters,
            **ports,
        )
        environ = open_webui_environ(self.settings)
        if sys.stderr.isatty():
            lines = "\n".join(f"  {name}={value}" for name, value in environ.items())
            print(f"\nIn the environment of Open WebUI:\n\n{lines}\n", file=sys.stderr)  # noqa: T201
        else:
            _log.info("point_open_webui_here", **environ)


async def _serve_http2(
    app: ASGIApp,
    sock: socket.socket,
    *,
    stopping: trio.Event,
    grace_seconds: float,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve as `sidecar.http.http2.serve` does; Hypercorn is imported when the first client comes.

    It takes 3 MiB and a tenth of a second, and whoever sends over HTTP/1.1 has no use of it.
    """

    async def stop() -> None:
        await stopping.wait()
        waiting.cancel_scope.cancel()

    async with trio.open_nursery() as waiting:
        waiting.start_soon(stop)
        task_status.started()
        await trio.lowlevel.wait_readable(sock)
        waiting.cancel_scope.cancel()
    if stopping.is_set():
        sock.close()
        return
    # In a thread, so that nothing waits for it but that client.
    http2 = await trio.to_thread.run_sync(import_module, "sidecar.http.http2")
    await http2.serve(app, sock, stopping=stopping, grace_seconds=grace_seconds)


def open_webui_environ(settings: Settings) -> dict[str, str]:
    """Return the variables that make an Open WebUI beside this sidecar export to it."""
    signals = ("ENABLE_OTEL_TRACES", "ENABLE_OTEL_METRICS", "ENABLE_OTEL_LOGS")
    common = dict.fromkeys(("ENABLE_OTEL", *signals), "true")
    if settings.sidecar_otlp_grpc_port:
        return {
            **common,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{settings.sidecar_otlp_grpc_port}",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
        }
    # Its HTTP exporter posts to the address as it is, so each signal needs its own.
    base = f"http://127.0.0.1:{settings.sidecar_otlp_http_port or settings.sidecar_port}/v1"
    return {
        **common,
        "OTEL_OTLP_SPAN_EXPORTER": "http",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{base}/traces",
        "OTEL_METRICS_EXPORTER_OTLP_ENDPOINT": f"{base}/metrics",
        "OTEL_LOGS_EXPORTER_OTLP_ENDPOINT": f"{base}/logs",
    }
