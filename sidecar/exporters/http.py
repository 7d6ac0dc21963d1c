"""One HTTP request of an exporter: post a body, and say what the answer means.

Environment proxies are not trusted: what passes here is still telemetry of users, and goes to the
address in the settings and nowhere else. For the same reason redirects are not followed, and
cookies of a load balancer are not kept.
"""

import ssl
import time
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2
import msgspec
import trio

from sidecar import __version__
from sidecar.pipeline.exporter import Refused, Retryable
from sidecar.pipeline.retry import MISCONFIGURED_RETRY_AFTER, Verdict, parse_retry_after

# The time limit of one export, https://opentelemetry.io/docs/specs/otel/protocol/exporter/
EXPORT_SECONDS = 10.0

_MAX_ANSWER_BYTES = 64 * 1024


class Answer(msgspec.Struct, frozen=True):
    """What the target said to a batch that it took; the body may be cut short."""

    content_type: str
    body: bytes


def open_client(headers: dict[str, str]) -> httpx2.AsyncClient:
    """Return a client that sends these headers and keeps its connections open.

    It has no time limit of its own: `post` sets one for the whole exchange.
    """
    return httpx2.AsyncClient(
        # An answer is read up to a bound, so it must not be able to grow by decompression.
        headers={
            "user-agent": f"telemetry-cache-sidecar/{__version__}",
            "accept-encoding": "identity",
            **headers,
        },
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
        timeout=None,
        limits=httpx2.Limits(max_connections=2, keepalive_expiry=30.0),
    )


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without its user and password, and the header for these (RFC 7617).

    A URL with a password in it would show up in logs.
    """
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    auth = httpx2.BasicAuth(unquote(user), unquote(password))
    request = next(auth.auth_flow(httpx2.Request("POST", "http://localhost")))
    return urlunsplit(parts._replace(netloc=host)), {
        "authorization": request.headers["authorization"]
    }


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
                    if len(answer) > _MAX_ANSWER_BYTES:
                        break
    except trio.TooSlowError:
        if not status:
            raise Retryable("timeout") from None
    except httpx2.RequestError as error:
        if not status:
            raise Retryable(_kind(error)) from None
    _raise_unless_accepted(verdict(status), f"status {status}", retry_after)
    return Answer(content_type, bytes(answer))


def _raise_unless_accepted(verdict: Verdict, reason: str, retry_after: str | None) -> None:
    wait = parse_retry_after(retry_after, time.time())
    if verdict is Verdict.RETRY:
        raise Retryable(reason, wait)
    if verdict is Verdict.RETRY_SLOWLY:
        raise Retryable(reason, max(wait or 0.0, MISCONFIGURED_RETRY_AFTER))
    if verdict is not Verdict.ACCEPTED:
        raise Refused(reason, divisible=verdict is Verdict.REFUSED)


def _kind(error: BaseException) -> str:
    """Name the failure without its message, telling a bad certificate from a lost connection."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "TLS"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
