"""``POST /redact`` and ``GET /redactions`` of a running sidecar."""

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.process import SidecarProcess, sidecar_process


def redact(sidecar: SidecarProcess, content: bytes, kind: str) -> httpx2.Response:
    headers = {"content-type": kind}
    return httpx2.post(f"{sidecar.url}/redact", content=content, headers=headers)


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; charset=utf-8"])
def test_text_comes_back_with_its_findings(sidecar: SidecarProcess, kind: str) -> None:
    answer = redact(sidecar, "é alice@example.com".encode(), kind)
    assert answer.json() == {
        "redacted": "é [REDACTED_EMAIL]",
        "findings": [{"rule": "email", "start": 2, "end": 19, "path": ""}],
    }


@pytest.mark.parametrize("value", [1, "x", [], {}, {"a": [1.5, None, True]}])
def test_clean_json_comes_back_as_it_is(sidecar: SidecarProcess, value: Any) -> None:
    answer = httpx2.post(f"{sidecar.url}/redact", json=value)
    assert answer.json() == {"redacted": value, "findings": []}


def test_json_is_redacted_at_any_depth(sidecar: SidecarProcess) -> None:
    answer = httpx2.post(f"{sidecar.url}/redact", json={"a": ["bob@example.org"]})
    assert answer.json() == {
        "redacted": {"a": ["[REDACTED_EMAIL]"]},
        "findings": [{"rule": "email", "start": 0, "end": 15, "path": "/a/0"}],
    }


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "text/plain", 400),
        (b"x", "text/html", 415),
        (b"x", "", 415),
        (b"[" * 65 + b"]" * 65, "application/json", 422),
    ],
)
def test_faults(sidecar: SidecarProcess, content: bytes, kind: str, status: int) -> None:
    answer = redact(sidecar, content, kind)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_counts_are_by_signal_key_and_rule_without_values() -> None:
    with sidecar_process() as sidecar:
        assert httpx2.get(f"{sidecar.url}/redactions").json() == []
        for _ in range(2):
            payload = {"user": {"email": "x"}, "a@b.example": 1}
            httpx2.post(f"{sidecar.url}/log", json={"event": "e", "payload": payload})
        rows = httpx2.get(f"{sidecar.url}/redactions")
        assert {tuple(row.values()) for row in rows.json()} == {
            ("events", "user.email", "personal-by-name", "enforce", 2),
            ("events", "", "email", "enforce", 2),
        }
        assert "a@b.example" not in rows.text
        # What is only asked about is not counted.
        redact(sidecar, b"alice@example.com", "text/plain")
        assert httpx2.get(f"{sidecar.url}/redactions").json() == rows.json()
        metrics = httpx2.get(f"{sidecar.metrics_url}/metrics").text
        sample = '_findings_total{mode="enforce",rule="personal-by-name",signal="events"} 2.0'
        assert sample in metrics


def test_counts_outlive_the_rule(tmp_path: Path) -> None:
    """They are since the start, whatever rules were in force."""
    rule = "version: 1\nrules:\n  - {id: %s, find: email}\n"
    (tmp_path / "10.yaml").write_text(rule % "before")
    with sidecar_process({"SIDECAR_RULES": str(tmp_path)}) as sidecar:
        event = {"event": "e", "payload": {"note": "alice@example.com"}}
        httpx2.post(f"{sidecar.url}/log", json=event)
        (tmp_path / "10.yaml").write_text(rule % "after")
        deadline = time.monotonic() + 10
        while "AFTER" not in redact(sidecar, b"alice@example.com", "text/plain").text:
            assert time.monotonic() < deadline
        httpx2.post(f"{sidecar.url}/log", json=event)
        rows = httpx2.get(f"{sidecar.url}/redactions").json()
    assert [(row["rule"], row["count"]) for row in rows] == [("before", 1), ("after", 1)]
