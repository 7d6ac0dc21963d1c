"""Decides what a failed export means and how long to wait before the next try.

Pure: the time of day and the random number come in as arguments.
"""

import binascii
from base64 import b64decode
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import msgspec
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

MAX_RETRY_AFTER = 300.0
# A wrong address or credential is put right by people, so asking more often helps nobody.
MISCONFIGURED_RETRY_AFTER = 60.0

_OTLP_RETRIED = frozenset({429, 502, 503, 504})
_NOT_ABOUT_CONTENT = frozenset({401, 403, 404, 405, 406, 407, 410, 415, 421, 426, 501, 505})
_LOKI_MISCONFIGURED = frozenset({401, 403, 404, 405, 407})
_GRPC_RETRIED = frozenset(
    {
        code_pb2.CANCELLED,
        code_pb2.DEADLINE_EXCEEDED,
        code_pb2.ABORTED,
        code_pb2.OUT_OF_RANGE,
        code_pb2.UNAVAILABLE,
        code_pb2.DATA_LOSS,
    }
)
_GRPC_NOT_ABOUT_CONTENT = frozenset(
    {
        code_pb2.NOT_FOUND,
        code_pb2.PERMISSION_DENIED,
        code_pb2.UNIMPLEMENTED,
        code_pb2.UNAUTHENTICATED,
    }
)
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_GRPC_OF_HTTP: dict[int, int] = {
    400: code_pb2.INTERNAL,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.UNIMPLEMENTED,
    429: code_pb2.UNAVAILABLE,
    502: code_pb2.UNAVAILABLE,
    503: code_pb2.UNAVAILABLE,
    504: code_pb2.UNAVAILABLE,
}
_GRPC_CODES: dict[str, int] = {str(number): number for number in code_pb2.Code.values()}


class Verdict(Enum):
    """What a response status means for the batch that was sent."""

    ACCEPTED = auto()
    RETRY = auto()
    RETRY_SLOWLY = auto()  # until someone puts the configuration right
    REFUSED = auto()  # perhaps for one record in it
    REFUSED_ANYWAY = auto()  # whatever it holds


class Backoff(msgspec.Struct, frozen=True):
    """Exponential back-off with full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Attributes:
        first: seconds, the longest first wait.
        ceiling: seconds, the longest wait.
    """

    first: float = 1.0
    ceiling: float = 30.0

    def delay(self, attempt: int, chance: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next try.

        Args:
            attempt: how many tries failed before the last one.
            chance: a random number from 0 to 1.
            retry_after: seconds that the target asked for. The jitter comes on top, or all pods
                that were told the same would come back at the same moment.
        """
        spread = chance * min(self.ceiling, self.first * 2.0 ** min(attempt, 60))
        return (retry_after or 0.0) + spread


def otlp_verdict(status: int) -> Verdict:
    """Return what an OTLP/HTTP response status means.

    429, 502, 503 and 504 are retried and all other 4xx and 5xx must not be, as
    https://opentelemetry.io/docs/specs/otlp/#otlphttp-response says. On redirects, which are not
    followed, it is silent: they are retried, so that a wrong URL costs no record.
    """
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    if status in _OTLP_RETRIED:
        return Verdict.RETRY
    if not 400 <= status < 600:
        return Verdict.RETRY_SLOWLY
    return Verdict.REFUSED_ANYWAY if status in _NOT_ABOUT_CONTENT else Verdict.REFUSED


def grpc_code(status: int, grpc_status: str | None) -> int:
    """Return the ``google.rpc.Code`` of an answer over HTTP/2.

    https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md: ``grpc-status``
    decides; where there is none, something other than a gRPC server answered, and its HTTP status
    does. What is neither is ``UNKNOWN``.
    """
    unknown: int = code_pb2.UNKNOWN
    if grpc_status is not None:
        return _GRPC_CODES.get(grpc_status, unknown)
    return _GRPC_OF_HTTP.get(status, unknown)


def grpc_verdict(code: int, *, retry_info: bool) -> Verdict:
    """Return what the status of an OTLP/gRPC export means.

    As the table of https://opentelemetry.io/docs/specs/otlp/#failures says: some codes are
    retried, ``RESOURCE_EXHAUSTED`` only with a sign that it passes.

    Args:
        code: one of ``google.rpc.Code``.
        retry_info: whether a ``RetryInfo`` came with it.
    """
    if code == code_pb2.OK:
        return Verdict.ACCEPTED
    if code in _GRPC_RETRIED or (code == code_pb2.RESOURCE_EXHAUSTED and retry_info):
        return Verdict.RETRY
    return Verdict.REFUSED_ANYWAY if code in _GRPC_NOT_ABOUT_CONTENT else Verdict.REFUSED


def loki_verdict(status: int) -> Verdict:
    """Return what the status of a Loki push means.

    Loki's own clients retry 429 and every 5xx. A wrong credential, tenant or path is retried too,
    slowly: it is put right by a person, and no acknowledged event is to be lost meanwhile.
    """
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    if status == 429 or 500 <= status < 600:
        return Verdict.RETRY
    if status in _LOKI_MISCONFIGURED or not 400 <= status < 600:
        return Verdict.RETRY_SLOWLY
    return Verdict.REFUSED_ANYWAY if status in _NOT_ABOUT_CONTENT else Verdict.REFUSED


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header (RFC 9110 section 10.2.3) asks for.

    Args:
        value: whole seconds or an HTTP-date; None and what is neither are ignored.
        now: Unix time, seconds.

    Returns:
        0 to `MAX_RETRY_AFTER`, or None.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Only as many digits as can matter: int() of a very long number is slow or raises.
        return min(float(text[:20]), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        seconds = date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def parse_retry_info(value: str | None) -> float | None:
    """Return the seconds that a ``RetryInfo`` in ``grpc-status-details-bin`` asks for.

    Args:
        value: base64 (with or without padding) of a ``google.rpc.Status``; None and what is no
            such thing are ignored.

    Returns:
        0 to `MAX_RETRY_AFTER`, or None where there is no ``RetryInfo``.
    """
    text = value or ""
    info = RetryInfo()
    try:
        status = Status.FromString(b64decode(text + "=" * (-len(text) % 4)))
        if not any(detail.Unpack(info) for detail in status.details):
            return None
    except (binascii.Error, ValueError, DecodeError):
        return None
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
