"""Sanitizers: the structure of a value stays, what a person put into it goes.

Each is a pure function from text to text that runs in linear time, never raises, and returns the
same object when there is nothing to change. Sanitizing twice changes nothing more. What cannot be
read for sure counts as a value.
"""

from collections.abc import Callable

from sidecar.redaction.sanitize.redis import sanitize_redis
from sidecar.redaction.sanitize.sql import sanitize_sql
from sidecar.redaction.sanitize.url import sanitize_url

__all__ = ["SANITIZERS", "sanitize_redis", "sanitize_sql", "sanitize_url"]

SANITIZERS: dict[str, Callable[[str], str]] = {
    "url": sanitize_url,
    "sql": sanitize_sql,
    "redis": sanitize_redis,
}
