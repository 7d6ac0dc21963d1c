"""The guide to the proxy: every example in it does what it says there, and so do its tables."""

import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote_to_bytes

import httpx2
import msgspec
import pytest
import trio
import yaml
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.cache import http_keys
from sidecar.cache.rfc9111 import Forwarded
from sidecar.http import headers
from sidecar.metrics import REGISTRY
from sidecar.proxy.route import CachedPost, ProxyRoute, RouteCache, Timeouts
from sidecar.redaction.engine import check_rules
from sidecar.redaction.rules import RulesFile
from sidecar.settings import default_rules_dir
from tests.curl import ask
from tests.examples import ROOT, Shell, broken_links, code, sections, table
from tests.process import SidecarProcess
from tests.proxy.rules import redact
from tests.upstream import Behaviour, Upstream, open_upstream

GUIDE = (ROOT / "docs" / "proxy.md").read_text()
SECTIONS = sections(GUIDE)
BLOCKS = [block for section in SECTIONS for block in section.blocks]


def reloads(sidecar: SidecarProcess) -> float:
    """Return how many changes of the rules it has seen."""
    text = httpx2.get(f"{sidecar.metrics_url}/metrics", trust_env=False).text
    counts = re.findall(r"^telemetry_cache_rules_reloads_total\{.*\} (.*)$", text, re.MULTILINE)
    assert len(counts) == 2
    return sum(map(float, counts))


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {block.language for block in BLOCKS} == {"yaml", "console"}
    assert all(block.path for block in BLOCKS if block.language == "yaml")
    assert GUIDE.count("```") == 2 * len(BLOCKS)


def test_every_example_answers_as_printed(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with ExitStack() as stack:
        shell = Shell(folder, stack)
        for block in BLOCKS:
            seen = reloads(shell.sidecars[0]) if shell.sidecars else 0
            for command, answer, printed in shell.follow(block):
                assert answer == printed, command
            while block.path and shell.sidecars and reloads(shell.sidecars[0]) == seen:
                assert shell.sidecars[0].process.poll() is None
        assert "ada@example.org" not in shell.sidecars[0].log


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("A route, field by field", ProxyRoute),
        ("timeouts", Timeouts),
        ("cache", RouteCache),
        ("cache.post", CachedPost),
    ],
)
def test_the_tables_of_fields_are_those_of_routes(title: str, kind: Any) -> None:
    told = {}
    for name, default, _ in table(SECTIONS, title, "field"):
        told[code(name)[0]] = (
            yaml.safe_load(code(default)[0]) if code(default) else msgspec.NODEFAULT
        )
    declared = {}
    for field in msgspec.structs.fields(kind):
        made = field.default_factory is not msgspec.NODEFAULT
        value = field.default_factory() if made else field.default
        # A route says `{}` for what is a struct with its defaults.
        declared[field.encode_name] = {} if value == Timeouts() else value
    assert told == declared


def test_lists_of_headers_are_those_of_the_code() -> None:
    def listed(title: str, sentence: str) -> set[bytes]:
        (section,) = (s for s in SECTIONS if s.title == title)
        return {n.encode() for n in code(re.search(sentence, section.text)[1])}  # type: ignore[index]

    passing = r"\*\*credentials\*\*.*?: (.*?)\. Any other"
    assert listed("Headers, query and path", passing) == headers.CREDENTIALS
    telling = r"is told by (.*?), which enter"
    assert listed("Whose answers", telling) == set(http_keys.CREDENTIALS)


BODIES = {
    "application/json": (b'{"a": "ada@example.org", "n": 1.0}', "/x"),
    "application/vnd.api+json": (b'["ada@example.org"]', "/x"),
    "application/x-ndjson": (b'{}\n{"a": "ada@example.org"}\n', "/x"),
    "application/jsonl": (b'{"a": "ada@example.org"}', "/x"),
    "application/x-www-form-urlencoded": (b"a=ada%40example.org&b=1", "/x"),
    "text/plain": (b"from ada@example.org", "/x"),
    "text/event-stream": (b'data: {"a": "ada@example.org"}\n\n', "/x"),
    "application/x-protobuf": (
        ParseDict(
            {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "by ada@example.org"}]}]}]},
            ExportTraceServiceRequest(),
        ).SerializeToString(),
        "/v1/traces",
    ),
    "application/x-sentry-envelope": (
        b'{}\n{"type":"event"}\n{"message":"by ada@example.org"}\n',
        "/api/1/envelope/",
    ),
}


def test_bodies_of_the_types_of_the_table_are_redacted() -> None:
    told = {
        name.replace("application/…+json", "application/vnd.api+json").replace("…", "plain")
        for row in table(SECTIONS, "Bodies by their type", "`Content-Type`")
        for name in code(row[0])
        if name.startswith(("application/", "text/"))
    }
    assert told == set(BODIES)
    for kind, (body, path) in BODIES.items():
        written = unquote_to_bytes(redact(body, kind, path))
        assert b"ada@example" not in written and b"REDACTED_EMAIL" in written, kind


def test_reasons_to_ask_the_upstream_are_those_of_the_cache() -> None:
    told = " ".join(code(row[0])[0] for row in table(SECTIONS, "Cache-Status", "says"))
    assert sorted(re.findall(r"fwd=([\w-]+)", told)) == sorted(get_args(Forwarded))


def test_clients_point_at_the_routes_that_ship() -> None:
    text = (default_rules_dir() / "50-routes.yaml").read_text()
    uncommented = re.sub(r"^#(routes:| {2})", r"\1", text, flags=re.MULTILINE)
    routes = msgspec.convert(yaml.safe_load(uncommented), RulesFile).routes
    rows = table(SECTIONS, "Where clients point", "client")
    named = {re.search(r"8000/proxy/([^/`]+)", row[2])[1] for row in rows}  # type: ignore[index]
    assert named == {route.name for route in routes}


def test_metrics_of_the_guide_are_those_of_the_process() -> None:
    known = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric
        for metric in REGISTRY.collect()
    }
    assert set(re.findall(r"`(telemetry_cache_\w+)", GUIDE)) <= set(known)
    told = {
        code(row[0])[0].partition("{")[0] for row in table(SECTIONS, "Calls of models", "metric")
    }
    assert told == {name for name in known if name.startswith("telemetry_cache_model_")}


def test_faults_are_told_as_the_table_says(tmp_path: Path) -> None:
    for wrong, said in table(SECTIONS, "Changes while it runs", "route"):
        (tmp_path / "a.yaml").write_text(
            f"version: 1\nrules: [{{id: a, find: email}}]\nroutes:\n  - {code(wrong)[0]}\n"
        )
        assert check_rules(tmp_path, b"") == [f"a.yaml:4: {code(said)[0]}"]


ROUTES = """
version: 1
rules: [{id: email, find: email}]
routes:
  - {name: up, upstream: 'UPSTREAM'}
  - {name: back, upstream: 'UPSTREAM', redact: both}
  - {name: plain, upstream: 'UPSTREAM', redact: none, timeouts: {idle: 0.2}}
  - {name: cached, upstream: 'UPSTREAM', cache: {}}
  - {name: away, upstream: 'http://127.0.0.1:1'}
  - {name: tls, upstream: 'SECURE'}
  - {name: authority, upstream: 'SECURE', ca_file: /none}
  - {name: late, upstream: 'UPSTREAM', timeouts: {first_byte: 0.1}}
  - {name: one, upstream: 'UPSTREAM', concurrency: 1, timeouts: {connect: 0.1}}
  - {name: loop, upstream: 'SIDECAR/proxy/loop'}
"""
JSON = {"content-type": "application/json"}
PICTURE = {"content-type": "image/png"}
NOT_HTTP = Behaviour(raw=b"SSH-2.0-OpenSSH_9.2\r\n")
HALF_JSON = Behaviour(pieces=(b'{"note":',), headers=(("content-type", "application/json"),))


@asynccontextmanager
async def proxied(folder: Path, **environ: str) -> AsyncIterator[tuple[SidecarProcess, Upstream]]:
    """Run a sidecar with `ROUTES` to an upstream."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    async with open_upstream() as upstream:
        secure = upstream.url.replace("http:", "https:")
        text = ROUTES.replace("UPSTREAM", upstream.url).replace("SECURE", secure)
        await trio.Path(folder, "a.yaml").write_text(
            text.replace("SIDECAR", f"http://127.0.0.1:{port}")
        )
        environ |= {"SIDECAR_PORT": port, "SIDECAR_RULES": str(folder)}
        sidecar = SidecarProcess(environ)
        try:
            await trio.to_thread.run_sync(sidecar.wait_ready)
            yield sidecar, upstream
        finally:
            await trio.to_thread.run_sync(sidecar.close)


async def fault(
    sidecar: SidecarProcess,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    method: str = "",
) -> tuple[int, str]:
    """Return the status of an answer of the sidecar's own, and what it says."""

    def call() -> tuple[int, str]:
        verb = method or ("POST" if body else "GET")
        answer = ask(verb, f"{sidecar.url}/proxy/{target}", headers or {}, body)
        return answer.status, msgspec.json.decode(answer.read())["detail"]

    return await trio.to_thread.run_sync(call)


async def connected(sidecar: SidecarProcess) -> trio.SocketStream:
    """Return a connection to its API."""
    return await trio.open_tcp_stream("127.0.0.1", int(sidecar.url.rpartition(":")[2]))


async def documented(sidecar: SidecarProcess) -> set[int]:
    """Return the statuses of errors that the documentation of the API has for the proxy."""
    answer = await trio.to_thread.run_sync(ask, "GET", f"{sidecar.url}/openapi.json", {}, b"")
    responses = msgspec.json.decode(answer.read())["paths"]["/proxy/{route}/{path}"]["post"][
        "responses"
    ]
    return {int(status) for status in responses if int(status) >= 400}


async def late_body(sidecar: SidecarProcess) -> tuple[int, str]:
    """Return what is said of a body that does not come."""
    async with await connected(sidecar) as stream:
        await stream.send_all(
            b"POST /proxy/plain/upload HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\nhalf"
        )
        answer = bytearray()
        while not answer.endswith(b"}"):
            answer += await stream.receive_some()
    return int(answer[9:12]), msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["detail"]


async def test_errors_are_those_of_the_table(tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    rows = [(int(r[0]), code(r[1])[0]) for r in table(SECTIONS, "Errors", "status")]
    async with proxied(tmp_path, SIDECAR_MAX_BODY_BYTES="4096") as (sidecar, upstream):
        # 405 is for methods that are not documented.
        assert {row[0] for row in rows} - {405} == await documented(sidecar)
        ask_for = partial(fault, sidecar)
        seen += [
            await ask_for("up/../x"),
            await ask_for("up/echo", JSON, b'{"note":'),
            await ask_for("none/echo"),
            await ask_for("up/echo", method="TRACE"),
            await late_body(sidecar),
            await ask_for("up/echo", JSON, b'"%b"' % (b"a" * 5000)),
            await ask_for("up/echo", PICTURE, b"picture"),
            await ask_for("away/"),
            await ask_for("tls/"),
            await ask_for("authority/"),
            await ask_for("back/bytes/10"),
            await ask_for("late/slow/9"),
            await ask_for("cached/v1/models", {"cache-control": "only-if-cached"}),
            await ask_for("loop/"),
        ]
        for behaviour in (NOT_HTTP, Behaviour(cut="before_head"), HALF_JSON):
            upstream.answers.append(behaviour)
            seen.append(await ask_for("back/echo"))
        upstream.requests.clear()
        async with await connected(sidecar) as slow:
            await slow.send_all(b"GET /proxy/one/slow/9 HTTP/1.1\r\nhost: h\r\n\r\n")
            await upstream.received(1)
            seen.append(await ask_for("one/"))
            sidecar.process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                while "stopping" not in sidecar.log:
                    await trio.sleep(0.01)
            seen.append(await ask_for("up/echo"))
    async with proxied(tmp_path, SIDECAR_MEMORY_LIMIT="1") as (sidecar, _):
        seen.append(await fault(sidecar, "up/echo", JSON, b"{}"))
    for status, detail in seen:
        told = [row for row in rows if row[0] == status and detail.startswith(row[1])]
        assert len(told) == 1, detail
        rows.remove(told[0])
    assert rows == []


def test_its_links_lead_somewhere() -> None:
    assert broken_links(ROOT / "docs" / "proxy.md") == []
