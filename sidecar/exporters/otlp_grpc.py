"""Sends batches on as OTLP/gRPC (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc).

Events go out as log records, to the endpoint of the logs.
"""

import ssl
import time
from collections.abc import Mapping

import trio
from google.rpc import code_pb2

from sidecar.exporters.grpc import Channel
from sidecar.exporters.otlp_messages import encode, rejected_records
from sidecar.exporters.target import EXPORT_SECONDS, raise_unless_accepted
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.retry import grpc_verdict, parse_retry_info
from sidecar.settings import OtlpSignal

_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_PATHS: dict[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": _LOGS,
    "events": _LOGS,
}


class OtlpGrpcExporter:
    """Exports to one OTLP/gRPC collector, or to one for each signal.

    Args:
        endpoints: ``http(s)://host:port`` for each signal to export. An endpoint for logs takes
            events too.
        headers: sent with every call as metadata.
        compress: send messages as gzip.
        tls: for ``https://``, in place of the certificates of the system. Belongs to the exporter.
        seconds: the time limit of one export.
    """

    name = "otlp"
    # Servers take messages of 4 MiB unless told otherwise, and events grow when they become log
    # records. One that is still too large is refused, and then halved.
    merge_bytes = 3 * 2**20

    def __init__(
        self,
        endpoints: Mapping[OtlpSignal, str],
        headers: Mapping[str, str],
        *,
        compress: bool = False,
        tls: ssl.SSLContext | None = None,
        seconds: float = EXPORT_SECONDS,
    ) -> None:
        self._channels = {
            url: Channel(url, headers, compressed=compress, tls=tls)
            for url in set(endpoints.values())
        }
        self._targets: dict[Signal, Channel] = {
            signal: self._channels[url] for signal, url in endpoints.items()
        }
        if "logs" in self._targets:
            self._targets["events"] = self._targets["logs"]
        self.signals: frozenset[Signal] = frozenset(self._targets)
        self._compress = compress
        self._seconds = seconds

    async def export(self, batch: Batch) -> int:
        """Send the batch; return how many records a partial success left out."""
        message = batch.body
        if self._compress or batch.signal == "events":
            # In a thread: the larger bodies would hold up the event loop for too long.
            message = await trio.to_thread.run_sync(encode, batch, self._compress, time.time_ns())
        channel = self._targets[batch.signal]
        reply = await channel.call(_PATHS[batch.signal], message, self._seconds)
        wait = parse_retry_info(reply.details)
        verdict = grpc_verdict(reply.code, retry_info=wait is not None)
        raise_unless_accepted(verdict, f"grpc {code_pb2.Code.Name(reply.code)}", wait)
        return rejected_records(batch, reply.message)

    async def aclose(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            await channel.aclose()
