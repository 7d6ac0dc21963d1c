"""Sends batches on as OTLP/HTTP with protobuf (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Events go out as log records, to the endpoint of the logs.
"""

import ssl
import time
from collections.abc import Mapping
from urllib.parse import urljoin

import trio

from sidecar.exporters.http import Poster, open_client
from sidecar.exporters.otlp_messages import encode, rejected_records
from sidecar.exporters.target import EXPORT_SECONDS, split_credentials
from sidecar.http.client import Client
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.retry import otlp_verdict
from sidecar.settings import OtlpSignal

_MEDIA_TYPE = "application/x-protobuf"


class OtlpExporter:
    """Exports to one OTLP/HTTP collector, or to one for each signal.

    Args:
        endpoints: the full URL of each signal to export. An endpoint for logs takes events too.
        headers: sent with every request.
        compress: send bodies as gzip.
        tls: for ``https://``, in place of the certificates of the system.
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
        tls: ssl.SSLContext | None = None,
        seconds: float = EXPORT_SECONDS,
    ) -> None:
        own = {"content-type": _MEDIA_TYPE, **({"content-encoding": "gzip"} if compress else {})}
        self._clients: dict[str, Client] = {}
        self._targets: dict[Signal, Poster] = {}
        for signal, url in endpoints.items():
            address, credentials = split_credentials(url)
            origin = urljoin(address, "/")
            if origin not in self._clients:
                self._clients[origin] = open_client(origin, tls, seconds)
            every = {**own, **credentials, **headers}
            client = self._clients[origin]
            self._targets[signal] = Poster(address, client, every, seconds, otlp_verdict)
        if "logs" in self._targets:
            self._targets["events"] = self._targets["logs"]
        self.signals: frozenset[Signal] = frozenset(self._targets)
        self._compress = compress

    async def export(self, batch: Batch) -> int:
        """Send the batch; return how many records a partial success left out."""
        body = batch.body
        if self._compress or batch.signal == "events":
            # In a thread: the larger bodies would hold up the event loop for too long.
            body = await trio.to_thread.run_sync(encode, batch, self._compress, time.time_ns())
        answer = await self._targets[batch.signal].post(body)
        if not answer.content_type.startswith(_MEDIA_TYPE):
            return 0
        return rejected_records(batch, answer.body)

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()
