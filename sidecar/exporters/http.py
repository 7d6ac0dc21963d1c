"""One HTTP request of an exporter: post a body, and say what the answer means."""

import ssl
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec
import trio

from sidecar.exporters.target import MAX_ANSWER_BYTES, USER_AGENT, raise_unless_accepted
from sidecar.http.client import Client, ClientError, Failure, Waits
from sidecar.pipeline.exporter import Retryable
from sidecar.pipeline.retry import Verdict, parse_retry_after
from sidecar.tls import default_context

_REASONS: dict[Failure, str] = {
    "busy": "timeout",
    "connect": "cannot connect",
    "cut": "connection lost",
    "protocol": "the answer is not HTTP",
    "timeout": "timeout",
    "tls": "TLS",
}


class Answer(msgspec.Struct, frozen=True):
    """What the target said to a batch that it took; the body may be cut short."""

    content_type: str
    body: bytes


def open_client(url: str, tls: ssl.SSLContext | None, seconds: float) -> Client:
    """Return a client for the origin of a URL.

    Args:
        url: of a target there.
        tls: for ``https``, in place of one that trusts the certificates of the system.
        seconds: the longest it waits for anything.
    """
    context = (tls or default_context()) if url.startswith("https:") else None
    return Client(url, context, Waits(seconds, seconds, seconds), most=2, kept=2)


class Poster:
    """Posts to one URL.

    Args:
        url: of the target, without credentials.
        client: of its origin, see `open_client`.
        headers: of every request, beside those of HTTP itself.
        seconds: the time limit of one exchange.
        verdict: on a status.
    """

    def __init__(
        self,
        url: str,
        client: Client,
        headers: Mapping[str, str],
        seconds: float,
        verdict: Callable[[int], Verdict],
    ) -> None:
        parts = urlsplit(url)
        self._target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode()
        # An answer is read up to a bound, so it must not be able to grow by decompression.
        common = {"host": parts.netloc, "user-agent": USER_AGENT, "accept-encoding": "identity"}
        self._headers = [(k.encode(), v.encode()) for k, v in {**common, **headers}.items()]
        self._client = client
        self._seconds = seconds
        self._verdict = verdict

    async def post(self, body: bytes) -> Answer:
        """Post a body and return the answer when the target took it.

        Once a status has come, it decides, even if the rest of the answer never comes.

        Raises:
            Retryable: the target could not be reached, did not answer in time, or said so.
            Refused: the target said so.
        """
        headers = [*self._headers, (b"content-length", b"%d" % len(body))]
        status, said = 0, dict[bytes, bytes]()
        answer = bytearray()
        try:
            with trio.fail_after(self._seconds):
                async with self._client.call("POST", self._target, headers, body) as response:
                    status, said = response.status, dict(response.headers)
                    async for piece in response:
                        answer += piece
                        if len(answer) > MAX_ANSWER_BYTES:
                            break
        except trio.TooSlowError:
            if not status:
                raise Retryable("timeout") from None
        except ClientError as error:
            if not status:
                raise Retryable(_REASONS[error.failure]) from None
        retry_after = said.get(b"retry-after", b"").decode("latin-1")
        wait = parse_retry_after(retry_after or None, time.time())
        raise_unless_accepted(self._verdict(status), f"status {status}", wait)
        return Answer(said.get(b"content-type", b"").decode("latin-1"), bytes(answer))
