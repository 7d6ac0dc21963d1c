"""``sidecar check``, on folders with and without faults."""

from pathlib import Path

import pytest

from sidecar.cli import main

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


def test_a_good_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 rule in 1 file, 2 tests passed\n"
    (tmp_path / "b.yaml").write_text(HASHES)
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "2 rules in 2 files, 2 tests passed\n"


def test_every_fault_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("by [REDACTED_STAFF]", "by nobody"))
    (tmp_path / "b.yaml").write_text("version: 1\nrules:\n  - {id: x, patern: a}\n")
    (tmp_path / "c.yaml").write_text("version: 1\nrules:\n  - {id: y, pattern: '('}\n")
    assert main(["check", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(": ")[0] for line in lines) == ["a.yaml:3", "b.yaml:3", "c.yaml:3"]


def test_the_folder_of_the_settings_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIDECAR_RULES", str(tmp_path))
    assert main(["check"]) == 1
    assert "there is no rule in this folder" in capsys.readouterr().out


def test_the_rules_that_ship_have_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert " tests passed\n" in capsys.readouterr().out


def test_a_setting_that_is_wrong_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    assert main(["check"]) == 1
    assert capsys.readouterr().err.startswith("sidecar: LOG_LEVEL='loud' is not allowed")
