"""What the sidecar does on one core, and what its peers do on the same core in the same run."""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import yaml

from bench.extra_rules import EXTRA, extra_rules
from bench.peers import batches, servers
from bench.peers.load import (
    PROTOBUF,
    FaultyAnswersError,
    Figures,
    MissingError,
    Requests,
    program_of_load,
    wrk,
)
from bench.process import memory_bytes
from bench.table import Row, Section, progress
from sidecar.settings import default_rules_dir
from tests.process import SidecarProcess

ROUNDS = 5
_SECONDS = 4
# Exporters of batches keep few connections, a pool of a web client some more.
_BATCH_CONNECTIONS, _CONNECTIONS = 4, 8
_MIB = 2**20
_CALLS, _CALLS_SECONDS = 10_000, 180
_FEW_RULES = 20
_KEYS = 64

Sides = dict[str, str]  # name → URL before the paths


def rows() -> list[Row]:
    peak = _Peak()
    measures: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
        ("the process at rest", _rest_rows),
        ("OTLP/HTTP beside Rotel", partial(_rotel_rows, peak)),
        ("OTLP/HTTP beside the OpenTelemetry Collector", partial(_collector_rows, peak)),
        ("captured traces", partial(_captured_rows, peak)),
        ("OTLP/gRPC", partial(_grpc_rows, peak)),
        ("events and cache beside FastAPI", partial(_api_rows, peak)),
        ("the proxy beside Envoy", partial(_proxy_rows, peak)),
    )
    made = [Row("what is compared", servers.versions())]
    for what, measure in measures:
        try:
            made += measure()
        except (MissingError, FaultyAnswersError) as error:
            made.append(Row(what, f"not measured: {error}"))
    full = f"{peak.bytes / _MIB:.0f} MiB" if peak.bytes else "not measured"
    return [*made, Row("peak memory (RSS) of all these", full, "≤ 128 MiB")]


class _Peak:
    """The most memory that a sidecar has had under load."""

    def __init__(self) -> None:
        self.bytes = 0

    def note(self, sidecar: SidecarProcess) -> None:
        self.bytes = max(self.bytes, memory_bytes(sidecar.process.pid, "VmHWM"))


def _rest_rows() -> list[Row]:
    ready, memory = [], []
    for _ in range(ROUNDS):
        progress("start to ready")
        started = time.perf_counter()
        # With the default exporter, and a Redis that is not there.
        with servers.sidecar({"REDIS_URL": "redis://127.0.0.1:1", "SIDECAR_EXPORTERS": ""}) as made:
            ready.append(time.perf_counter() - started)
            memory.append(memory_bytes(made.process.pid))
    return [
        Row("start to ready", f"{statistics.median(ready):.2f} s", "≤ 1.0 s"),
        Row("idle memory (RSS)", f"{statistics.median(memory) / _MIB:.0f} MiB", "≤ 64 MiB"),
    ]


def _rotel_rows(peak: _Peak) -> list[Row]:
    with servers.rotel() as rotel, servers.sidecar() as sidecar:
        rows = _batch_rows({"sidecar": sidecar.otlp_http_url, "Rotel": rotel}, ("≥ 1.5", "≥ 1.0"))
        peak.note(sidecar)
    return rows


def _collector_rows(peak: _Peak) -> list[Row]:
    with servers.collector() as collector, servers.sidecar() as sidecar:
        sides = {"sidecar": sidecar.otlp_http_url, "the Collector, redacting": collector}
        rows = _batch_rows(sides, ("", ""))
        peak.note(sidecar)
    return rows


def _batch_rows(sides: Sides, goals: tuple[str, str]) -> list[Row]:
    rows = []
    share = f"a finding in {100 // batches.FINDING_EVERY} % of the spans"
    kinds = ("clean", batches.clean_batches()), (share, batches.dirty_batches())
    for (kind, bodies), goal in zip(kinds, goals, strict=True):
        requests = Requests("POST", ["/v1/traces"], bodies, PROTOBUF)
        what = f"OTLP/HTTP, batches of {batches.SPANS} spans, {kind}"
        rows.append(_rates_row(what, "batches/s", _in_turn(what, sides, requests), goal))
    return rows


def _captured_rows(peak: _Peak) -> list[Row]:
    requests = Requests("POST", ["/v1/traces"], batches.captured_batches(), PROTOBUF)
    what = "captured traces over OTLP/HTTP"
    few, many = f"{_FEW_RULES} rules", f"{_FEW_RULES + EXTRA} rules"
    with (
        _rules_folder(0) as fewer,
        _rules_folder(EXTRA) as more,
        servers.sidecar() as shipped,
        servers.sidecar({"SIDECAR_RULES": str(fewer)}) as with_few,
        servers.sidecar({"SIDECAR_RULES": str(more)}) as with_many,
    ):
        sides = {
            "shipped": shipped.otlp_http_url,
            few: with_few.otlp_http_url,
            many: with_many.otlp_http_url,
        }
        figures = _in_turn(what, sides, requests)
        peak.note(shipped)
    rate = batches.SPANS * figures["shipped"].rate
    times = figures[few].rate / figures[many].rate
    return [
        Row(f"{what}, rules that ship", f"{rate:,.0f} spans/s", "≥ 40,000 spans/s"),
        Row(f"{what}, {many} against {few}", f"{times:.2f} times the time", "≤ 1.5"),
    ]


def _grpc_rows(peak: _Peak) -> list[Row]:
    progress("OTLP/gRPC")
    with servers.sidecar() as sidecar:
        told = program_of_load("grpc_calls", sidecar.grpc_target, f"{_CALLS}", f"{_CALLS_SECONDS}")
        peak.note(sidecar)
    rate = statistics.median(told["rates"])
    what = f"OTLP/gRPC, batches of {batches.SPANS} spans"
    return [
        Row(f"{what}, clean, grpcio", f"{rate:,.0f} batches/s", "≥ 110 batches/s"),
        Row(
            f"{what}, one channel for {_CALLS_SECONDS} s at most",
            "{errors} errors of {calls:,} calls, {connections} connections".format(**told),
            f"0 of {_CALLS:,}, 1",
        ),
    ]


def _api_rows(peak: _Peak) -> list[Row]:
    log = Requests("POST", ["/log"], batches.events())
    keys = [f"tool:search:{number}" for number in range(_KEYS)]
    hits = Requests("GET", [f"/cache/get?key={key}" for key in keys])
    with servers.fastapi() as fastapi, servers.sidecar() as sidecar:
        sides = {"sidecar": sidecar.url, "FastAPI": fastapi}
        for url in sides.values():
            _fill_cache(url, keys)
        logged = _in_turn("POST /log", sides, log, _CONNECTIONS)
        found = _in_turn("GET /cache/get", sides, hits, _CONNECTIONS)
        rows = [
            _rates_row("POST /log", "requests/s", logged, "≥ 8"),
            _rates_row("GET /cache/get, hit in memory", "requests/s", found, "≥ 10"),
            _paced_row(sidecar.url, logged["sidecar"].rate / 2),
        ]
        peak.note(sidecar)
    return rows


def _fill_cache(url: str, keys: Sequence[str]) -> None:
    with httpx2.Client(base_url=url, trust_env=False) as client:
        for key in keys:
            data = {"query": key, "results": [f"Result {number} of it" for number in range(3)]}
            client.post("/cache/set", json={"key": key, "data": data}).raise_for_status()
            answer = client.get("/cache/get", params={"key": key}).raise_for_status().json()
            if not answer["hit"] or answer["data"] != data:
                raise FaultyAnswersError(f"the cache has not what was set: {answer}")


def _paced_row(url: str, rate: float) -> Row:
    what = "POST /log at half of full load"
    progress(what)
    told = [program_of_load("paced", f"{url}/log", f"{rate}", f"{_SECONDS}") for _ in range(ROUNDS)]
    p50, p99 = (1000 * statistics.median(one[name] for one in told) for name in ("p50", "p99"))
    figure = f"p50 {p50:.2f}, p99 {p99:.2f} ms at {rate:,.0f} requests/s"
    return Row(f"{what}, from when each was due", figure, "p99 ≤ 5 ms")


def _proxy_rows(peak: _Peak) -> list[Row]:
    bodies = [json.dumps({"n": number, "text": "x" * 70}).encode() for number in range(100)]
    requests = Requests("POST", ["/api/items"], bodies)
    with servers.nginx() as upstream, servers.envoy(upstream) as envoy:
        routes = [
            {"name": "plain", "upstream": f"http://127.0.0.1:{upstream}", "redact": "none"},
            {"name": "redacted", "upstream": f"http://127.0.0.1:{upstream}"},
        ]
        with _shipped_rules(routes) as rules, servers.sidecar({"SIDECAR_RULES": rules}) as sidecar:
            sides = {
                "sidecar": f"{sidecar.url}/proxy/plain",
                "Envoy": f"{envoy}/proxy/plain",
                "redacted": f"{sidecar.url}/proxy/redacted",
            }
            many = _in_turn("proxy, 8 connections", sides, requests, _CONNECTIONS)
            one = _in_turn("proxy, one connection", sides, requests, 1)
            peak.note(sidecar)
    what = "proxy, small POST, nginx upstream"
    ours, theirs, redacted = (1000 * one[side].p50 for side in ("sidecar", "Envoy", "redacted"))
    at_one = f"p50 {ours:.2f} against {theirs:.2f} ms of Envoy"
    rest = {"redacted": many["redacted"], "Envoy": many["Envoy"]}
    return [
        _rates_row(f"{what}, {_CONNECTIONS} connections", "requests/s", many, "≥ 1.0"),
        _rates_row("the same, redacted by the rules that ship", "requests/s", rest),
        Row(f"{what}, one connection", at_one, "≤ that of Envoy"),
        Row("one connection, redacted by the rules that ship", f"p50 {redacted:.2f} ms"),
    ]


def _in_turn(
    what: str, sides: Sides, requests: Requests, connections: int = _BATCH_CONNECTIONS
) -> dict[str, Figures]:
    """Load each side in turn, so that what else the machine does falls on all; return medians."""
    rounds: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, url in sides.items():
            progress(f"{what}: {name}, {number or 'warming up'}")
            figures = wrk(url, requests, _SECONDS, connections)
            if number:
                rounds[name].append(figures)
    return {
        name: Figures(*(statistics.median(each) for each in zip(*map(_tuple, made), strict=True)))
        for name, made in rounds.items()
    }


def _tuple(figures: Figures) -> tuple[float, float, float]:
    return figures.rate, figures.p50, figures.p99


def _rates_row(what: str, unit: str, figures: dict[str, Figures], goal: str = "") -> Row:
    """Tell the first side beside the second."""
    (_, ours), (peer, theirs), *_ = figures.items()
    times = ours.rate / theirs.rate
    figure = f"{ours.rate:,.0f} against {theirs.rate:,.0f} {unit} of {peer}: {times:.2f} times"
    return Row(what, figure, goal and f"{goal} times")


@contextmanager
def _rules_folder(extra: int) -> Iterator[Path]:
    """Make a folder of the first `_FEW_RULES` rules that ship and so many more."""
    shipped = [
        rule
        for file in sorted(default_rules_dir().glob("*.yaml"))
        for rule in yaml.safe_load(file.read_text()).get("rules", [])
    ]
    more = [
        {"id": rule.id, **({"keys": rule.keys} if rule.keys else {"pattern": rule.pattern})}
        for rule in extra_rules()[:extra]
    ]
    with tempfile.TemporaryDirectory() as folder:
        rules = {"version": 1, "rules": [*shipped[:_FEW_RULES], *more]}
        (Path(folder) / "rules.json").write_text(json.dumps(rules))
        yield Path(folder)


@contextmanager
def _shipped_rules(routes: list[dict[str, str]]) -> Iterator[str]:
    """Make a folder of the rules that ship, and these routes."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(default_rules_dir(), folder, dirs_exist_ok=True)
        (Path(folder) / "routes.json").write_text(json.dumps({"version": 1, "routes": routes}))
        yield folder


SECTION = Section(
    "Beside its peers",
    "Each server on one core and the load (wrk, grpcio) on another, which also has what stands "
    f"behind a proxy; the rules that ship, the queue in memory, exporter blackhole. Medians of "
    f"{ROUNDS} rounds of {_SECONDS} s, of all sides in turn; many different bodies, so that none "
    "comes twice in a row.",
    rows,
)
