"""Requests of OTLP and of ``POST /log`` to send; the same in every run, many different ones.

Nothing that a server remembers of one request may help it with the next.
"""

import random
import re
import uuid

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.captured import captures

SPANS = 512
BATCHES = 32
EVENTS = 512
# One span in so many holds an e-mail address.
FINDING_EVERY = 20

_MODELS = ("gpt-4o-mini", "llama3.1:8b", "mistral-small", "qwen2.5-coder:14b")
_ROUTES = (
    *("/api/chat/completions", "/api/v1/chats/{id}", "/api/v1/files/{id}/content", "/api/models"),
    *("/api/v1/knowledge/{id}", "/api/v1/retrieval/query/collection", "/health", "/ws/socket.io"),
)
_TABLES = ("chat", "file", "knowledge", "model", "prompt", "tag", "tool", "function")
_STARTED_NS = 1_795_459_043_000_000_000
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"

_Value = str | int | float | bool


def clean_batches() -> list[bytes]:
    """Return `BATCHES` requests of `SPANS` spans, some 284 kB each; no default rule finds any."""
    return [_batch(random.Random(seed), 0) for seed in range(BATCHES)]


def dirty_batches() -> list[bytes]:
    """Return the same with an e-mail address in one span of `FINDING_EVERY`."""
    return [_batch(random.Random(seed), FINDING_EVERY) for seed in range(BATCHES)]


def captured_batches() -> list[bytes]:
    """Return `BATCHES` requests that are like the largest captured one, of `SPANS` spans.

    Ids and the names in addresses are drawn anew for each, of the same length as they were.
    """
    return [_redrawn(captured_batch(), random.Random(seed)) for seed in range(BATCHES)]


def captured_batch() -> bytes:
    """Return the largest captured request of traces."""
    return max((body for otlp, body in captures() if otlp.signal == "traces"), key=len)


def events() -> list[bytes]:
    """Return `EVENTS` bodies of ``POST /log``: what Open WebUI tells of a finished answer."""
    draw = random.Random(1)
    return [
        msgspec.json.encode(
            {
                "event": "chat_completed",
                "payload": {
                    "user_id": f"u-{draw.randrange(10**6)}",
                    "session_id": _uuid(draw),
                    "model": draw.choice(_MODELS),
                    "latency_ms": draw.randrange(80, 9000),
                    "prompt_tokens": draw.randrange(10, 4000),
                    "completion_tokens": draw.randrange(10, 900),
                    "finish_reason": "stop",
                },
            }
        )
        for _ in range(EVENTS)
    ]


def _batch(draw: random.Random, finding_every: int) -> bytes:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    about: dict[str, str] = {
        "service.name": "open-webui",
        "service.version": "0.12.4",
        "service.instance.id": _uuid(draw),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.1",
        "k8s.namespace.name": "chat",
        "k8s.pod.name": f"open-webui-{draw.randrange(16**8):08x}",
    }
    for name, text in about.items():
        resource.resource.attributes.add(key=name).value.string_value = text
    kinds = (_http_server, _http_client, _model_call, _sql)
    for number in range(SPANS):
        if number % 64 == 0:
            scope = resource.scope_spans.add()
            scope.scope.name = f"opentelemetry.instrumentation.{draw.choice(_TABLES)}"
            scope.scope.version = "0.66b1"
        span = scope.spans.add(
            trace_id=draw.randbytes(16), span_id=draw.randbytes(8), parent_span_id=draw.randbytes(8)
        )
        span.start_time_unix_nano = _STARTED_NS + draw.randrange(10**12)
        span.end_time_unix_nano = span.start_time_unix_nano + draw.randrange(10**9)
        span.flags = 256
        found = finding_every and number % finding_every == 0
        for key, value in draw.choice(kinds)(draw, span).items():
            _add(span, key, value)
        if found:
            _add(span, "app.note", f"The report goes to {_word(draw, 9)}@example.com by noon.")
    return request.SerializeToString()


def _http_server(draw: random.Random, span: Span) -> dict[str, _Value]:
    method, route = draw.choice(("GET", "POST", "PUT")), draw.choice(_ROUTES)
    span.name, span.kind = f"{method} {route}", Span.SPAN_KIND_SERVER
    path = route.replace("{id}", _uuid(draw))
    return {
        "http.request.method": method,
        "http.route": route,
        "url.scheme": "http",
        "url.path": path,
        "server.address": "open-webui.chat.svc",
        "server.port": 8080,
        "network.protocol.version": "1.1",
        "user_agent.original": _BROWSER,
        "http.response.status_code": draw.choice((200, 200, 200, 201, 304, 404)),
        "http.response.body.size": draw.randrange(100_000),
    }


def _http_client(draw: random.Random, span: Span) -> dict[str, _Value]:
    span.name, span.kind = "POST", Span.SPAN_KIND_CLIENT
    return {
        "http.request.method": "POST",
        "url.full": f"http://ollama.models.svc:11434/api/{_word(draw, 6)}/{_uuid(draw)}",
        "server.address": "ollama.models.svc",
        "server.port": 11434,
        "network.peer.port": 11434,
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "http.resend_count": draw.randrange(3),
        "peer.service": "ollama",
        "thread.name": f"worker-{draw.randrange(40)}",
        "code.function.name": f"open_webui.routers.{draw.choice(_TABLES)}.{_word(draw, 10)}",
        "request.trace.ref": _uuid(draw),
    }


def _model_call(draw: random.Random, span: Span) -> dict[str, _Value]:
    model = draw.choice(_MODELS)
    span.name, span.kind = f"chat {model}", Span.SPAN_KIND_CLIENT
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": f"chatcmpl-{_uuid(draw)}",
        "gen_ai.request.temperature": 0.1 * draw.randrange(10),
        "gen_ai.request.max_tokens": 1024,
        "gen_ai.response.finish_reasons": "stop",
        "gen_ai.usage.input_tokens": draw.randrange(4000),
        "gen_ai.usage.output_tokens": draw.randrange(900),
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": _uuid(draw),
        "server.address": "models.chat.svc",
    }


def _sql(draw: random.Random, span: Span) -> dict[str, _Value]:
    table = draw.choice(_TABLES)
    span.name, span.kind = f"SELECT {table}", Span.SPAN_KIND_CLIENT
    return {
        "db.system.name": "postgresql",
        "db.namespace": "webui",
        "db.operation.name": "SELECT",
        "db.collection.name": table,
        "db.query.text": (
            f"SELECT {table}.id, {table}.title, {table}.meta, {table}.updated_at FROM {table} "
            f"WHERE {table}.id = $1 AND {table}.{_word(draw, 8)} IS NOT NULL "
            f"ORDER BY {table}.updated_at DESC LIMIT $2"
        ),
        "server.address": "postgres.chat.svc",
        "server.port": 5432,
        "db.response.returned_rows": draw.randrange(200),
        "request.trace.ref": _uuid(draw),
    }


def _add(span: Span, key: str, value: _Value) -> None:
    given = span.attributes.add(key=key).value
    if isinstance(value, bool):
        given.bool_value = value
    elif isinstance(value, int):
        given.int_value = value
    elif isinstance(value, float):
        given.double_value = value
    else:
        given.string_value = value


_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS = re.compile(rb"[a-z.]+(?=(?:@|%40)[a-z.]+)")


def _redrawn(body: bytes, draw: random.Random) -> bytes:
    """Return a request with other ids and addresses of the same lengths."""
    request = ExportTraceServiceRequest.FromString(body)
    traces: dict[bytes, bytes] = {}
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                span.trace_id = traces.setdefault(span.trace_id, draw.randbytes(16))
                span.span_id = draw.randbytes(8)
    body = request.SerializeToString()
    # Those of the same name stay of the same name.
    names: dict[bytes, bytes] = {}

    def other_id(match: re.Match[bytes]) -> bytes:
        return names.setdefault(match[0], _uuid(draw).encode())

    def other_address(match: re.Match[bytes]) -> bytes:
        return names.setdefault(match[0], _word(draw, len(match[0])).encode())

    return _ADDRESS.sub(other_address, _ID.sub(other_id, body))


def _uuid(draw: random.Random) -> str:
    return str(uuid.UUID(bytes=draw.randbytes(16), version=4))


def _word(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=length))
