"""The rules in force, and what changes of their folder do to them."""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from sidecar.metrics import REGISTRY
from sidecar.redaction import reload
from sidecar.redaction.engine import Engine
from sidecar.redaction.faults import RulesError
from sidecar.redaction.reload import RulesInForce
from sidecar.redaction.report import Report
from sidecar.redaction.rules import Rules, load_rules

RULE = "version: 1\nrules:\n  - {id: %s, pattern: %s, action: {replace: {with: '%s'}}}\n"
BEFORE = RULE % ("one", "value", "[BEFORE]")
AFTER = RULE % ("one", "value", "[AFTER]")
MORE = RULE % ("two", "other", "[OTHER]")
FAULTY = "version: 1\nrules:\n  - {id: one, patern: value}\n"

# What a change of the folder must take at most until it is in force.
IN_FORCE_SECONDS = 2.0

Change = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "rules", BEFORE)
    return tmp_path / "rules"


def redacted(rules: RulesInForce) -> str:
    return rules.redactor("logs").string("value, other", "body", Report(), {}) or ""


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"telemetry_cache_rules{name}", labels) or 0.0


def edit(folder: Path) -> None:
    (folder / "10.yaml").write_text(AFTER)


def write_and_rename(folder: Path) -> None:
    (folder / ".10.yaml.swp").write_text(AFTER)
    (folder / ".10.yaml.swp").rename(folder / "10.yaml")


def replace_folder(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.mkdir()
    edit(folder)


def write_behind_link(folder: Path) -> None:
    target = folder.with_name("elsewhere.yaml")
    target.write_text(AFTER)
    (folder / "10.yaml").unlink()
    (folder / "10.yaml").symlink_to(target)


def add(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


TOML = "version = 1\n[[rules]]\nid = 'two'\npattern = 'other'\naction.replace.with = '[OTHER]'\n"
JSON = (
    '{"version": 1, "rules": [{"id": "two", "pattern": "other",'
    ' "action": {"replace": {"with": "[OTHER]"}}}]}'
)
APPLIED: dict[str, tuple[Change, str]] = {
    "edit": (edit, "[AFTER], other"),
    "an editor's write and rename": (write_and_rename, "[AFTER], other"),
    "new yaml file": (add("20.yaml", MORE), "[BEFORE], [OTHER]"),
    "new yml file": (add("20.yml", MORE), "[BEFORE], [OTHER]"),
    "new toml file": (add("20.toml", TOML), "[BEFORE], [OTHER]"),
    "new json file": (add("20.json", JSON), "[BEFORE], [OTHER]"),
    "rename": (
        lambda folder: shutil.move(folder / "10.yaml", folder / "11.yaml"),
        "[BEFORE], other",
    ),
    "another folder in its place": (replace_folder, "[AFTER], other"),
    "link to elsewhere": (write_behind_link, "[AFTER], other"),
}


@pytest.mark.parametrize(("change", "expected"), APPLIED.values(), ids=APPLIED.keys())
async def test_a_change_is_put_in_force(folder: Path, change: Change, expected: str) -> None:
    rules = RulesInForce(folder)
    applied = metric("_reloads_total", result="applied")
    since = metric("_last_reload_timestamp_seconds")
    change(folder)
    with capture_logs() as log:
        await rules.look()
        await rules.look()
    assert redacted(rules) == expected
    count = len(rules.engine.rules.rules)
    assert [(entry["event"], entry["rules"]) for entry in log] == [("rules_in_force", count)]
    assert metric("") == count
    assert metric("_reloads_total", result="applied") == applied + 1
    assert metric("_last_reload_timestamp_seconds") > since


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def make_folder(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "10.yaml").write_text(content)


def dangle(folder: Path) -> None:
    (folder / "20.yaml").symlink_to("nothing")


REFUSED: dict[str, tuple[Change, str]] = {
    "unknown field": (add("20.yaml", FAULTY), "20.yaml:3: rule 'one': "),
    "faulty pattern": (add("20.yaml", RULE % ("two", "'('", "x")), "20.yaml:3: rule 'two': "),
    "id taken": (add("20.yaml", BEFORE), "20.yaml:3: rule id 'one' is taken"),
    "not YAML": (add("20.yaml", "version: [1"), "20.yaml:"),
    "last file removed": (lambda folder: (folder / "10.yaml").unlink(), "there is no rule"),
    "emptied": (add("10.yaml", "version: 1\n"), "there is no rule"),
    "folder removed": (remove_folder, "No such file or directory"),
    "link to nothing": (dangle, "20.yaml: "),
    "folder for a file": (lambda folder: (folder / "20.yaml").mkdir(), "20.yaml: "),
    "pipe for a file": (lambda folder: os.mkfifo(folder / "20.yaml"), "20.yaml: "),
    "too large": (add("20.yaml", BEFORE + "#" * 2**20), "20.yaml: "),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_faulty_change_is_refused_and_told_once(
    folder: Path, change: Change, reason: str
) -> None:
    rules = RulesInForce(folder)
    engine, refusals = rules.engine, metric("_reloads_total", result="refused")
    change(folder)
    with capture_logs() as log:
        await rules.look()
        await rules.look()
    assert [(entry["event"], entry["log_level"]) for entry in log] == [("rules_refused", "error")]
    assert reason in log[0]["reason"]
    assert rules.refused is not None
    assert rules.refused.reason == log[0]["reason"]
    assert rules.engine is engine
    assert metric("_reloads_total", result="refused") == refusals + 1
    assert metric("_last_reload_successful") == 0


async def test_a_refused_change_can_be_withdrawn_and_comes_again(folder: Path) -> None:
    rules = RulesInForce(folder)
    engine = rules.engine
    with capture_logs() as log:
        for content in (FAULTY, BEFORE, FAULTY, AFTER):
            (folder / "10.yaml").write_text(content)
            await rules.look()
            assert (rules.refused is not None) == (content == FAULTY)
            assert metric("_last_reload_successful") == (content != FAULTY)
            assert (rules.engine is engine) == (content != AFTER)
    events = ["rules_refused", "rules_change_withdrawn", "rules_refused", "rules_in_force"]
    assert [entry["event"] for entry in log] == events


@pytest.mark.parametrize(
    "change",
    [
        add("10.yaml", BEFORE),
        lambda folder: (folder / "10.yaml").touch(),
        add("README.md", "Rules."),
        add(".20.yaml", FAULTY),
    ],
    ids=["same bytes", "touched", "another file", "hidden file"],
)
async def test_what_changes_no_rule_file_changes_nothing(folder: Path, change: Change) -> None:
    rules = RulesInForce(folder)
    engine = rules.engine
    change(folder)
    with capture_logs() as log:
        await rules.look()
        assert log == []
        await rules.look(asked=True)
    assert [entry["event"] for entry in log] == ["rules_unchanged"]
    assert rules.engine is engine


async def test_who_asks_is_told_of_a_refused_change_again(folder: Path) -> None:
    rules = RulesInForce(folder)
    (folder / "10.yaml").write_text(FAULTY)
    with capture_logs() as log:
        await rules.look()
        await rules.look(asked=True)
    assert [entry["event"] for entry in log] == ["rules_refused", "rules_refused"]


async def test_a_failing_compile_is_refused_whatever_it_raises(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\nluck")

    rules = RulesInForce(folder)
    monkeypatch.setattr(Engine, "__init__", fail)
    edit(folder)
    with capture_logs():
        await rules.look()
    assert rules.refused is not None
    assert rules.refused.reason == f"{folder}: RuntimeError: no luck"
    assert redacted(rules) == "[BEFORE], other"


@pytest.mark.parametrize("given", [AFTER, FAULTY])
async def test_what_changes_while_it_is_read_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Also when it is back to what it was when the reading ends."""
    contents = iter([MORE, given])

    def load_while_somebody_writes(path: Path) -> Rules:
        first, then = next(contents, None), next(contents, None)
        if first is None or then is None:
            return load_rules(path)
        (path / "10.yaml").write_text(first)
        loaded = load_rules(path)
        (path / "10.yaml").write_text(then)
        return loaded

    rules = RulesInForce(folder)
    monkeypatch.setattr(reload, "load_rules", load_while_somebody_writes)
    (folder / "10.yaml").write_text(given)
    with capture_logs() as log:
        await rules.look()
    assert len(log) == 1
    assert redacted(rules) == ("[AFTER], other" if given == AFTER else "[BEFORE], other")
    assert (rules.refused is not None) == (given == FAULTY)


async def test_who_has_a_redactor_keeps_the_rules_it_was_taken_from(folder: Path) -> None:
    rules = RulesInForce(folder)
    redactor = rules.redactor("logs")
    edit(folder)
    await rules.look()
    assert redactor.string("value", "body", Report(), {}) == "[BEFORE]"
    assert rules.redactor("logs").string("value", "body", Report(), {}) == "[AFTER]"


@pytest.mark.parametrize("change", [remove_folder, add("10.yaml", FAULTY)])
def test_without_valid_rules_there_is_no_start(folder: Path, change: Change) -> None:
    change(folder)
    with pytest.raises(RulesError):
        RulesInForce(folder)


@asynccontextmanager
async def kept_up(folder: Path) -> AsyncIterator[RulesInForce]:
    rules = RulesInForce(folder)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(rules.run, stopping)
        yield rules
        stopping.set()
        nursery.cancel_scope.cancel()


async def becomes(rules: RulesInForce, expected: str) -> None:
    with trio.fail_after(IN_FORCE_SECONDS):
        while redacted(rules) != expected:
            await trio.sleep(0.01)


async def is_replaced(rules: RulesInForce, engine: Engine) -> None:
    with trio.fail_after(IN_FORCE_SECONDS):
        while rules.engine is engine:
            await trio.sleep(0.01)


async def is_refused(rules: RulesInForce) -> None:
    with trio.fail_after(IN_FORCE_SECONDS):
        while rules.refused is None:
            await trio.sleep(0.01)


@pytest.mark.parametrize(("change", "expected"), APPLIED.values(), ids=APPLIED.keys())
async def test_the_watch_sees_a_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, expected: str
) -> None:
    monkeypatch.setattr(reload, "_LOOK_SECONDS", 3600.0)
    async with kept_up(folder) as rules:
        # The first one may be found by the look at the start; after it only the watch is left.
        for content in (RULE % ("one", "value", "[START]"), BEFORE):
            (folder / "10.yaml").write_text(content)
            await is_replaced(rules, rules.engine)
        before = rules.engine
        change(folder)
        await is_replaced(rules, before)
        assert redacted(rules) == expected


async def test_a_file_behind_a_link_is_noticed_although_it_is_not_watched(folder: Path) -> None:
    write_behind_link(folder)
    async with kept_up(folder) as rules:
        await becomes(rules, "[AFTER], other")
        folder.with_name("elsewhere.yaml").write_text(BEFORE)
        await becomes(rules, "[BEFORE], other")


async def test_a_folder_that_was_away_is_watched_again(folder: Path) -> None:
    with capture_logs() as log:
        async with kept_up(folder) as rules:
            for content, expected in ((AFTER, "[AFTER], other"), (BEFORE, "[BEFORE], other")):
                remove_folder(folder)
                await is_refused(rules)
                make_folder(folder, content)
                await becomes(rules, expected)
                assert rules.refused is None
    assert {entry["event"] for entry in log} <= {
        "rules_refused",
        "rules_in_force",
        "rules_not_watched",
    }


async def test_sighup_asks_for_a_look_and_is_harmless_to_the_end(folder: Path) -> None:
    rules = RulesInForce(folder)
    stopping = trio.Event()
    stopping.set()
    with capture_logs() as log:
        async with trio.open_nursery() as nursery:
            await nursery.start(rules.run, stopping)
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(IN_FORCE_SECONDS):
                while not log:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert [entry["event"] for entry in log] == ["rules_unchanged"]


async def test_without_a_watch_the_folder_is_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exhausted(*_: object, **__: object) -> AsyncIterator[Any]:
        raise OSError(24, "inotify: Too many open files")
        yield

    monkeypatch.setattr(reload, "awatch", exhausted)
    with capture_logs() as log:
        async with kept_up(folder) as rules:
            edit(folder)
            await becomes(rules, "[AFTER], other")
            (folder / "10.yaml").write_text(BEFORE)
            await becomes(rules, "[BEFORE], other")
    told = [entry for entry in log if entry["event"] == "rules_not_watched"]
    assert len(told) == 1
    assert "Too many open files" in told[0]["error"]


async def test_changes_during_a_load_are_one_more_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [RULE % ("one", "value", f"[{number}]") for number in range(5)]
    loads = []

    def load_while_others_write(path: Path) -> Rules:
        loads.append(path)
        if len(loads) == 1:
            for content in contents:
                (path / "10.yaml").write_text(content)
        return load_rules(path)

    async with kept_up(folder) as rules:
        monkeypatch.setattr(reload, "load_rules", load_while_others_write)
        edit(folder)
        await becomes(rules, "[4], other")
    assert len(loads) == 2
