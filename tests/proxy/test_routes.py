"""Routes as files: what is refused and how that is told, and changes while calls are under way."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio

from sidecar.redaction.faults import RulesError
from sidecar.redaction.rules import load_rules, read_rules
from tests.process import SidecarProcess, sidecar_process
from tests.proxy.conftest import Start
from tests.upstream import Behaviour, Upstream

HEAD = "version: 1\nrules: [{id: email, find: email}]\nroutes:\n"
ROUTE = HEAD + "  - name: up\n    upstream: http://up.example/v1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ROUTE + "    redakt: none\n",
            "a.yaml:6: route 'up': unknown field `redakt`: did you mean `redact`?",
        ),
        (
            ROUTE + "    redact: all\n",
            "a.yaml:6: route 'up': `redact`: expected both, none, request or response, got 'all'",
        ),
        (ROUTE + "    forwarded: 1\n", "a.yaml:6: route 'up': `forwarded`: expected"),
        (ROUTE + "    keep: email\n", "a.yaml:6: route 'up': `keep`: expected"),
        (
            ROUTE + "    concurrency: 0\n",
            "a.yaml:6: route 'up': `concurrency`: expected a whole number from 1 to 10000",
        ),
        (
            ROUTE + "    timeouts:\n      idle: soon\n",
            "a.yaml:7: route 'up': `timeouts.idle`: expected",
        ),
        (
            ROUTE + "    timeouts: {connect: 0}\n",
            "a.yaml:6: route 'up': `timeouts.connect`: expected a number of seconds",
        ),
        (
            ROUTE + "    cache:\n      post:\n        - path: embeddings\n",
            "a.yaml:8: route 'up': `cache.post.path`: expected a glob",
        ),
        (ROUTE + "    observe: gpt\n", "a.yaml:6: route 'up': `observe`: expected"),
        (
            ROUTE + "  - name: up\n    upstream: http://other.example\n",
            "a.yaml:6: there is a route 'up' already",
        ),
        (
            HEAD + "  - name: Up/x\n    upstream: http://up.example\n",
            "a.yaml:4: route 'Up/x': `name`: expected 1 to 64 lower-case letters",
        ),
        (HEAD + "  - name: up\n", "a.yaml:4: route 'up': `upstream` is missing"),
        (HEAD + "  - upstream: http://up.example\n", "a.yaml:4: `name` is missing"),
        (HEAD + "  - http://up.example\n", "a.yaml:4: expected a mapping, got text"),
        (HEAD.replace("routes:", "routes: up"), "a.yaml:3: `routes`: expected a list, got text"),
    ],
)
def test_faults_are_told_with_file_line_and_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RulesError) as caught:
        load_rules(tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("upstream", "reason"),
    [
        ("http://user:hunter2@up.example/", "must not hold credentials"),
        ("https://hunter2@up.example/", "must not hold credentials"),
        ("http://up.example/?key=hunter2", "must have no query"),
        ("http://up.example/#hunter2", "no fragment"),
        ("http://up.example/\u00e9", "be ASCII"),
        ("'http://up.example/a b'", "no spaces"),
        ("ftp://up.example", "must be http://host"),
        ("up.example:80", "must be http://host"),
        ("http://", "must be http://host"),
        ("http://:80/", "must be http://host"),
        ("http://up.example:0", "must be http://host"),
        ("http://up.example:99999", "is not a URL"),
        ("http://up.example:hunter2", "is not a URL"),
        ("'http://[::1'", "is not a URL"),
        ("http://a..b/", "is not a URL"),
        (f"http://{'x' * 64}.example/", "is not a URL"),
        ("http://up.example/?", "must have no query"),
    ],
)
def test_an_upstream_that_cannot_be_called_is_refused_and_not_quoted(
    tmp_path: Path, upstream: str, reason: str
) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + f"  - name: up\n    upstream: {upstream}\n")
    with pytest.raises(RulesError) as caught:
        load_rules(tmp_path)
    assert str(caught.value).startswith("a.yaml:4: route 'up': ") or "a.yaml:5" in str(caught.value)
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_name_is_taken_once_in_the_whole_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(ROUTE)
    (tmp_path / "b.yaml").write_text(ROUTE.replace("id: email", "id: other"))
    _, faults = read_rules(tmp_path)
    assert [str(fault) for fault in faults] == ["b.yaml:4: there is a route 'up' already"]


def test_every_fault_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        HEAD + "  - {name: one}\n  - {name: two, upstream: 'http://u@h'}\n  - {name: 3}\n"
    )
    loaded, faults = read_rules(tmp_path)
    assert [str(fault).split(":")[1] for fault in faults] == ["4", "5", "6"]
    assert not loaded.routes


def test_check_shows_faults_of_routes(tmp_path: Path) -> None:
    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sidecar", "check", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    (tmp_path / "a.yaml").write_text(ROUTE + "    redakt: none\n    concurrency: many\n")
    checked = check()
    assert checked.returncode == 1
    assert "a.yaml:6: route 'up': unknown field `redakt`" in checked.stdout + checked.stderr
    (tmp_path / "a.yaml").write_text(ROUTE)
    assert check().returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the rules folder of `sidecar`."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "a.yaml").write_text(HEAD.replace("routes:\n", ""))
    return folder


@pytest.fixture(scope="module")
def sidecar(folder: Path) -> Iterator[SidecarProcess]:
    """Run a sidecar on `folder`."""
    with sidecar_process({"SIDECAR_RULES": str(folder)}) as process:
        yield process


@pytest.fixture
async def client(sidecar: SidecarProcess) -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client of the proxy of `sidecar`."""
    base = f"{sidecar.url}/proxy"
    async with httpx2.AsyncClient(base_url=base, timeout=10, trust_env=False) as client:
        yield client


def declare(folder: Path, *routes: str) -> None:
    lines = "".join(f"  - {{redact: none, {route}}}\n" for route in routes)
    (folder / "routes.yaml").write_text("version: 1\nroutes:\n" + lines if routes else "version: 1")


@asynccontextmanager
async def within_two_seconds() -> AsyncIterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 2


async def until(client: httpx2.AsyncClient, path: str, status: int) -> None:
    """Call until this is the status."""
    with trio.fail_after(5):
        while (await client.get(path)).status_code != status:
            await trio.sleep(0.02)


async def test_a_new_route_works_and_one_that_is_removed_is_gone(
    client: httpx2.AsyncClient, folder: Path, upstream: Upstream
) -> None:
    assert (await client.get("/new/slow/0")).status_code == 404
    async with within_two_seconds():
        declare(folder, f"name: new, upstream: '{upstream.url}'")
        await until(client, "/new/slow/0", 200)
    async with within_two_seconds():
        declare(folder)
        await until(client, "/new/slow/0", 404)
    with trio.fail_after(2):
        while upstream.open:
            await trio.sleep(0.01)


async def test_a_call_goes_on_to_its_end_as_it_began_whatever_becomes_of_its_route(
    client: httpx2.AsyncClient, folder: Path, upstream: Upstream
) -> None:
    declare(
        folder, f"name: one, upstream: '{upstream.url}'", f"name: two, upstream: '{upstream.url}'"
    )
    await until(client, "/two/slow/0", 200)
    upstream.behaviour = Behaviour(pause=0.2, pieces=tuple(b"%d" % i for i in range(10)))
    async with (
        client.stream("GET", "/one/echo") as first,
        client.stream("GET", "/two/echo") as second,
    ):
        assert first.status_code == second.status_code == 200
        # One is gone, the other has an upstream that is not there.
        declare(folder, "name: two, upstream: 'http://127.0.0.1:9'")
        await until(client, "/one/echo", 404)
        assert (await client.get("/two/echo")).status_code == 502
        assert await first.aread() == b"0123456789"
        assert await second.aread() == b"0123456789"
    with trio.fail_after(2):
        while upstream.open:
            await trio.sleep(0.01)


async def test_a_changed_route_has_its_new_settings(
    client: httpx2.AsyncClient, folder: Path, upstream: Upstream
) -> None:
    declare(folder, f"name: up, upstream: '{upstream.url}/echo'")
    await until(client, "/up/x", 200)
    declare(folder, f"name: up, upstream: '{upstream.url}/echo/new', forwarded: true")
    async with within_two_seconds():
        while (told := (await client.get("/up/x")).json())["target"] != "/echo/new/x":
            await trio.sleep(0.02)
    assert ["x-forwarded-for", "127.0.0.1"] in told["headers"]


async def test_a_faulty_file_is_refused_as_a_whole_and_what_was_there_stays(
    client: httpx2.AsyncClient, sidecar: SidecarProcess, folder: Path, upstream: Upstream
) -> None:
    declare(folder, f"name: good, upstream: '{upstream.url}'")
    await until(client, "/good/slow/0", 200)
    declare(
        folder,
        f"name: other, upstream: '{upstream.url}'",
        "name: bad, upstream: 'http://user:hunter2@up.example'",
    )
    with trio.fail_after(5):
        while "route 'bad'" not in sidecar.log:
            await trio.sleep(0.02)
    assert "routes.yaml:4: route 'bad': " in sidecar.log
    assert "hunter2" not in sidecar.log
    assert (await client.get("/good/slow/0")).status_code == 200
    for name in ("other", "bad"):
        assert (await client.get(f"/{name}/slow/0")).status_code == 404
    declare(
        folder, f"name: good, upstream: '{upstream.url}'", f"name: bad, upstream: '{upstream.url}'"
    )
    await until(client, "/bad/slow/0", 200)


async def test_a_route_that_stays_keeps_its_connections(start: Start, upstream: Upstream) -> None:
    route = {"name": "up", "upstream": upstream.url, "redact": "none"}
    served = await start(route)
    await served.client.get("/up/slow/0")
    for number in range(3):
        served.declare(route, {**route, "name": f"more-{number}"})
        await served.reload()
        assert (await served.client.get("/up/slow/0")).status_code == 200
    assert upstream.connections == 1
