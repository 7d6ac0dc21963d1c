"""Sends batches on as OTLP/HTTP with protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Events go out as log records, to the endpoint of the logs.
"""

import gzip
import time
from collections.abc import Mapping

import trio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.exporters import events
from sidecar.exporters.http import EXPORT_SECONDS, Answer, open_client, post, split_credentials
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.retry import otlp_verdict
from sidecar.settings import OtlpSignal

_MEDIA_TYPE = "application/x-protobuf"
_GZIP_LEVEL = 4


class OtlpExporter:
    """Exports to one OTLP/HTTP collector, or to one for each signal.

    Args:
        endpoints: the full URL of each signal to export. An endpoint for logs takes events too.
        headers: sent with every request.
        compress: send bodies as gzip.
        seconds: the time limit of one export.
    """

    name = "otlp"
    # Well under the 20 MiB that the OpenTelemetry Collector takes over HTTP, and what its gRPC
    # side takes in one message, should a gateway stand between.
    merge_bytes = 4 * 2**20

    def __init__(
        self,
        endpoints: Mapping[OtlpSignal, str],
        headers: Mapping[str, str],
        *,
        compress: bool = False,
        seconds: float = EXPORT_SECONDS,
    ) -> None:
        own = {"content-type": _MEDIA_TYPE, **({"content-encoding": "gzip"} if compress else {})}
        self._targets: dict[Signal, tuple[str, dict[str, str]]] = {}
        for signal, url in endpoints.items():
            address, credentials = split_credentials(url)
            self._targets[signal] = address, {**own, **credentials, **headers}
        if "logs" in self._targets:
            self._targets["events"] = self._targets["logs"]
        self.signals: frozenset[Signal] = frozenset(self._targets)
        self._compress = compress
        self._seconds = seconds
        self._client = open_client({})

    async def export(self, batch: Batch) -> int:
        """Send the batch; return how many records a partial success left out."""
        body = batch.body
        if self._compress or batch.signal == "events":
            # In a thread: the larger bodies would hold up the event loop for too long.
            body = await trio.to_thread.run_sync(encode, batch, self._compress, time.time_ns())
        url, headers = self._targets[batch.signal]
        answer = await post(self._client, url, body, headers, self._seconds, otlp_verdict)
        return rejected_records(batch, answer)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def encode(batch: Batch, compress: bool, now: int) -> bytes:
    """Return the request body for a batch; ``now`` in Unix nanoseconds; raises `Refused`."""
    body = events.to_otlp(batch.body, now) if batch.signal == "events" else batch.body
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compress else body


def rejected_records(batch: Batch, answer: Answer) -> int:
    """Return how many records the collector rejected in an answer of partial success.

    https://opentelemetry.io/docs/specs/otlp/#partial-success-1. Its ``error_message`` is not
    looked at because it may quote the records. An answer that is no such message counts as full
    success: the status said so.
    """
    if not answer.content_type.startswith(_MEDIA_TYPE):
        return 0
    try:
        rejected = _rejected(batch.signal, answer.body)
    except DecodeError:
        return 0
    return min(max(rejected, 0), batch.records)


def _rejected(signal: Signal, body: bytes) -> int:
    if signal == "traces":
        spans = ExportTraceServiceResponse.FromString(body)
        return spans.partial_success.rejected_spans
    if signal == "metrics":
        points = ExportMetricsServiceResponse.FromString(body)
        return points.partial_success.rejected_data_points
    return ExportLogsServiceResponse.FromString(body).partial_success.rejected_log_records
