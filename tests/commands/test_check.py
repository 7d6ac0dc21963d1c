"""``sidecar check``, on folders with and without faults."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.cli import main

COMMAND = [sys.executable, "-m", "sidecar", "check"]
GOOD = """\
version: 1
rules:
  - id: staff
    pattern: 'E-[0-9]{6}'
    tests:
      - {in: 'by E-123456', out: 'by [REDACTED_STAFF]'}
      - {keep: 'route E-12'}
"""
HASHES = """\
version: 1
rules:
  - {id: mail, find: email, action: {hash: {}}}
"""


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIDECAR_RULES", "SIDECAR_HASH_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_good_folder_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert main(["check", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "1 rule in 1 file, 2 tests passed\n"
    (tmp_path / "b.yaml").write_text(HASHES)
    assert main(["check", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "2 rules in 2 files, 2 tests passed\n"


def test_every_fault_is_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("by [REDACTED_STAFF]", "by nobody"))
    (tmp_path / "b.yaml").write_text("version: 1\nrules:\n  - {id: x, patern: a}\n")
    (tmp_path / "c.yaml").write_text("version: 1\nrules:\n  - {id: y, pattern: '('}\n")
    assert main(["check", str(tmp_path)]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["a.yaml:3", "b.yaml:3", "c.yaml:3"]


def test_the_folder_of_the_settings_is_checked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_RULES", str(tmp_path))
    assert main(["check"]) == 1
    assert "there is no rule in this folder" in capfd.readouterr().out


def test_the_rules_that_ship_have_no_fault(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert " tests passed\n" in capfd.readouterr().out


def test_a_setting_that_is_wrong_is_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert main(["check"]) == 1
    assert capfd.readouterr().err.startswith("sidecar: LOG_LEVEL='loud' is not allowed")


FAULTY: dict[str, tuple[str, str | bytes, str]] = {
    "YAML syntax": ("a.yaml", "version: 1\nrules:\n  - {id: a\n    x: [\n", "a.yaml:4: "),
    "a tab in YAML": ("a.yaml", "version: 1\nrules:\n\t- id: a\n", "a.yaml:3: "),
    "a tag of YAML": ("a.yaml", "version: 1\nrules: !!python/name:os []\n", "a.yaml:2: "),
    "two documents": ("a.yaml", "version: 1\n---\nversion: 1\n", "a.yaml:2: "),
    "itself within": (
        "a.yaml",
        "version: 1\nrules: &r\n  - *r\n",
        "a.yaml:3: the alias *r stands within",
    ),
    "TOML syntax": ("a.toml", 'version = 1\n[[rules]]\nid = "a"\nfind =\n', "a.toml:4: "),
    "JSON syntax": ("a.json", '{"version": 1,\n "rules": [,]}', "a.json:2: "),
    "an unknown field": ("a.yaml", "version: 1\nrules:\n  - id: a\n    fnd: x\n", "a.yaml:4: "),
    "a wrong type": ("a.yaml", "version: 1\nrules:\n  - id: a\n    find: [x]\n", "a.yaml:4: "),
    "text for rules": ("a.yaml", "version: 1\nrules: text\n", "a.yaml:2: "),
    "no object": ("a.json", "[]", "a.json:1: "),
    "an empty file": ("a.yaml", "", "a.yaml:1: "),
    "a failing test": (
        "a.yaml",
        "version: 1\nrules:\n- {id: a, find: card, tests: [{in: x, out: y}]}\n",
        "a.yaml:3: rule 'a': test 1 gives 'x', not 'y'",
    ),
    "an id twice": (
        "a.yaml",
        "version: 1\nrules:\n- {id: a, find: card}\n- {id: a, find: email}\n",
        "a.yaml:4: rule id 'a' is taken already at a.yaml:3",
    ),
    "a file of 3 MB": ("a.yaml", "#" * 3_000_000, "a.yaml: is larger than 1048576 bytes"),
    "UTF-16": ("a.yaml", "version: 1\n".encode("utf-16"), "a.yaml:1: is not UTF-8 text"),
    "bytes": ("a.json", bytes(range(256)), "a.json:2: is not UTF-8 text"),
    "zeros": ("a.toml", bytes(1000), "a.toml"),
    "no rule": ("a.txt", "version: 1\n", "there is no rule in this folder"),
    "a command for terminals": (
        "a.yaml",
        'version: 1\nrules:\n- {id: a, find: card, "\\e[31m": 1}\n',
        "unknown field `\\x1b[31m`",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_file_is_told_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    name, content, said = FAULTY[fault]
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(data)
    assert main(["check", str(tmp_path)]) == 1
    told = capfd.readouterr()
    assert said in told.out and told.out.count("\n") == 1
    assert told.err == ""


NO_FOLDER_OR_FILE = {
    "missing": "{folder}: the rules folder cannot be read: No such file or directory",
    "file": "{folder}: the rules folder cannot be read: Not a directory",
    "link": "a.yaml: is a link to none, which does not exist",
    "circle": "a.yaml: cannot be read: Too many levels of symbolic links",
    "folder": "a.yaml: is a folder, not a file",
    "fifo": "a.yaml: is not a regular file",
}


@pytest.mark.parametrize("kind", NO_FOLDER_OR_FILE)
def test_what_is_no_rules_folder_or_file_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = tmp_path / "rules"
    if kind == "file":
        folder.write_text(GOOD)
    elif kind != "missing":
        folder.mkdir()
        path = folder / "a.yaml"
        make: dict[str, Callable[[], None]] = {
            "link": lambda: path.symlink_to("none"),
            "circle": lambda: path.symlink_to("a.yaml"),
            "folder": path.mkdir,
            "fifo": lambda: os.mkfifo(path),
        }
        make[kind]()
    assert main(["check", str(folder)]) == 1
    told = capfd.readouterr()
    assert told.out == NO_FOLDER_OR_FILE[kind].format(folder=folder) + "\n"
    assert told.err == ""


def test_on_a_terminal_the_number_of_faults_follows(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nrules:\n- {id: a, fnd: x}\n- {id: b, fnd: x}\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, str(tmp_path)], stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a terminal says on Linux that the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 1
    places = [line.partition(": ")[0] for line in shown.decode().splitlines()]
    assert places == ["a.yaml:3", "a.yaml:4", "2 faults"]


@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [
        (">/dev/full", 1, b"sidecar: standard output: No space left on device\n"),
        (">&-", 1, b"sidecar: standard output: Bad file descriptor\n"),
        ("| true; wait", 0, b""),
    ],
)
def test_output_that_cannot_be_written_is_said(
    tmp_path: Path, streams: str, code: int, said: bytes
) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    answer = subprocess.run(
        ["sh", "-c", f'"$@" {streams}', "sh", *COMMAND, str(tmp_path)],
        capture_output=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (code, said)
