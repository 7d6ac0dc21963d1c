"""Captured Open WebUI telemetry through a real process, over every transport."""

from collections.abc import Callable

import grpc
import httpx2
import pytest
import trio
from google.protobuf.message import Message

from sidecar.receivers.otlp import OtlpSignal
from sidecar.redaction.walk_otlp import count_records
from tests.captured import captures, flat, leaks, to_otlp_json
from tests.collector import Collector, open_collector
from tests.process import SidecarProcess, sidecar_process

Send = Callable[[SidecarProcess, OtlpSignal, bytes], None]


def send_http_protobuf(sidecar: SidecarProcess, otlp: OtlpSignal, body: bytes) -> None:
    headers = {"content-type": "application/x-protobuf"}
    answer = httpx2.post(f"{sidecar.otlp_http_url}{otlp.http_path}", content=body, headers=headers)
    assert answer.status_code == 200
    assert otlp.response.FromString(answer.content) == otlp.response()


def send_http_json(sidecar: SidecarProcess, otlp: OtlpSignal, body: bytes) -> None:
    document = to_otlp_json(otlp.request.FromString(body))
    headers = {"content-type": "application/json"}
    answer = httpx2.post(f"{sidecar.url}{otlp.http_path}", content=document, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})


def send_grpc(sidecar: SidecarProcess, otlp: OtlpSignal, body: bytes) -> None:
    with grpc.insecure_channel(sidecar.grpc_target) as channel:
        call = channel.unary_unary(otlp.grpc_path, response_deserializer=otlp.response.FromString)
        assert call(body, timeout=30) == otlp.response()


def received(collector: Collector, otlp: OtlpSignal) -> Message:
    return otlp.request.FromString(b"".join(collector.bodies(otlp.http_path)))


@pytest.mark.parametrize("send", [send_http_protobuf, send_http_json, send_grpc])
async def test_captures_leak_nothing_and_lose_nothing(send: Send) -> None:
    sent: dict[str, list[bytes]] = {}
    signals: dict[str, OtlpSignal] = {}
    async with open_collector() as collector:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}

        def replay() -> int:
            with sidecar_process(environ) as sidecar:
                for otlp, body in captures():
                    send(sidecar, otlp, body)
                    sent.setdefault(otlp.signal, []).append(body)
                    signals[otlp.signal] = otlp
                return sidecar.stop()

        assert await trio.to_thread.run_sync(replay) == 0
        assert len(signals) == 3
        for signal, otlp in signals.items():
            before = otlp.request.FromString(b"".join(sent[signal]))
            after = received(collector, otlp)
            assert leaks(after) == []
            assert count_records(after) == count_records(before) > 0
            assert_same_but_for_leaks(before, after)


def assert_same_but_for_leaks(before: Message, after: Message) -> None:
    """Assert that every value without a planted one in it came through untouched.

    But for statements, which lose whatever is no operation, table, column or key prefix.
    """
    leaking = {path for path, _ in leaks(before)}
    old, new = dict(flat(before)), dict(flat(after))
    assert list(new) == list(old)
    changed = {path for path in old if old[path] != new[path]}
    statements = {path for path in changed if "(db.statement)" in path}
    for path in statements:
        assert new[path].endswith("?")
        assert new[path].split()[0] == old[path].split()[0]
    assert changed - statements == leaking - statements
    for path in changed - statements:
        assert "REDACTED" in new[path]
        # What stands around the value stays: routes, methods, keys, parameter names.
        assert new[path][:4] == old[path][:4] or old[path].count(" ") == 0


def test_the_captures_do_leak_before() -> None:
    places = {
        (otlp.signal, path, value)
        for otlp, body in captures()
        for path, value in leaks(otlp.request.FromString(body))
    }
    assert len({place[:2] for place in places}) == 42
    assert {value for _, _, value in places} == {
        "Alice Johnson",  # as part of the address
        "alice.johnson@example.com",
        "bob.smith@corp.example.org",
        "457-55-5462",
        "4111 1111 1111 1111",
        "+1 (415) 555-2671",
        "FR7630006000011234567890189",
        "203.0.113.77",
    }
