"""The peer in FastAPI: events and a cache to the sidecar's contract, written as one would.

It needs what `make bench` installs into ``.venv/peers`` and nothing of this package.
"""
# mypy: disable-error-code="import-not-found, untyped-decorator"

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Query, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

MASK = "[REDACTED]"
QUEUE_SIZE = 10_000
CACHE_ENTRIES = 10_000

PERSONAL_NAMES = frozenset(
    (
        *("userid", "username", "sessionid", "email", "emailaddress", "phone", "phonenumber"),
        *("ip", "ipaddress", "clientip", "remoteaddr", "firstname", "lastname", "fullname", "ssn"),
        *("apikey", "password", "secret", "token", "accesstoken", "refreshtoken", "authorization"),
    )
)
PATTERNS = [
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "[REDACTED_EMAIL]"),
    (re.compile(r"\beyJ[\w-]+\.eyJ[\w-]+\.[\w-]+"), "[REDACTED_JWT]"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"), "[REDACTED_SERVICE_TOKEN]"),
    (re.compile(r"\b(?:\d[ -]?){13,19}\b"), "[REDACTED_CARD]"),
    (re.compile(r"\b\d{3}-\d{2}-\d{4}\b"), "[REDACTED_US_SSN]"),
    (re.compile(r"\+\d[\d ()-]{7,}\d"), "[REDACTED_PHONE]"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "[REDACTED_IPV4]"),
]

log_events = Counter("telemetry_cache_log_events", "Events taken in.")
ttfb = Histogram("telemetry_cache_ttfb_seconds", "Time to the first byte.")
tokens_per_second = Gauge("telemetry_cache_tokens_per_second", "Of the last answer.")
repairs = Counter("telemetry_cache_repair_rate", "Repaired answers.")
drifts = Counter("telemetry_cache_drift_incidents", "Policy drifts.")
hits = Counter("telemetry_cache_cache_hits", "Cache hits.")
misses = Counter("telemetry_cache_cache_misses", "Cache misses.")


class LogRequest(BaseModel):
    event: Annotated[str, Field(min_length=1, max_length=256)]
    payload: dict[str, Any]
    timestamp: str | None = None


class LogResponse(BaseModel):
    status: str
    event_id: str
    redacted_fields: list[str]


class SetRequest(BaseModel):
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    data: Any
    ttl: Annotated[float, Field(gt=0)] = 3600


class SetResponse(BaseModel):
    status: str
    key: str
    expires_at: datetime


class GetResponse(BaseModel):
    hit: bool
    data: Any
    ttl_remaining: float | None


queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(QUEUE_SIZE)
# The nearer tier; the one behind it would be Redis, of which there is none here.
cache: OrderedDict[str, tuple[Any, float]] = OrderedDict()


async def export() -> None:
    """Take events from the queue and forget them, as the sidecar's blackhole does."""
    while True:
        await queue.get()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    exporter = asyncio.create_task(export())
    yield
    exporter.cancel()


app = FastAPI(title="telemetry-cache", lifespan=lifespan)


def redact(value: Any, fields: dict[str, None], name: str = "") -> Any:
    """Return a value redacted; notes in ``fields`` the names of those that were."""
    if isinstance(value, dict):
        redacted = {}
        for key, item in value.items():
            if key.replace("_", "").replace("-", "").lower() in PERSONAL_NAMES:
                fields[key] = None
                redacted[key] = MASK
            else:
                redacted[key] = redact(item, fields, key)
        return redacted
    if isinstance(value, list):
        return [redact(item, fields, name) for item in value]
    if isinstance(value, str):
        text = value
        for pattern, mask in PATTERNS:
            text = pattern.sub(mask, text)
        if text != value:
            fields[name] = None
        return text
    return value


def measure(event: LogRequest) -> None:
    log_events.inc()
    if isinstance(latency := event.payload.get("latency_ms"), int | float):
        ttfb.observe(latency / 1000)
    if isinstance(rate := event.payload.get("tokens_per_second"), int | float):
        tokens_per_second.set(rate)
    if event.event == "content_repair":
        repairs.inc()
    elif event.event == "policy_drift":
        drifts.inc()


@app.post("/log")
async def log(request: LogRequest) -> LogResponse:
    fields: dict[str, None] = {}
    event = {
        "event_id": str(uuid4()),
        "event": request.event,
        "timestamp": request.timestamp or datetime.now(UTC).isoformat(),
        "payload": redact(request.payload, fields),
    }
    measure(request)
    try:
        queue.put_nowait(event)
    except asyncio.QueueFull:
        raise HTTPException(429, "The queue is full.", {"retry-after": "1"}) from None
    return LogResponse(status="logged", event_id=event["event_id"], redacted_fields=list(fields))


@app.post("/cache/set")
async def cache_set(request: SetRequest) -> SetResponse:
    cache[request.key] = (request.data, time.monotonic() + request.ttl)
    cache.move_to_end(request.key)
    while len(cache) > CACHE_ENTRIES:
        cache.popitem(last=False)
    expires_at = datetime.now(UTC) + timedelta(seconds=request.ttl)
    return SetResponse(status="cached", key=request.key, expires_at=expires_at)


@app.get("/cache/get")
async def cache_get(key: Annotated[str, Query(min_length=1, max_length=1024)]) -> GetResponse:
    found = cache.get(key)
    left = found[1] - time.monotonic() if found else 0.0
    if found is None or left <= 0:
        cache.pop(key, None)
        misses.inc()
        return GetResponse(hit=False, data=None, ttl_remaining=None)
    cache.move_to_end(key)
    hits.inc()
    return GetResponse(hit=True, data=found[0], ttl_remaining=round(left, 3))


@app.get("/healthz")
async def healthz() -> dict[str, Any]:
    return {"ok": True, "service": "telemetry-cache"}


@app.get("/metrics")
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
