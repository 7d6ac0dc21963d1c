"""Every Prometheus metric of the process, in one registry.

Names carry the prefix ``telemetry_cache_``; units are base units; no label is unbounded and none
carries a value that came in with a request, but for names of models that an upstream knows.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_NAMESPACE = "telemetry_cache"


def _counter(name: str, documentation: str, *labels: str) -> Counter:
    return Counter(name, documentation, labels, namespace=_NAMESPACE, registry=REGISTRY)


def _gauge(name: str, documentation: str, *labels: str) -> Gauge:
    return Gauge(name, documentation, labels, namespace=_NAMESPACE, registry=REGISTRY)


# Kept for existing dashboards.
TTFB = Histogram(
    "ttfb_seconds",
    "Time to first byte of model calls, from latency_ms of events and from the proxy.",
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
)
TOKENS_PER_SECOND = _gauge("tokens_per_second", "Speed of the last model call that told it.")
REPAIRS = _counter("repair_rate_total", "Events content_repair.")
DRIFT_INCIDENTS = _counter("drift_incidents_total", "Events policy_drift.")
CACHE_HITS = _counter("cache_hits_total", "Cache look-ups that found a value.")
CACHE_MISSES = _counter("cache_misses_total", "Cache look-ups that found none.")
CACHE_HIT_RATE = _gauge("cache_hit_rate", "Share of look-ups that hit since start, 0 to 1.")
LOG_EVENTS = _counter("log_events_total", "Events accepted by POST /log and /log/batch.")

# The way of a record through the process.
RECEIVED = _counter(
    "received_records_total",
    "Spans, log records, datapoints and events taken in.",
    "signal",
    "transport",
)
REDACTED = _counter(
    "redacted_records_total", "Records in which a rule changed something.", "signal"
)
FINDINGS = _counter("findings_total", "Values that a rule found.", "rule", "signal", "mode")
DROPPED = _counter(
    "dropped_records_total",
    "Records that were given up; without an exporter: before they waited for any.",
    "exporter",
    "signal",
    "reason",
)
RECOVERED = _counter(
    "recovered_records_total",
    "Records that an earlier process had taken in, found in the queue's file.",
    "exporter",
    "signal",
)
QUEUE_BYTES = _gauge("queue_bytes", "Bytes that wait to be exported, as they are kept.", "exporter")
QUEUE_RECORDS = _gauge("queue_records", "Records that wait to be exported.", "exporter", "signal")
QUEUE_OLDEST = _gauge(
    "queue_oldest_age_seconds", "For how long the oldest record has waited.", "exporter"
)
REJECTED = _counter(
    "rejected_records_total",
    "Records that an exporter's target refused for good; they are dead letters then.",
    "exporter",
    "signal",
)
DEAD_LETTER_RECORDS = _gauge(
    "dead_letter_records", "Records in dead letters now.", "exporter", "signal"
)
EXPORTED = _counter(
    "exported_records_total", "Records that an exporter's target took.", "exporter", "signal"
)
EXPORT_RETRIES = _counter(
    "export_retries_total", "Exports that failed and were tried again.", "exporter"
)
EXPORT_SECONDS = Histogram(
    "export_duration_seconds",
    "Time one export took, failed ones too.",
    ("exporter",),
    namespace=_NAMESPACE,
    registry=REGISTRY,
)

# Admission.
REFUSED = _counter(
    "intake_refused_total",
    "Requests that were not taken in, and may be sent again.",
    "reason",
)
for _reason in ("memory", "in_flight", "queue_full", "stopping"):
    REFUSED.labels(_reason)
MEMORY_LIMIT = _gauge(
    "memory_limit_bytes", "Resident memory above which nothing is taken in; 0: no limit."
)

# Calls of models through the proxy.
_MODEL_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
MODEL_CALLS = _counter(
    "model_calls_total",
    "Model calls by HTTP status; cached: answered without the upstream; none: without an answer.",
    "route",
    "model",
    "status",
)
MODEL_ERRORS = _counter(
    "model_errors_total", "Model calls that failed, also within a stream.", "route", "model", "kind"
)
MODEL_TTFB = Histogram(
    "model_ttfb_seconds",
    "Time from the call of the upstream to the first byte of an answer's body.",
    ("route", "model"),
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=_MODEL_SECONDS,
)
MODEL_FIRST_TOKEN = Histogram(
    "model_first_token_seconds",
    "Time from the call of the upstream to the first content of a streamed answer.",
    ("route", "model"),
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=_MODEL_SECONDS,
)
MODEL_SPEED = Histogram(
    "model_tokens_per_second",
    "Speed at which an answer's tokens came after the first ones.",
    ("route", "model"),
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=(1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 400.0, 1000.0),
)
MODEL_TOKENS = _counter("model_tokens_total", "Tokens of model calls.", "route", "model", "kind")
MODEL_UNREAD = _counter(
    "model_unread_events_total",
    "Events of answers that are too large to be read, or of an unknown shape.",
    "route",
)

# The proxy.
PROXY_CALLS = _gauge("proxy_calls", "Calls through the proxy under way.", "route")
PROXY_RESPONSES = _counter(
    "proxy_responses_total",
    "Answers that went to clients of the proxy.",
    "route",
    "status",
)
PROXY_FAILURES = _counter(
    "proxy_failures_total", "Calls that the proxy refused, or that failed.", "route", "reason"
)
PROXY_UPSTREAM_SECONDS = Histogram(
    "proxy_upstream_seconds",
    "Time from the call of an upstream to the head of its answer.",
    ("route",),
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)

# The process.
BUILD_INFO = _gauge("build_info", "1, with the version as a label.", "version")
RULES = _gauge("rules", "Redaction rules in force.")
RULES_RELOADS = _counter(
    "rules_reloads_total", "Changes of the rules folder, applied or refused.", "result"
)
# Both are there from the start, so that an alert sees the first one.
for _result in ("applied", "refused"):
    RULES_RELOADS.labels(_result)
RULES_LAST_RELOAD_SUCCESSFUL = _gauge(
    "rules_last_reload_successful",
    "0 while the last change of the rules folder is refused, else 1.",
)
RULES_LAST_RELOAD_TIMESTAMP = _gauge(
    "rules_last_reload_timestamp_seconds", "When the rules in force were loaded, in Unix time."
)
REDIS_CONNECTED = _gauge("redis_connected", "1 while Redis answers, else 0.")
REDIS_ERRORS = _counter("redis_errors_total", "Calls of Redis that failed.", "kind")
REDIS_BREAKER_OPEN = _gauge(
    "redis_breaker_open", "1 while Redis is connected but not asked, because it is slow, else 0."
)
REDIS_INVALIDATIONS = _counter(
    "redis_invalidations_total", "Changes of keys that Redis has told of."
)
CACHE_TIER_HITS = _counter(
    "cache_tier_hits_total", "Cache look-ups that found a value, by who had it.", "tier"
)
for _tier in ("memory", "redis"):
    CACHE_TIER_HITS.labels(_tier)
CACHE_ENTRIES = _gauge("cache_memory_entries", "Entries of the in-memory cache.")
CACHE_BYTES = _gauge("cache_memory_bytes", "Bytes of keys and values in the in-memory cache.")
HTTP_REQUESTS = _counter(
    "http_requests_total", "HTTP and gRPC requests answered.", "route", "method", "status"
)
HTTP_SECONDS = Histogram(
    "http_request_duration_seconds",
    "Time from the request's head to the end of the response.",
    ("route",),
    namespace=_NAMESPACE,
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
