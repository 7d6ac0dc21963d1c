"""One HTTP request of an exporter: post a body, and say what the answer means.

Environment proxies are not trusted: what passes here is still telemetry of users, and goes to the
address in the settings and nowhere else. For the same reason redirects are not followed, and
cookies of a load balancer are not kept.
"""

import ssl
import time
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2
import msgspec
import trio

from sidecar.exporters.target import (
    MAX_ANSWER_BYTES,
    USER_AGENT,
    is_tls,
    raise_unless_accepted,
)
from sidecar.pipeline.exporter import Retryable
from sidecar.pipeline.retry import Verdict, parse_retry_after


class Answer(msgspec.Struct, frozen=True):
    """What the target said to a batch that it took; the body may be cut short."""

    content_type: str
    body: bytes


def open_client(tls: ssl.SSLContext | None) -> httpx2.AsyncClient:
    """Return a client that keeps its connections open.

    It has no time limit of its own: `post` sets one for the whole exchange.

    Args:
        tls: in place of one that trusts the certificates of the system.
    """
    return httpx2.AsyncClient(
        # An answer is read up to a bound, so it must not be able to grow by decompression.
        headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        verify=tls or True,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
        timeout=None,
        limits=httpx2.Limits(max_connections=2, keepalive_expiry=30.0),
    )


async def post(
    client: httpx2.AsyncClient,
    url: str,
    body: bytes,
    headers: dict[str, str],
    seconds: float,
    verdict: Callable[[int], Verdict],
) -> Answer:
    """Post a body and return the answer when the target took it.

    Once a status has come, it decides, even if the rest of the answer never comes.

    Raises:
        Retryable: the target could not be reached, did not answer within ``seconds``, or said so.
        Refused: the target said so.
    """
    status, content_type, retry_after = 0, "", None
    answer = bytearray()
    try:
        with trio.fail_after(seconds):
            async with client.stream("POST", url, content=body, headers=headers) as response:
                status = response.status_code
                content_type = response.headers.get("content-type", "")
                retry_after = response.headers.get("retry-after")
                async for piece in response.aiter_raw():
                    answer += piece
                    if len(answer) > MAX_ANSWER_BYTES:
                        break
    except trio.TooSlowError:
        if not status:
            raise Retryable("timeout") from None
    except httpx2.RequestError as error:
        if not status:
            raise Retryable("TLS" if is_tls(error) else type(error).__name__) from None
    wait = parse_retry_after(retry_after, time.time())
    raise_unless_accepted(verdict(status), f"status {status}", wait)
    return Answer(content_type, bytes(answer))
