"""Log text as a pod with Open WebUI and what stands around it writes it; the same in every run."""

import json
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

from tests.redaction.token_samples import TOKEN_VALUES

BLOCK_BYTES = 65536
_HEX = "0123456789abcdef"
_ROUTES = (
    *("/api/models", "/api/chat/completions", "/api/v1/chats/new", "/api/v1/files/", "/health"),
    *("/api/v1/memories/add", "/api/v1/knowledge/create", "/api/v1/retrieval/process/web"),
)
_MODULES = ("models.config", "routers.openai", "utils.session_pool", "retrieval.web.utils", "main")
_TOKENS = ("github", "openai", "slack", "stripe", "google-api-key", "hugging-face", "gitlab")

Draw = random.Random


def clean_text(size: int) -> str:
    """Return about so many characters of lines in which there is nothing to find."""
    return "".join(_lines(size, 0))


def dirty_text(size: int) -> str:
    """Return the same kind of text, with something to find in every tenth line."""
    return "".join(_lines(size, 10))


def blocks(text: str) -> list[str]:
    """Return a text in pieces of whole lines, of at most `BLOCK_BYTES` where lines allow it."""
    pieces, start = [], 0
    while start < len(text):
        end = len(text)
        if end - start > BLOCK_BYTES:
            end = text.rfind("\n", start, start + BLOCK_BYTES) + 1
        pieces.append(text[start:end])
        start = end
    return pieces


def _lines(size: int, every: int) -> Iterator[str]:
    draw = random.Random(20261123)
    written = number = 0
    while written < size:
        number += 1
        found = every and number % every == 0
        line = draw.choice(_DIRTY if found else _CLEAN)(draw)
        line = f"{_time(draw)} {line}\n"
        written += len(line)
        yield line


def _time(draw: Draw) -> str:
    hour, minute, second = draw.randrange(24), draw.randrange(60), draw.randrange(60)
    return f"2026-11-23T{hour:02}:{minute:02}:{second:02}.{draw.randrange(10**6):06}Z"


def _hex(draw: Draw, length: int) -> str:
    return "".join(draw.choices(_HEX, k=length))


def _uuid(draw: Draw) -> str:
    digits = _hex(draw, 30)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-a{digits[15:18]}-{digits[18:]}"


def _access(draw: Draw) -> str:
    return (
        f"INFO:     127.0.0.1:{draw.randrange(32768, 61000)} - "
        f'"POST {draw.choice(_ROUTES)} HTTP/1.1" {draw.choice((200, 200, 200, 304, 404, 500))} OK'
    )


def _module(draw: Draw) -> str:
    module = draw.choice(_MODULES)
    return (
        f"| INFO     | open_webui.{module}:lifespan:{draw.randrange(20, 2000)} - "
        f"Seeded {draw.randrange(400)} new config defaults in {draw.random():.3f} s"
    )


def _span(draw: Draw) -> str:
    return json.dumps(
        {
            "level": "info",
            "trace_id": _hex(draw, 32),
            "span_id": _hex(draw, 16),
            "http.route": draw.choice(_ROUTES),
            "http.status_code": 200,
            "duration_ms": round(draw.random() * 900, 3),
            "message": "request handled",
        }
    )


def _usage(draw: Draw) -> str:
    asked, answered = draw.randrange(4000), draw.randrange(2000)
    return (
        f"INFO chat {_uuid(draw)} model=gpt-4o-mini-2024-07-18 prompt_tokens={asked} "
        f"completion_tokens={answered} total_tokens={asked + answered} finish_reason=stop"
    )


def _statement(draw: Draw) -> str:
    return (
        "INFO sqlalchemy.engine.Engine SELECT chat.id, chat.title, chat.updated_at FROM chat "
        f"WHERE chat.archived = ? ORDER BY chat.updated_at DESC LIMIT {draw.randrange(10, 99)}"
    )


def _redis(draw: Draw) -> str:
    return f"DEBUG redis SET open-webui:usage_cleanup_lock {_uuid(draw)} NX EX 60"


def _trace(draw: Draw) -> str:
    return (
        '  File "/usr/local/lib/python3.11/site-packages/open_webui/'
        f'{draw.choice(_MODULES).replace(".", "/")}.py", line {draw.randrange(20, 2000)}, '
        "in process_request"
    )


def _kubelet(draw: Draw) -> str:
    return (
        f"node-{draw.randrange(9)} kubelet[1182]: pod_workers.go:{draw.randrange(2000)}] "
        f'"Error syncing pod, skipping" podUID="{_uuid(draw)}"'
    )


def _image(draw: Draw) -> str:
    return (
        f'Normal Pulled container image "ghcr.io/open-webui/open-webui@sha256:{_hex(draw, 64)}" '
        "already present on machine"
    )


def _collector(draw: Draw) -> str:
    return (
        f"info service/telemetry.go:{draw.randrange(300)} Batch sent "
        f'{{"kind": "exporter", "data_type": "traces", "name": "otlp", '
        f'"spans": {draw.randrange(512)}, "bytes": {draw.randrange(300_000)}}}'
    )


def _prose(draw: Draw) -> str:
    return (
        "WARN the collector did not answer within the time allowed, the batch stays in the queue "
        f"and is tried again in {draw.randrange(1, 60)} seconds, attempt {draw.randrange(1, 9)}"
    )


_CLEAN: tuple[Callable[[Draw], str], ...] = (
    *(_access, _access, _access, _module, _module, _span, _span, _usage, _statement, _redis),
    *(_trace, _kubelet, _image, _collector, _prose),
)


def _person(draw: Draw) -> str:
    name = draw.choice(("alice.johnson", "bob", "carol+news", "dave_m", "erin.oneil"))
    return f"{name}{draw.randrange(1000)}@mail.example.org"


def _address(draw: Draw) -> str:
    return f"203.0.113.{draw.randrange(1, 255)}"


def _email(draw: Draw) -> str:
    return f"INFO open_webui.routers.auths signed in {_person(draw)} as user"


def _email_in_json(draw: Draw) -> str:
    return json.dumps({"level": "info", "user": {"email": _person(draw)}, "event": "chat"})


def _email_in_query(draw: Draw) -> str:
    return (
        f'127.0.0.1:{draw.randrange(32768, 61000)} - "GET /api/v1/users/search'
        f'?query={quote(_person(draw))}&page=1 HTTP/1.1" 200'
    )


def _client(draw: Draw) -> str:
    return f'{_address(draw)} - - "GET /api/models HTTP/1.1" 200 {draw.randrange(9000)} "-"'


def _client_v6(draw: Draw) -> str:
    return f"WARN blocked client 2001:db8::{_hex(draw, 4)}:{_hex(draw, 4)} after 5 attempts"


def _card(draw: Draw) -> str:
    return f"ERROR payment refused for card 4111 1111 1111 1111, code {draw.randrange(99)}"


def _iban(draw: Draw) -> str:
    return f"INFO refund {draw.randrange(999)} goes to FR76 3000 6000 0112 3456 7890 189"


def _ssn(draw: Draw) -> str:
    return f"DEBUG prompt: my SSN is 457-55-{draw.randrange(1000, 9999)}, can you file this"


def _phone(draw: Draw) -> str:
    return f"INFO callback to +1 (415) 555-{draw.randrange(1000, 9999)} scheduled"


def _token(draw: Draw) -> str:
    return f"DEBUG header x-key {TOKEN_VALUES[draw.choice(_TOKENS)]} sent upstream"


def _bearer(draw: Draw) -> str:
    return f"DEBUG > Authorization: Bearer {_hex(draw, 40)}"


def _password(draw: Draw) -> str:
    return f"WARN login failed: password=Tr0ub4dor{draw.randrange(99)} source=form"


def _database(draw: Draw) -> str:
    return f"INFO connecting to postgres://svc:Zq{draw.randrange(9999)}x@db.internal:5432/app"


_DIRTY: tuple[Callable[[Draw], str], ...] = (
    *(_email, _email_in_json, _email_in_query, _client, _client_v6, _card, _iban, _ssn, _phone),
    *(_token, _bearer, _password, _database),
)
