"""``POST /log`` and ``POST /log/batch`` of a running sidecar."""

import uuid
from typing import Any

import httpx2
import msgspec
import pytest

from tests.process import SidecarProcess, sidecar_process

JSON = {"content-type": "application/json"}


def post(sidecar: SidecarProcess, path: str, content: bytes, **headers: str) -> httpx2.Response:
    return httpx2.post(f"{sidecar.url}{path}", content=content, headers={**JSON, **headers})


def log(sidecar: SidecarProcess, event: str, payload: dict[str, Any]) -> dict[str, Any]:
    answer = httpx2.post(f"{sidecar.url}/log", json={"event": event, "payload": payload})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def test_an_event_is_acknowledged_redacted_and_passed_on() -> None:
    payload = {
        "userId": 42,
        "Session-ID": "s-1",
        "model": "gpt-mini",
        "note": "mail alice@example.com",
        "nested": {"api_key": ["k"], "userId": "again", "deep": [{"ip": "203.0.113.77"}]},
        "card": 4111111111111111,
        "latency_ms": 1250,
        "none": None,
    }
    with sidecar_process() as sidecar:
        answer = log(sidecar, "chat_completed", payload)
        assert answer.keys() == {"status", "event_id", "redacted_fields"}
        assert answer["status"] == "logged"
        assert uuid.UUID(answer["event_id"]).version == 4
        assert answer["redacted_fields"] == [
            "userId",
            "Session-ID",
            "note",
            "api_key",
            "ip",
            "card",
        ]
        sidecar.stop()
        (line,) = sidecar.lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "signal": "events",
        "event_id": answer["event_id"],
        "event": "chat_completed",
        "payload": {
            "userId": "[REDACTED]",
            "Session-ID": "[REDACTED]",
            "model": "gpt-mini",
            "note": "mail [REDACTED_EMAIL]",
            "nested": {
                "api_key": "[REDACTED]",
                "userId": "[REDACTED]",
                "deep": [{"ip": "[REDACTED]"}],
            },
            "card": "[REDACTED_CARD]",
            "latency_ms": 1250,
            "none": None,
        },
    }


def test_a_given_timestamp_is_kept() -> None:
    with sidecar_process() as sidecar:
        log(sidecar, "e", {"timestamp": "2026-01-02T03:04:05Z"})
        sidecar.stop()
        (line,) = sidecar.lines()
    assert line["timestamp"] == line["payload"]["timestamp"] == "2026-01-02T03:04:05Z"


def test_a_batch_keeps_the_good_records_in_both_forms() -> None:
    good = {"event": "e", "payload": {"n": 1}}
    bad = {"event": 1, "payload": {}}
    deep: Any = {}
    for _ in range(70):
        deep = {"a": deep}
    records = [good, bad, {"payload": {}}, good, {"event": "e", "payload": deep}]
    expected = [
        (1, "Expected `str`, got `int` - at `$.event`."),
        (2, "Object missing required field `event`."),
        (4, "The payload is nested deeper than 64 levels."),
    ]
    with sidecar_process() as sidecar:
        for body, content_type in (
            (msgspec.json.encode(records), "application/json"),
            (b"\n\n".join(map(msgspec.json.encode, records)) + b"\n", "application/x-ndjson"),
        ):
            answer = httpx2.post(
                f"{sidecar.url}/log/batch", content=body, headers={"content-type": content_type}
            )
            assert answer.status_code == 200
            assert answer.json()["accepted"] == 2
            rejected = answer.json()["rejected"]
            assert [(row["index"], row["detail"]) for row in rejected] == expected
        sidecar.stop()
        assert [line["payload"] for line in sidecar.lines()] == [{"n": 1}] * 4


def test_a_line_that_is_no_json_is_one_rejection(sidecar: SidecarProcess) -> None:
    answer = post(sidecar, "/log/batch", b'{"event":"e","payload":{}}\n{nonsense')
    assert answer.json() == {
        "accepted": 1,
        "rejected": [{"index": 1, "detail": "The record is not valid JSON."}],
    }


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "detail"),
    [
        ("/log", b"{", {}, 400, "not valid JSON"),
        ("/log", b"\xff", {}, 400, "not valid JSON"),
        ("/log", b'{"event":"e","payload":{"n":NaN}}', {}, 400, "not valid JSON"),
        ("/log", b"[" * 100_000, {}, 400, "nested too deeply"),
        ("/log", b'{"event":"e"}', {}, 422, "missing required field `payload`"),
        ("/log", b'{"event":7,"payload":{}}', {}, 422, "got `int` - at `$.event`"),
        ("/log", b'{"event":"","payload":{}}', {}, 422, "at `$.event`"),
        ("/log", b'{"event":"e","payload":[]}', {}, 422, "at `$.payload`"),
        ("/log", b"[]", {}, 422, "Expected `object`"),
        ("/log", b'{"event":"e","payload":' + b'{"a":' * 70 + b"1" + b"}" * 71, {}, 422, "64"),
        ("/log", b"{}", {"content-type": "text/xml"}, 415, "application/json"),
        ("/log", b"{}", {"content-encoding": "br"}, 415, "coding"),
        ("/log", b"{}", {"content-encoding": "gzip"}, 400, "gzip"),
        ("/log", b" " * (16 * 2**20 + 1), {}, 413, "larger"),
        ("/log/batch", b"[{]", {}, 400, "not valid JSON"),
        ("/log/batch", b"", {"content-type": "text/plain"}, 415, "ndjson"),
    ],
)
def test_faults_are_problems(
    sidecar: SidecarProcess,
    path: str,
    content: bytes,
    headers: dict[str, str],
    status: int,
    detail: str,
) -> None:
    answer = post(sidecar, path, content, **headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert detail in answer.json()["detail"]


def test_events_feed_the_kept_metrics() -> None:
    with sidecar_process() as sidecar:
        log(sidecar, "content_repair", {})
        log(sidecar, "policy_drift", {})
        log(sidecar, "chat", {"latency_ms": 1250, "tokens_per_second": 41.5})
        log(sidecar, "chat", {"latency_ms": "fast", "tokens_per_second": -1})
        log(sidecar, "chat", {"latency_ms": 10**400})
        for url in (sidecar.url, sidecar.metrics_url):
            text = httpx2.get(f"{url}/metrics").text
            for sample in (
                "telemetry_cache_repair_rate_total 1.0",
                "telemetry_cache_drift_incidents_total 1.0",
                "telemetry_cache_log_events_total 5.0",
                "telemetry_cache_ttfb_seconds_count 1.0",
                "telemetry_cache_ttfb_seconds_sum 1.25",
                "telemetry_cache_tokens_per_second 41.5",
            ):
                assert f"\n{sample}\n" in text
