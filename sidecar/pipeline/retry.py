"""Decides what a failed export means and how long to wait before the next try.

Pure: the time of day and the random number come in as arguments.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

import msgspec

MAX_RETRY_AFTER = 300.0
# A wrong address or credential is put right by people, so asking more often helps nobody.
MISCONFIGURED_RETRY_AFTER = 60.0

_OTLP_RETRIED = frozenset({429, 502, 503, 504})
_NOT_ABOUT_CONTENT = frozenset({401, 403, 404, 405, 406, 407, 410, 415, 421, 426, 501, 505})
_LOKI_MISCONFIGURED = frozenset({401, 403, 404, 405, 407})


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
