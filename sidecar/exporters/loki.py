"""Pushes events to Grafana Loki (https://grafana.com/docs/loki/latest/reference/loki-http-api/).

All events are one stream, since every label of an own value costs Loki a stream: what tells
events apart is structured metadata.
"""

import gzip
import ssl
import time
from urllib.parse import urlsplit, urlunsplit

import msgspec
import trio

from sidecar.exporters.events import SERVICE_NAME, EncodedEvent, decode, unix_nano
from sidecar.exporters.http import Poster, open_client
from sidecar.exporters.target import EXPORT_SECONDS, split_credentials
from sidecar.pipeline.batch import Batch, Signal
from sidecar.pipeline.retry import loki_verdict

_PUSH_PATH = "/loki/api/v1/push"
_GZIP_LEVEL = 4
# Loki takes no entry older than reject_old_samples_max_age (a week) or newer than
# creation_grace_period (10 minutes); a little inside both.
_OLDEST = 6 * 24 * 3600 * 10**9
_NEWEST = 5 * 60 * 10**9
# Loki's bound on all structured metadata of an entry is 64 kB.
_MAX_METADATA_CHARACTERS = 1024


class LokiExporter:
    """Exports events to one Loki.

    Args:
        url: of Loki, or of its push path; a user and password in it become basic authentication.
        tls: for ``https://``, in place of the certificates of the system.
        seconds: the time limit of one export.
    """

    name = "loki"
    signals: frozenset[Signal] = frozenset({"events"})
    # As Promtail's batchsize; larger ones can pass the 4 MB of Loki's inner gRPC messages, which
    # Loki answers with a 500 that would be retried for ever.
    merge_bytes = 2**20

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None = None, seconds: float = EXPORT_SECONDS
    ) -> None:
        address, credentials = split_credentials(url)
        headers = {
            "content-type": "application/json",
            "content-encoding": "gzip",
            **credentials,
        }
        self._client = open_client(address, tls, seconds)
        self._loki = Poster(push_url(address), self._client, headers, seconds, loki_verdict)

    async def export(self, batch: Batch) -> int:
        """Push the events; Loki takes all of them or answers with an error."""
        body = await trio.to_thread.run_sync(_compressed, batch.body, time.time_ns())
        await self._loki.post(body)
        return 0

    async def aclose(self) -> None:
        """Close the connections."""
        self._client.close()


def push_url(url: str) -> str:
    """Return the URL of the push path below a Loki's URL, or the URL if it has that path."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith(_PUSH_PATH):
        path += _PUSH_PATH
    return urlunsplit(parts._replace(path=path))


def push_request(body: bytes, now: int) -> bytes:
    """Return the JSON body of a push.

    Args:
        body: of a batch of events. The line of each entry is the event's payload.
        now: Unix nanoseconds, the time of events without a timestamp, and of those whose
            timestamp Loki would refuse; their own then stands in the structured metadata.

    Raises:
        Refused: the body holds no events.
    """
    stream = {
        "stream": {"service_name": SERVICE_NAME},
        "values": [_entry(event, now) for event in decode(body)],
    }
    return msgspec.json.encode({"streams": [stream]})


def _entry(event: EncodedEvent, now: int) -> tuple[str, str, dict[str, str]]:
    metadata = {"event": event.event, "event_id": event.event_id}
    moment = unix_nano(event.timestamp)
    if moment is None or not now - _OLDEST <= moment <= now + _NEWEST:
        if event.timestamp:
            metadata["timestamp"] = event.timestamp
        moment = now
    cut = {name: value[:_MAX_METADATA_CHARACTERS] for name, value in metadata.items()}
    return str(moment), bytes(event.payload).decode(), cut


def _compressed(body: bytes, now: int) -> bytes:
    return gzip.compress(push_request(body, now), _GZIP_LEVEL, mtime=0)
