import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.exporters import build
from sidecar.exporters.loki import LokiExporter, push_request, push_url
from sidecar.pipeline.batch import Batch
from sidecar.pipeline.exporter import Refused, Retryable
from sidecar.settings import load_settings
from tests.collector import Answer, open_collector
from tests.exporters.conftest import TlsFiles

NOW = 1_767_323_045_000_000_000  # 2026-01-02T03:04:05Z


def line(
    event: str = "chat", timestamp: str = "2026-01-02T03:04:04.5Z", **payload: object
) -> bytes:
    return msgspec.json.encode(
        {"event_id": "e1", "event": event, "timestamp": timestamp, "payload": payload}
    )


def entries(body: bytes) -> list[tuple[str, str, dict[str, str]]]:
    push = msgspec.json.decode(push_request(body, NOW))
    return [tuple(entry) for stream in push["streams"] for entry in stream["values"]]


def test_entry_has_time_payload_and_metadata() -> None:
    assert entries(line(model="llama", n=1)) == [
        (
            "1767323044500000000",
            '{"model":"llama","n":1}',
            {"event": "chat", "event_id": "e1"},
        )
    ]


def test_labels_do_not_depend_on_the_events() -> None:
    push = msgspec.json.decode(push_request(line("a", x=1) + b"\n" + line("b", y=2), NOW))
    assert [stream["stream"] for stream in push["streams"]] == [
        {"service_name": "telemetry-cache-sidecar"}
    ]


@pytest.mark.parametrize(
    "timestamp",
    ["yesterday", "1999-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"],
)
def test_time_that_loki_would_refuse_is_kept_as_metadata(timestamp: str) -> None:
    [(moment, _, metadata)] = entries(line(timestamp=timestamp))
    assert moment == str(NOW)
    assert metadata["timestamp"] == timestamp


def test_event_without_time_gets_the_present_one() -> None:
    [(moment, _, metadata)] = entries(line(timestamp=""))
    assert moment == str(NOW)
    assert "timestamp" not in metadata


def test_metadata_is_bounded() -> None:
    [(_, _, metadata)] = entries(line(event="x" * 100_000))
    assert sum(map(len, metadata.values())) < 64_000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.text(), st.dictionaries(st.text(), json_values)), min_size=1))
def test_every_event_is_one_entry_with_its_payload(events: list[tuple[str, object]]) -> None:
    body = b"\n".join(
        msgspec.json.encode({"event_id": "e", "event": name, "timestamp": "", "payload": payload})
        for name, payload in events
    )
    pushed = [msgspec.json.decode(entry[1]) for entry in entries(body)]
    assert pushed == [msgspec.json.decode(msgspec.json.encode(p)) for _, p in events]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"event": 1}', b"\xff", b"[" * 100_000])
def test_malformed_events_are_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        push_request(body, NOW)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://loki:3100", "http://loki:3100/loki/api/v1/push"),
        ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
        ("https://gateway/tenant/", "https://gateway/tenant/loki/api/v1/push"),
        ("http://loki:3100/loki/api/v1/push", "http://loki:3100/loki/api/v1/push"),
        ("http://loki/loki/api/v1/push/?x=1", "http://loki/loki/api/v1/push?x=1"),
    ],
)
def test_push_path_is_added_once(url: str, expected: str) -> None:
    assert push_url(url) == expected


async def test_push_over_http_with_gzip_and_basic_authentication() -> None:
    async with open_collector() as collector:
        exporter = LokiExporter(f"http://user:secret@127.0.0.1:{collector.port}")
        assert await exporter.export(Batch("events", line(model="llama"), 1)) == 0
        await exporter.aclose()
    [request] = collector.requests
    assert request.headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert request.headers["content-encoding"] == "gzip"
    assert request.headers["content-type"] == "application/json"
    assert collector.loki_streams()[0]["values"][0][1] == '{"model":"llama"}'


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_overloaded_loki_is_retried_soon(status: int) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=status))
        exporter = LokiExporter(collector.url)
        with pytest.raises(Retryable) as failure:
            await exporter.export(Batch("events", line(), 1))
        await exporter.aclose()
    assert failure.value.retry_after is None


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_wrong_credential_or_path_is_retried_slowly(status: int) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=status))
        exporter = LokiExporter(collector.url)
        with pytest.raises(Retryable) as failure:
            await exporter.export(Batch("events", line(), 1))
        await exporter.aclose()
    assert failure.value.retry_after is not None
    assert failure.value.retry_after >= 30


async def test_bad_request_is_refused() -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=400))
        exporter = LokiExporter(collector.url)
        with pytest.raises(Refused):
            await exporter.export(Batch("events", line(), 1))
        await exporter.aclose()


async def test_own_authority_and_client_certificate_hold_for_loki_too(tls_files: TlsFiles) -> None:
    async with open_collector(tls=tls_files.server_context(client_certificate=True)) as collector:
        [exporter] = build(
            load_settings({"LOKI_URL": collector.url, **tls_files.environ(client=True)})
        )
        assert await exporter.export(Batch("events", line(), 1)) == 0
        await exporter.aclose()
    assert len(collector.loki_streams()) == 1
