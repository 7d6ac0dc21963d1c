"""The messages of OTLP exports, whatever carries them: the request, and what the answer leaves out.

Events are log records here.
"""

import gzip

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sidecar.exporters import events
from sidecar.pipeline.batch import Batch, Signal

_GZIP_LEVEL = 4


def encode(batch: Batch, compress: bool, now: int) -> bytes:
    """Return the request message for a batch; ``now`` in Unix nanoseconds; raises `Refused`."""
    body = events.to_otlp(batch.body, now) if batch.signal == "events" else batch.body
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compress else body


def rejected_records(batch: Batch, answer: bytes) -> int:
    """Return how many records the collector rejected in an answer of partial success.

    https://opentelemetry.io/docs/specs/otlp/#partial-success. Its ``error_message`` is not
    looked at because it may quote the records. An answer that is no such message counts as full
    success: the status said so.
    """
    try:
        rejected = _rejected(batch.signal, answer)
    except DecodeError:
        return 0
    return min(max(rejected, 0), batch.records)


def _rejected(signal: Signal, answer: bytes) -> int:
    if signal == "traces":
        spans = ExportTraceServiceResponse.FromString(answer)
        return spans.partial_success.rejected_spans
    if signal == "metrics":
        points = ExportMetricsServiceResponse.FromString(answer)
        return points.partial_success.rejected_data_points
    return ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records
