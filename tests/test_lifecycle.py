"""Start and stop of a real process."""

import signal
import socket
import time
from pathlib import Path
from typing import Any

import grpc
import httpx2
import msgspec
import pytest
import trio

from sidecar import __version__
from sidecar.cli import main
from sidecar.receivers.otlp import OTLP_SIGNALS
from tests.collector import NEVER, Answer, open_collector
from tests.process import SidecarProcess, sidecar_process


def failed_start(environ: dict[str, str]) -> str:
    """Start a sidecar that must not start; return the one line it prints."""
    process = SidecarProcess(environ)
    try:
        assert process.process.wait(20) == 1
        (line,) = [line for line in process.log.splitlines() if not line.startswith("{")]
        return line
    finally:
        process.close()


@pytest.mark.parametrize(
    "variable",
    ["SIDECAR_PORT", "SIDECAR_OTLP_HTTP_PORT", "SIDECAR_OTLP_GRPC_PORT", "PROMETHEUS_PORT"],
)
def test_a_port_that_is_taken_is_one_clear_line(variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failed_start({variable: str(port)})
    assert line == (
        f"sidecar: {variable}='{port}': cannot listen on 127.0.0.1: Address already in use"
    )


def test_a_bad_variable_is_one_clear_line() -> None:
    line = failed_start({"SIDECAR_DRAIN_SECONDS": "soon"})
    assert line == (
        "sidecar: SIDECAR_DRAIN_SECONDS='soon' is not allowed: "
        "use a number of seconds from 0 to 3600"
    )


def test_unusable_rules_are_one_clear_line(tmp_path: Path) -> None:
    missing = failed_start({"SIDECAR_RULES": str(tmp_path / "none")})
    assert missing.endswith("none: the rules folder cannot be read: No such file or directory")
    assert "there is no rule" in failed_start({"SIDECAR_RULES": str(tmp_path)})
    (tmp_path / "a.yaml").write_text("version: 1\nrules:\n  - id: x\n    patern: a\n")
    line = failed_start({"SIDECAR_RULES": str(tmp_path)})
    assert line == "sidecar: a.yaml:4: rule 'x': unknown field `patern`: did you mean `pattern`?"


def test_ports_that_are_turned_off_are_not_listened_on() -> None:
    off = {"SIDECAR_OTLP_HTTP_PORT": "0", "SIDECAR_OTLP_GRPC_PORT": "0"}
    with sidecar_process(off) as sidecar:
        assert httpx2.post(f"{sidecar.url}/v1/logs", json={}).status_code == 200
        ready = next(
            msgspec.json.decode(line) for line in sidecar.log.splitlines() if "ready" in line
        )
        assert ready.keys() & {"sidecar_otlp_http_port", "sidecar_otlp_grpc_port"} == set()


def test_it_tells_where_to_point_open_webui() -> None:
    with sidecar_process() as sidecar:
        assert f'"OTEL_EXPORTER_OTLP_ENDPOINT": "http://{sidecar.grpc_target}"' in sidecar.log


def test_only_metrics_and_health_can_be_reached_from_the_cluster(sidecar: SidecarProcess) -> None:
    for path in ("/metrics", "/health", "/healthz", "/livez", "/readyz"):
        for url in (sidecar.metrics_url, sidecar.url):
            assert httpx2.get(url + path).status_code == 200, url + path
    for path in ("/docs", "/openapi.json", "/redactions", "/cache/stats"):
        assert httpx2.get(sidecar.url + path).status_code == 200, path
        assert httpx2.get(sidecar.metrics_url + path).status_code == 404, path
    assert httpx2.get(f"{sidecar.url}/healthz").json() == {"ok": True, "service": "telemetry-cache"}


def test_openmetrics_on_request(sidecar: SidecarProcess) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = httpx2.get(f"{sidecar.metrics_url}/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_finishes_what_is_in_flight_and_flushes_the_queue(number: int) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(delay=1.0))  # the queue fills behind the first export

        def run() -> tuple[int, dict[str, Any]]:
            with sidecar_process({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as sidecar:
                for index in range(20):
                    event = {"event": "e", "payload": {"index": index}}
                    httpx2.post(f"{sidecar.url}/log", json=event).raise_for_status()
                return finish_after_stop(sidecar, number)

        code, answer = await trio.to_thread.run_sync(run)
        assert code == 0
        assert answer["status"] == "logged"
        records = collector.logs().resource_logs
        assert sum(len(s.log_records) for r in records for s in r.scope_logs) == 21


def finish_after_stop(sidecar: SidecarProcess, number: int) -> tuple[int, dict[str, Any]]:
    """Stop the sidecar between the head and the body of a request."""
    body = b'{"event":"e","payload":{"index":20}}'
    head = (
        b"POST /log HTTP/1.1\r\nhost: sidecar\r\ncontent-type: application/json\r\n"
        b"expect: 100-continue\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    host, port = sidecar.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        # Sent when the handler waits for the body.
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        sidecar.process.send_signal(number)
        deadline = time.monotonic() + 10
        while httpx2.get(f"{sidecar.metrics_url}/readyz").status_code != 503:
            assert time.monotonic() < deadline
        connection.sendall(body)
        with connection.makefile("rb") as answer:
            document = answer.read().partition(b"\r\n\r\n")[2]
    return sidecar.process.wait(30), msgspec.json.decode(document)


def test_while_it_drains_new_requests_are_told_to_come_back() -> None:
    # Nothing listens there, so the queue cannot be flushed.
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "SIDECAR_DRAIN_SECONDS": "4"}
    event = {"event": "e", "payload": {}}
    with sidecar_process(environ) as sidecar, httpx2.Client(trust_env=False) as kept_alive:
        assert kept_alive.post(f"{sidecar.url}/log", json=event).status_code == 200
        sidecar.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while httpx2.get(f"{sidecar.metrics_url}/readyz").status_code != 503:
            assert time.monotonic() < deadline
        for client in (kept_alive, httpx2):
            answer = client.post(f"{sidecar.url}/log", json=event)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            answer = client.post(f"{sidecar.otlp_http_url}/v1/logs", json={})
            assert (answer.status_code, answer.json()["code"]) == (503, 14)
        with grpc.insecure_channel(sidecar.grpc_target) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(OTLP_SIGNALS[0].grpc_path)(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "grpc-status-details-bin" in dict(caught.value.trailing_metadata())
        assert sidecar.process.wait(20) == 0


async def test_when_the_time_is_up_it_ends_all_the_same() -> None:
    async with open_collector() as collector:
        collector.decide = lambda _: Answer(delay=NEVER)
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "SIDECAR_DRAIN_SECONDS": "1"}

        def run() -> tuple[int, float, str]:
            with sidecar_process(environ) as sidecar:
                httpx2.post(f"{sidecar.url}/log", json={"event": "e", "payload": {}})
                started = time.monotonic()
                return sidecar.stop(), time.monotonic() - started, sidecar.log

        code, seconds, log = await trio.to_thread.run_sync(run)
    assert code == 0
    assert 1 <= seconds < 10
    assert '"event": "records_left"' in log


def test_health_of_the_command_line(sidecar: SidecarProcess) -> None:
    assert main(["health", "--url", f"{sidecar.metrics_url}/readyz"]) == 0
    assert main(["health", "--url", f"{sidecar.metrics_url}/nothing"]) == 1
    assert main(["health", "--url", "http://127.0.0.1:1/readyz"]) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "printed"),
    [
        (["--help"], 0, "run the service"),
        (["run", "--help"], 0, "examples:\n  sidecar run\n"),
        (["health", "--help"], 0, "examples:\n  sidecar health\n"),
        (["--version"], 0, f"sidecar {__version__}\n"),
        ([], 2, "required: COMMAND"),
        (["walk"], 2, "invalid choice: 'walk'"),
    ],
)
def test_usage(
    arguments: list[str], code: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == code
    output = capsys.readouterr()
    assert printed in output.out + output.err
