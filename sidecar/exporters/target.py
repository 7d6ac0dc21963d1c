"""What every target of exports has, whatever its protocol.

A time limit, a bound on its answers, credentials in its URL, and a verdict on what it said.
"""

import ssl
from base64 import b64encode
from urllib.parse import unquote, urlsplit, urlunsplit

from sidecar import __version__
from sidecar.pipeline.exporter import Refused, Retryable
from sidecar.pipeline.retry import MISCONFIGURED_RETRY_AFTER, Verdict

# The time limit of one export, https://opentelemetry.io/docs/specs/otel/protocol/exporter/
EXPORT_SECONDS = 10.0

MAX_ANSWER_BYTES = 64 * 1024

USER_AGENT = f"telemetry-cache-sidecar/{__version__}"


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without its user and password, and the header for these (RFC 7617).

    A URL with a password in it would show up in logs.
    """
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = userinfo.partition(":")
    token = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"authorization": f"Basic {token}"}


def raise_unless_accepted(verdict: Verdict, reason: str, retry_after: float | None) -> None:
    """Say what the target said, in the way of an exporter.

    Args:
        verdict: on its answer.
        reason: as of `Retryable`.
        retry_after: seconds that it asked to be left alone, or None.

    Raises:
        Retryable: the verdict is to try again.
        Refused: it is not to.
    """
    if verdict is Verdict.RETRY:
        raise Retryable(reason, retry_after)
    if verdict is Verdict.RETRY_SLOWLY:
        raise Retryable(reason, max(retry_after or 0.0, MISCONFIGURED_RETRY_AFTER))
    if verdict is not Verdict.ACCEPTED:
        raise Refused(reason, divisible=verdict is Verdict.REFUSED)


def is_tls(error: BaseException) -> bool:
    """Return whether TLS is behind a failure, such as a bad certificate."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
