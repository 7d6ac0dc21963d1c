"""``sidecar queue``, on queues as the service writes them, and on what is none."""

import json
import os
import pty
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.cli import main
from sidecar.commands import queue as command
from sidecar.exporters.jsonlines import lines
from sidecar.pipeline import store as store_module
from sidecar.pipeline.batch import Batch, Signal, pack
from sidecar.pipeline.store import FILE_NAME, Settled, Store
from tests.collector import Answer, Collector, open_collector
from tests.process import SidecarProcess, sidecar_process

COMMAND = [sys.executable, "-m", "sidecar", "queue"]


def event(number: int) -> Batch:
    body = f'{{"event_id":"{number}","event":"e","payload":{{"n":{number}}}}}'
    return Batch("events", body.encode(), 1)


def spans() -> Batch:
    request = ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    for name in ("GET /", "GET /users"):
        scoped.spans.add(name=name, trace_id=b"\1" * 16, span_id=b"\2" * 8, kind=2)
    return Batch("traces", request.SerializeToString(), 2)


def refuse(store: Store, exporter: str, batch: Batch, reason: str = "status 400") -> None:
    wait(store, batch, exporter)
    (row,) = (row for row in store.head(exporter, 2**30, 2**10) if row.batch == pack(batch))
    store.write([], [Settled(exporter, batch.signal, [row.id], reason)])


def wait(store: Store, batch: Batch, *exporters: str) -> None:
    store.write([(pack(batch), exporters)], [])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Hold three dead letters, 1 and 3 of otlp and 2 of loki; and what waits for both."""
    path = tmp_path / "queue"
    with closing(Store(path)) as store:
        refuse(store, "otlp", event(1))
        refuse(store, "loki", event(2), "status 413")
        refuse(store, "otlp", spans())
        wait(store, event(4), "otlp", "loki")
    return path


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIDECAR_QUEUE_DIR", raising=False)


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    answer = run(*arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    return [json.loads(line) for line in answer.stdout.splitlines()]


def dead(directory: Path) -> list[int]:
    with closing(Store(directory)) as store:
        return [letter.id for letter in store.dead_letters()]


def waiting(directory: Path, exporter: str, signal: Signal = "events") -> list[bytes]:
    with closing(Store(directory)) as store:
        found = store.head(exporter, 2**30, 2**10)
        return [row.batch.unpack().body for row in found if row.batch.signal == signal]


def on_terminal(*arguments: str | Path) -> list[str]:
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a terminal says on Linux that the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return shown.decode().splitlines()


def test_status_tells_what_waits_and_what_is_dead(directory: Path) -> None:
    with closing(Store(directory)) as store:
        wait(store, event(5), "otlp")
    found = rows("--dir", directory, "status")
    assert all(0 <= row.pop("oldest_seconds") < 60 and row.pop("bytes") > 0 for row in found)
    assert [tuple(row.values()) for row in found] == [
        ("waiting", "loki", "events", 1, 1),
        ("waiting", "otlp", "events", 2, 2),
        ("dead", "loki", "events", 1, 1),
        ("dead", "otlp", "events", 1, 1),
        ("dead", "otlp", "traces", 2, 1),
    ]


def test_dead_letters_are_listed_the_newest_last(directory: Path) -> None:
    found = rows("list", "--dir", directory)
    times = [row.pop("refused") for row in found]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", when) for when in times)
    assert [tuple(row.values()) for row in found] == [
        (1, "otlp", "events", 1, "status 400"),
        (2, "loki", "events", 1, "status 413"),
        (3, "otlp", "traces", 2, "status 400"),
    ]
    assert [row["id"] for row in rows("--dir", directory, "list", "--exporter", "otlp")] == [1, 3]


def test_a_dead_letter_is_shown_as_the_stdout_exporter_writes_it(directory: Path) -> None:
    answer = run("show", "3", SIDECAR_QUEUE_DIR=str(directory))
    assert answer.stdout.encode() == lines(spans())
    assert [json.loads(line)["name"] for line in answer.stdout.splitlines()] == [
        "GET /",
        "GET /users",
    ]


def test_on_a_terminal_rows_are_a_table(directory: Path) -> None:
    with closing(Store(directory)) as store:
        refuse(store, "otlp", event(5), "\x1b[31m")
    now = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert [now.sub("(time)", line) for line in on_terminal("list", "--dir", directory)] == [
        "ID  EXPORTER  SIGNAL  RECORDS  REFUSED               REASON",
        " 1  otlp      events        1  (time)  status 400",
        " 2  loki      events        1  (time)  status 413",
        " 3  otlp      traces        2  (time)  status 400",
        r" 4  otlp      events        1  (time)  \x1b[31m",
    ]
    head, *rest = on_terminal("status", "--dir", directory)
    assert head.split()[:5] == ["STATE", "EXPORTER", "SIGNAL", "RECORDS", "BATCHES"]
    assert all(re.search(r" 0:0\d:\d\d$", line) for line in rest)
    assert on_terminal("replay", "2", "--dir", directory) == ["1 dead letter replayed"]
    assert on_terminal("drop", "--all", "--dir", directory) == ["3 dead letters dropped"]
    assert on_terminal("list", "--dir", directory) == ["There are no dead letters."]


@pytest.mark.parametrize(
    ("which", "left", "otlp", "loki"),
    [
        (["1", "1"], [2, 3], [4, 1], [4]),
        (["2", "1"], [3], [4, 1], [4, 2]),
        (["--exporter", "otlp"], [2], [4, 1], [4]),
        (["--exporter", "nobody"], [1, 2, 3], [4], [4]),
        (["--all"], [], [4, 1], [4, 2]),
    ],
)
def test_replayed_ones_wait_for_their_exporter_again(
    directory: Path, which: list[str], left: list[int], otlp: list[int], loki: list[int]
) -> None:
    assert rows("--dir", directory, "replay", *which) == [{"replayed": 3 - len(left)}]
    assert dead(directory) == left
    assert waiting(directory, "otlp") == [event(number).body for number in otlp]
    assert waiting(directory, "loki") == [event(number).body for number in loki]


@pytest.mark.parametrize(
    ("which", "left"),
    [(["3", "2"], [1]), (["--exporter", "otlp"], [2]), (["--all"], [])],
)
def test_dropped_ones_are_gone(directory: Path, which: list[str], left: list[int]) -> None:
    assert rows("--dir", directory, "drop", *which) == [{"dropped": 3 - len(left)}]
    assert dead(directory) == left
    assert waiting(directory, "otlp") == waiting(directory, "loki") == [event(4).body]


def test_many_are_replayed_in_small_commits(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(Store(directory)) as store:
        for number in range(5, 25):
            refuse(store, "loki", event(number))
    sizes: list[int] = []
    replay = Store.replay

    def noted(store: Store, ids: list[int]) -> int:
        sizes.append(len(ids))
        return replay(store, ids)

    monkeypatch.setattr(Store, "replay", noted)
    monkeypatch.setattr(command, "_TOGETHER", 1000)
    assert main(["queue", "replay", "--exporter", "loki", "--dir", str(directory)]) == 0
    assert json.loads(capfd.readouterr().out) == {"replayed": 21} and sum(sizes) == 21
    assert max(sizes) <= 5
    numbers = [4, 2, *range(5, 25)]
    assert waiting(directory, "loki") == [event(number).body for number in numbers]


@pytest.mark.parametrize(("action", "done"), [("replay", "replayed"), ("drop", "dropped")])
def test_an_unknown_one_is_told_and_the_others_are_done(
    directory: Path, action: str, done: str
) -> None:
    answer = run("--dir", directory, action, "7", "1", "9223372036854775807")
    assert answer.returncode == 1
    assert json.loads(answer.stdout) == {done: 1}
    assert answer.stderr.splitlines() == [
        "sidecar: there is no dead letter 7",
        "sidecar: there is no dead letter 9223372036854775807",
    ]
    assert dead(directory) == [2, 3]


def test_one_that_cannot_be_shown_is_told(directory: Path) -> None:
    with closing(Store(directory)) as store:
        refuse(store, "stdout", Batch("traces", b"\xff", 1), "malformed traces")
    with closing(sqlite3.connect(directory / FILE_NAME)) as db, db:
        db.execute("UPDATE dead SET body = x'00' WHERE id = 1")
    for id, said in {
        "4": "dead letter 4 cannot be shown: malformed traces",
        "1": "dead letter 1 cannot be shown: its body is damaged",
        "9": "there is no dead letter 9",
    }.items():
        answer = run("--dir", directory, "show", id)
        assert (answer.returncode, answer.stdout) == (1, "")
        assert answer.stderr == f"sidecar: {said}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["replay"],
        ["drop"],
        ["drop", "1", "--all"],
        ["drop", "--all", "--exporter", "otlp"],
        ["show"],
        ["show", "-1"],
        ["show", "x"],
        ["show", "9223372036854775808"],
        ["burn", "--all"],
    ],
)
def test_wrong_usage_changes_nothing(directory: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["queue", "--dir", str(directory), *arguments])
    assert caught.value.code == 2
    assert dead(directory) == [1, 2, 3]


@pytest.mark.parametrize("arguments", [["status"], ["--dir", "", "drop", "--all"]])
def test_a_queue_must_be_named(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", *arguments]) == 2
    assert capfd.readouterr().err == (
        "sidecar: no queue is named: set SIDECAR_QUEUE_DIR, or give --dir\n"
    )


def test_a_setting_that_is_wrong_is_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert main(["queue", "status"]) == 1
    assert capfd.readouterr().err.startswith("sidecar: LOG_LEVEL='loud' is not allowed")


def another_database(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE batch (id)")
    return db


def file_for_a_directory(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def with_a_log(path: Path) -> None:
    """Leave a database as a process leaves it that is killed."""
    with closing(another_database(path.with_name("open"))):
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(path.with_name(f"open{suffix}"), path.with_name(path.name + suffix))
    path.with_name("open").unlink()


def of_another_version(path: Path) -> None:
    Store(path.parent).close()
    path.with_name("queue.lock").unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


NO_QUEUE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no directory": (lambda path: path.parent.rmdir(), "{folder}: there is no queue in it"),
    "no file": (lambda path: None, "{folder}: there is no queue in it"),
    "a file for a directory": (
        file_for_a_directory,
        "{folder}: there is no queue in it",
    ),
    "nothing": (lambda path: path.touch(), "{file}: it is no queue of this version"),
    "text": (lambda path: path.write_text("text\n" * 100), "{file}: file is not a database"),
    "a directory": (lambda path: path.mkdir(), "{file}: it is no regular file"),
    "a pipe": (os.mkfifo, "{file}: it is no regular file"),
    "another database": (
        lambda path: another_database(path).close(),
        "{file}: it is no queue of this version",
    ),
    "another database with a log": (with_a_log, "{file}: it is no queue of this version"),
    "another version": (of_another_version, "{file}: it is no queue of this version"),
}


@pytest.mark.parametrize("kind", NO_QUEUE)
@pytest.mark.parametrize("action", [["status"], ["drop", "--all"]])
def test_what_is_no_queue_is_told_and_left_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, action: list[str]
) -> None:
    folder = tmp_path / "queue"
    folder.mkdir()
    make, said = NO_QUEUE[kind]
    make(folder / FILE_NAME)
    before = content(tmp_path)
    assert main(["queue", "--dir", str(folder), *action]) == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == f"sidecar: {said.format(folder=folder, file=folder / FILE_NAME)}\n"
    assert content(tmp_path) == before


def content(path: Path) -> dict[str, bytes | None]:
    """Return all files below a directory; but for the memory that readers of a log share."""
    return {
        str(file): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
        if not file.name.endswith("-shm")
    }


def test_a_damaged_queue_is_told_and_left_where_it_is(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = directory / FILE_NAME
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    names = set(content(directory))
    assert main(["queue", "--dir", str(directory), "list"]) == 1
    assert capfd.readouterr().err == f"sidecar: {path}: database disk image is malformed\n"
    assert set(content(directory)) == names


def test_a_queue_that_may_not_be_read_is_told(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = directory / FILE_NAME
    path.chmod(0)
    assert main(["queue", "--dir", str(directory), "list"]) == 1
    assert capfd.readouterr().err == f"sidecar: {path}: Permission denied\n"


def test_a_queue_that_stays_locked_is_told(
    directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.05)
    path = directory / FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert main(["queue", "--dir", str(directory), "list"]) == 0
        assert main(["queue", "--dir", str(directory), "replay", "--all"]) == 1
    assert capfd.readouterr().err == (
        f"sidecar: {path}: another process keeps it locked; try again\n"
    )
    assert dead(directory) == [1, 2, 3]


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">/dev/full", 1, b"sidecar: standard output: No space left on device\n"),
        (">&-", 1, b"sidecar: standard output: Bad file descriptor\n"),
        ("| true; wait", 0, b""),
    ],
)
def test_output_that_cannot_be_written_is_said(
    directory: Path, streams: str, code: int, said: bytes
) -> None:
    answer = subprocess.run(
        ["sh", "-c", f'"$@" {streams}', "sh", *COMMAND, "--dir", directory, "list"],
        capture_output=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (code, said)


async def test_a_refused_record_is_replayed_while_the_sidecar_runs(tmp_path: Path) -> None:
    async with open_collector() as collector:
        collector.answers.append(Answer(status=400))
        await trio.to_thread.run_sync(refuse_and_replay, collector, tmp_path / "queue")


def refuse_and_replay(collector: Collector, directory: Path) -> None:
    settings = {
        "SIDECAR_EXPORTERS": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "SIDECAR_QUEUE_DIR": str(directory),
    }
    with sidecar_process(settings) as sidecar:
        chat = {"event": "chat", "payload": {"note": "mail alice@example.com"}}
        httpx2.post(f"{sidecar.url}/log", json=chat).raise_for_status()
        until(lambda: bool(rows("--dir", directory, "list")))
        (letter,) = rows("--dir", directory, "list")
        assert (letter["exporter"], letter["signal"], letter["records"]) == ("otlp", "events", 1)
        (shown,) = rows("--dir", directory, "show", str(letter["id"]))
        assert shown["payload"] == {"note": "mail [REDACTED_EMAIL]"}
        assert dead_records(sidecar) == 1

        assert rows("--dir", directory, "replay", str(letter["id"])) == [{"replayed": 1}]
        until(lambda: len(collector.requests) == 2)
        until(lambda: rows("--dir", directory, "status") == [])
        assert dead_records(sidecar) == 0
    first, second = collector.bodies("/v1/logs")
    for body in (first, second):
        (group,) = ExportLogsServiceRequest.FromString(body).resource_logs
        assert "mail [REDACTED_EMAIL]" in str(group.scope_logs[0].log_records[0])


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def dead_records(sidecar: SidecarProcess) -> float:
    labels = 'telemetry_cache_dead_letter_records{exporter="otlp",signal="events"} '
    text = httpx2.get(f"{sidecar.metrics_url}/metrics").text
    return float(text.partition(labels)[2].partition("\n")[0])
