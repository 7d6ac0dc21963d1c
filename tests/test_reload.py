"""Changes of the rules folder while a real process is at work."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from sidecar.settings import default_rules_dir
from tests.collector import open_collector
from tests.process import SidecarProcess, sidecar_process

IN_FORCE_SECONDS = 2.0

RULE = "version: 1\nrules:\n  - {id: %s, pattern: 'planted-\\w+', action: %s}\n"
RULES_A = RULE % ("planted-a", "{replace: {with: '[A]'}}")
RULES_B = RULE % ("planted-b", "{mask: {char: 'B'}}")
FAULTY = "version: 1\nrules:\n  - {id: planted-c, patern: x}\n"

# What a text becomes by A or by B; nothing else may arrive.
REDACTED = {"planted-a": re.compile(r"\[A\]"), "planted-b": re.compile(r"B+")}
ARRIVED = re.compile(rb"seen by (\w+): (.*?)\.", re.DOTALL)


def text(record: str) -> str:
    return f"seen by {record}: planted-{record}."


class ConfigMap:
    """A volume that is changed as the kubelet does it (its `AtomicWriter`)."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self._number = 0
        folder.mkdir()
        self.update(files)

    def update(self, files: Mapping[str, str]) -> None:
        self._number += 1
        data = self.folder / f"..2026_11_24_12_00_00.{self._number:09}"
        data.mkdir()
        for name, content in files.items():
            (data / name).write_text(content)
        link = self.folder / "..data"
        old = link.readlink() if link.is_symlink() else None
        (self.folder / "..data_tmp").symlink_to(data.name)
        (self.folder / "..data_tmp").rename(link)
        visible = {path.name for path in self.folder.iterdir() if not path.name.startswith("..")}
        for name in files.keys() - visible:
            (self.folder / name).symlink_to(f"..data/{name}")
        for name in visible - files.keys():
            (self.folder / name).unlink()
        if old:
            shutil.rmtree(self.folder / old)


class Load:
    """Clients that send as fast as they are answered, and note what was acknowledged."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self.acknowledged: set[str] = set()
        self.ready_checks = 0
        self._sidecar = sidecar
        self._over = False

    def end(self) -> None:
        """Let every client finish what it is at."""
        self._over = True

    async def send_traces(self, client: int) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            number = 0
            while not self._over:
                records = [f"t{client}n{number + index}" for index in range(5)]
                number += len(records)
                answer = await http.post(
                    f"{self._sidecar.otlp_http_url}/v1/traces",
                    content=traces(records),
                    headers={"content-type": "application/x-protobuf"},
                )
                assert (answer.status_code, answer.content) == (200, b"")
                self.acknowledged.update(records)

    async def send_events(self, client: int) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            number = 0
            while not self._over:
                record = f"e{client}n{number}"
                number += 1
                event = {"event": "seen", "payload": {"note": text(record)}}
                answer = await http.post(f"{self._sidecar.url}/log", json=event)
                assert answer.status_code == 200
                assert answer.json()["redacted_fields"] == ["note"]
                self.acknowledged.add(record)

    async def check_ready(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            while not self._over:
                assert (await http.get(f"{self._sidecar.metrics_url}/readyz")).status_code == 200
                self.ready_checks += 1

    async def more(self, count: int) -> None:
        """Wait until that many more records were acknowledged."""
        goal = len(self.acknowledged) + count
        with trio.fail_after(30):
            while len(self.acknowledged) < goal:
                await trio.sleep(0.01)


def traces(records: list[str]) -> bytes:
    spans = [
        Span(
            name="seen",
            trace_id=b"\1" * 16,
            span_id=b"\1" * 8,
            attributes=[KeyValue(key="note", value=AnyValue(string_value=text(record)))],
        )
        for record in records
    ]
    resource = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()


async def in_force(sidecar: SidecarProcess, rule: str) -> None:
    """Ask until a text is redacted by a rule; each answer must be by one rule set alone."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        with trio.fail_after(IN_FORCE_SECONDS):
            while True:
                answer = (await http.post(f"{sidecar.url}/redact", json=["planted-x"])).json()
                (finding,) = answer["findings"]
                assert REDACTED[finding["rule"]].fullmatch(*answer["redacted"])
                if finding["rule"] == rule:
                    return


async def refused(sidecar: SidecarProcess) -> dict[str, Any]:
    """Ask until a change was refused, and return what health says then."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        with trio.fail_after(IN_FORCE_SECONDS):
            while True:
                health: dict[str, Any] = (await http.get(f"{sidecar.metrics_url}/health")).json()
                if not health["checks"]["rules"]["ok"]:
                    return health


async def test_changes_under_load_lose_nothing_and_leak_nothing(tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "rules", {"10.yaml": RULES_A})
    async with open_collector() as collector:
        environ = {
            "SIDECAR_RULES": str(volume.folder),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        with sidecar_process(environ) as sidecar:
            load = Load(sidecar)
            async with trio.open_nursery() as nursery:
                for client in range(2):
                    nursery.start_soon(load.send_traces, client)
                    nursery.start_soon(load.send_events, client)
                nursery.start_soon(load.check_ready)
                for turn in range(12):
                    # Another name now and then, as of a ConfigMap that is put together anew.
                    name = f"1{turn % 2}.yaml"
                    for rule, content in (("planted-b", RULES_B), ("planted-a", RULES_A)):
                        volume.update({name: content})
                        await in_force(sidecar, rule)
                        await load.more(20)
                    if turn % 4 == 0:
                        volume.update({name: FAULTY})
                        assert (await refused(sidecar))["status"] == "degraded"
                        await in_force(sidecar, "planted-a")
                        await load.more(20)
                load.end()
            assert await trio.to_thread.run_sync(sidecar.stop) == 0
            assert sidecar.log.count('"event": "rules_in_force"') == 24
            # A look may fall between the swap and the new names of the files.
            assert sidecar.log.count('"event": "rules_refused"') >= 3
        bodies = b"".join(request.body for request in collector.requests)
    assert b"planted" not in bodies
    arrived = [(record.decode(), rest.decode()) for record, rest in ARRIVED.findall(bodies)]
    assert {record for record, _ in arrived} == load.acknowledged
    assert len(arrived) == len(load.acknowledged)
    by = {
        rule: sum(bool(form.fullmatch(rest)) for _, rest in arrived)
        for rule, form in REDACTED.items()
    }
    assert sum(by.values()) == len(arrived)
    assert min(by.values()) >= 12 * 20 / 2
    assert load.ready_checks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(default_rules_dir(), tmp_path_factory.mktemp("volume") / "rules")


@pytest.fixture(scope="module")
def sidecar(folder: Path) -> Iterator[SidecarProcess]:
    """A sidecar with the default rules and one more."""
    set_files(folder, {"90.yaml": RULES_A})
    with sidecar_process({"SIDECAR_RULES": str(folder)}) as process:
        yield process


def set_files(folder: Path, files: Mapping[str, str]) -> None:
    """Make these the only ones beside the default rules."""
    shipped = {path.name for path in default_rules_dir().iterdir()}
    for path in folder.iterdir():
        if path.name not in shipped | files.keys():
            path.unlink()
    for name, content in files.items():
        (folder / name).write_text(content)


def write_and_rename(folder: Path) -> None:
    (folder / ".90.yaml.swp").write_text(RULES_B)
    (folder / ".90.yaml.swp").rename(folder / "90.yaml")


def replace_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(default_rules_dir(), folder)
    set_files(folder, {"90.yaml": RULES_B})


ONE, BOTH = {"90.yaml": RULES_A}, {"90.yaml": RULES_A, "95.yaml": RULES_B}
CHANGES: dict[str, tuple[dict[str, str], Callable[[Path], Any]]] = {
    "edit": (ONE, lambda folder: (folder / "90.yaml").write_text(RULES_B)),
    "an editor's write and rename": (ONE, write_and_rename),
    "new file": (ONE, lambda folder: (folder / "00.yaml").write_text(RULES_B)),
    "removed file": (BOTH, lambda folder: (folder / "90.yaml").unlink()),
    "folder removed and made again": (ONE, replace_folder),
}


@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_of_the_default_rules_is_in_force_in_time(
    sidecar: SidecarProcess,
    folder: Path,
    before: dict[str, str],
    change: Callable[[Path], Any],
) -> None:
    set_files(folder, before)
    await in_force(sidecar, "planted-a")
    change(folder)
    await in_force(sidecar, "planted-b")


async def test_sighup_tells_when_there_is_nothing_new(
    sidecar: SidecarProcess, folder: Path
) -> None:
    set_files(folder, ONE)
    await in_force(sidecar, "planted-a")
    sidecar.process.send_signal(signal.SIGHUP)
    with trio.fail_after(IN_FORCE_SECONDS):
        while '"event": "rules_unchanged"' not in sidecar.log:
            await trio.sleep(0.01)
    set_files(folder, {"90.yaml": RULES_B})
    sidecar.process.send_signal(signal.SIGHUP)
    await in_force(sidecar, "planted-b")


async def test_the_last_rule_cannot_be_taken_away(tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "rules", {"10.yaml": RULES_A})
    with sidecar_process({"SIDECAR_RULES": str(volume.folder)}) as sidecar:
        volume.update({})
        check = (await refused(sidecar))["checks"]["rules"]
        assert "there is no rule in this folder" in check["detail"]
        await in_force(sidecar, "planted-a")
        volume.update({"10.yaml": RULES_B})
        await in_force(sidecar, "planted-b")
