from pathlib import Path

import pytest

from sidecar.redaction.rules import RulesError, load_rules


def load(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    load_rules(folder)


def test_all_formats_are_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text('version = 1\n[[rules]]\nid = "two"\nfind = "email"\n')
    (tmp_path / "a.yml").write_text(
        "version: 1\nrules: [{id: one, pattern: x}]\nkeys: {ignore: [t]}"
    )
    (tmp_path / "c.json").write_text('{"version": 1, "rules": [{"id": "three", "keys": ["k"]}]}')
    (tmp_path / "notes.txt").write_text("not a rule file")
    rules = load_rules(tmp_path)
    assert [rule.id for rule in rules.rules] == ["one", "two", "three"]
    assert rules.keys.ignore == ["t"]
    assert rules.places == {"one": "a.yml:2", "two": "b.toml:1", "three": "c.json:1"}


def test_a_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.yaml").write_text("version: 1\nrules: [{id: one, find: email}]")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    assert [rule.id for rule in load_rules(tmp_path).rules] == ["one"]


HEAD = "version: 1\nrules:\n  - id: first\n    find: email\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\n", "a.yaml:1: Invalid enum value 2"),
        ("rules: []\n", "a.yaml:1: Object missing required field `version`"),
        (HEAD + "    keyz: [a]\n", "a.yaml:3: rule 'first': Object contains unknown field `keyz`"),
        (HEAD + "    pattern: b\n", "a.yaml:3: rule 'first': name exactly one of find, pattern"),
        (HEAD + "  - id: first\n    find: email\n", "a.yaml:5: rule id 'first' is taken already"),
        (HEAD + "  - id: Big\n    find: email\n", "a.yaml:5: rule 'Big': Expected `str` matching"),
        (
            HEAD + "    action: {mask: {}, hash: {}}\n",
            "a.yaml:5: rule 'first': name exactly one of",
        ),
        (
            HEAD + "    action: {sanitize: xml}\n",
            "a.yaml:5: rule 'first': Invalid enum value 'xml'",
        ),
        (HEAD + "    action: {drop: {}}\n", "this action takes whole values; it goes with `keys`"),
        (HEAD + "    when: {a: b}\n", "`when` goes with `keys`"),
        (HEAD + "    tests:\n      - {in: a}\n", "write either `in` and `out`, or `keep`"),
        (HEAD + "    tests: [\n", "a.yaml:6: "),
        ("version: 1\nrules: []\nrules: []\n", "a.yaml:3: `rules` stands twice in one place"),
        (HEAD + "    description: 2020-13-45\n", "a.yaml: ValueError: "),
        (HEAD + "  - id: x\n    pattern: ''\n", "an empty pattern or list of keys finds nothing"),
        ("- 1\n", "a.yaml:1: Expected `object`, got `array`"),
        ("", "a.yaml:1: Expected `object`, got `null`"),
    ],
)
def test_faults_are_told_with_file_line_and_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        load(tmp_path, a_yaml=text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(RulesError, match=r"a\.yaml: is not UTF-8 text"):
        load_rules(tmp_path)
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RulesError, match=r"a\.json: "):
        load_rules(tmp_path)
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.toml").write_text("=")
    with pytest.raises(RulesError, match=r"a\.toml: .*line 1"):
        load_rules(tmp_path)
