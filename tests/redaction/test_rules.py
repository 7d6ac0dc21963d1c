import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.redaction.faults import RulesError
from sidecar.redaction.rules import load_rules


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
    assert rules.places == {"one": "a.yml:2", "two": "b.toml:2", "three": "c.json:1"}


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
        ("version: 2\n", "a.yaml:1: `version`: expected 1, got 2"),
        ("rules: []\n", "a.yaml:1: `version` is missing"),
        (
            HEAD + "    keyz: [a]\n",
            "a.yaml:5: rule 'first': unknown field `keyz`: did you mean `keys`?",
        ),
        (HEAD + "    pattern: b\n", "a.yaml:3: rule 'first': name exactly one of find, pattern"),
        (HEAD + "  - id: first\n    find: email\n", "a.yaml:5: rule id 'first' is taken already"),
        (
            HEAD + "  - id: Big\n    find: email\n",
            "a.yaml:5: rule 'Big': `id`: expected 1 to 64 lower",
        ),
        (
            HEAD + "    action: {mask: {}, hash: {}}\n",
            "a.yaml:5: rule 'first': `action`: name exactly one of",
        ),
        (
            HEAD + "    action: {sanitize: xml}\n",
            "a.yaml:5: rule 'first': `action.sanitize`: expected redis, sql or url, got 'xml'",
        ),
        (HEAD + "    action: {drop: {}}\n", "this action takes whole values; it goes with `keys`"),
        (HEAD + "    when: {a: b}\n", "`when` goes with `keys`"),
        (HEAD + "    tests:\n      - {in: a}\n", "write either `in` and `out`, or `keep`"),
        (HEAD + "    tests: [\n", "a.yaml:6: "),
        ("version: 1\nrules: []\nrules: []\n", "a.yaml:3: `rules` stands twice in one place"),
        (
            HEAD + "    description: 2020-13-45\n",
            "a.yaml:5: 2020-13-45: month must be in 1..12; write text in quotes",
        ),
        (HEAD + "  - id: x\n    pattern: ''\n", "an empty pattern or list of keys finds nothing"),
        ("- 1\n", "a.yaml:1: expected a mapping, got a list"),
        ("", "a.yaml:1: expected a mapping, got nothing"),
    ],
)
def test_faults_are_told_with_file_line_and_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        load(tmp_path, a_yaml=text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def fault(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RulesError) as caught:
        load_rules(path.parent)
    return str(caught.value)


TOML_HEAD = 'version = 1\n[[rules]]\nid = "a"\nfind = "email"\n'
JSON_HEAD = '{"version": 1,\n "rules": [\n  {"id": "a", "find": "email"},\n  {"id": "b",\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.toml", "=", "a.toml:1: Invalid statement"),
        ("a.toml", TOML_HEAD + "keys =\n", "a.toml:5: Invalid value"),
        ("a.toml", TOML_HEAD + "keys = [\n\n", "a.toml:5: Invalid value"),
        ("a.toml", TOML_HEAD + "\npatern = 'x'\n", "a.toml:6: rule 'a': unknown field `patern`"),
        (
            "a.toml",
            TOML_HEAD + "[[rules]]\nid = 'b'\nkeys = ['k']\n[rules.action.hash]\nlength = 4\n",
            "a.toml:9: rule 'b': `action.hash.length`: expected a whole number from 8 to 64",
        ),
        (
            "a.toml",
            "version = 1\nrules = [\n {id = 'a', find = 'email'},\n {id = 'b', find = 1},\n]\n",
            "a.toml:4: rule 'b': `find`: expected text, got a whole number",
        ),
        ("a.json", "{", "a.json:1: Input data was truncated"),
        ("a.json", '{"é": 1,\n\n "x": [,]}', "a.json:3: JSON is malformed: invalid character"),
        ("a.json", JSON_HEAD + '\t"keys":\n[1]}]}', "a.json:6: rule 'b': `keys`: expected text"),
        # A character beyond 16 bits is written in JSON as it cannot be in YAML.
        (
            "a.json",
            JSON_HEAD + '   "description": "\\ud83d\\ude00",\n   "find": 1}]}',
            "a.json:6: rule 'b': `find`: expected text",
        ),
        ("a.json", '{"version": 1,\n"rules": [],\n"rules": []}', "a.json:3: `rules` stands twice"),
        ("a.yaml", "version: 1\n# é\nx: \x01\n", "a.yaml:3: unacceptable character #x0001"),
        ("a.yaml", b"version: 1\n# \xff\n", "a.yaml:2: is not UTF-8 text"),
        ("a.yaml", HEAD + "    tests:\n    - in: a\n      outt: b\n", "a.yaml:7: rule 'first'"),
        (
            "a.yaml",
            HEAD + "    action:\n      hash:\n        length: 4\n",
            "a.yaml:7: rule 'first'",
        ),
    ],
)
def test_the_line_is_that_of_the_field_in_all_formats(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    assert fault(tmp_path / name, content).startswith(said)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("find: 5", "`find`: expected text, got a whole number; write it in quotes"),
        ("description: 2020-13-45", "2020-13-45: month must be in 1..12; write text in quotes"),
        ("description: !!bool x", "x: 'x'; write text in quotes"),
        ("description: 2020-01-01", "`description`: expected text, got a date; write it in quotes"),
        ("keys: status", "`keys`: expected a list, got text"),
        ("keys: [no]", "`keys`: expected text, got true or false; write it in quotes"),
        ("no: a", "the name of a field is not text; write it in quotes"),
        ("when: {code: 200}", "`when`: expected text, got a whole number; write it in quotes"),
        ("when: {200: a}", "`when`: the name of a field is not text; write it in quotes"),
        (
            "signals: [trace]",
            "`signals`: expected events, http, logs, metrics or traces, got 'trac",
        ),
        ("mode: 5", "`mode`: expected audit or enforce, got a whole number"),
        ("action: {mask: {char: ''}}", "`action.mask.char`: expected one character"),
        ("action: {maks: {}}", "unknown field `action.maks`: did you mean `mask`?"),
        ("zzz: 1", "unknown field `zzz`: there are id, description, find, "),
        ('"x - at `$.y": 1', "Object contains unknown field `x"),
        ("tests: [{keep: a, key: [b]}]", "`tests.key`: expected text, got a list"),
        ("tests: [{in: a}]", "`tests`: write either `in` and `out`, or `keep`"),
        ("keywords: ['#']", "`keywords`: expected text with a letter or a digit in it"),
    ],
)
def test_a_message_names_the_field_and_what_is_allowed(
    tmp_path: Path, field: str, said: str
) -> None:
    told = fault(tmp_path / "a.yaml", f"version: 1\nrules:\n  - id: a\n    {field}\n")
    assert said in told


@pytest.mark.parametrize("text", ["{}: 1".format("a" * 10**5), "id: a\nmode: " + "x" * 10**5])
def test_a_message_is_short_however_long_what_is_written(tmp_path: Path, text: str) -> None:
    item = text.replace("\n", "\n  ")
    assert len(fault(tmp_path / "a.yaml", f"version: 1\nrules:\n- {item}\n")) < 300


LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
MERGES = "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "[" * 100_000, "a.yaml:1: nests deeper than 100 levels"),
        ("a.yaml", "\n" + "{a: " * 100_000, "a.yaml:2: nests deeper than 100 levels"),
        ("a.yaml", "- " * 100_000 + "a", "a.yaml:1: nests deeper than 100 levels"),
        ("a.yaml", "[" * 101 + "]" * 101, "a.yaml:1: nests deeper than 100 levels"),
        ("a.yaml", "[" * 100 + "]" * 100, "a.yaml:1: expected a mapping, got a list"),
        ("a.json", "[" * 100_000, "a.json:1: nests deeper than can be read"),
        ("a.json", "[" * 500 + "]" * 500, "a.json:1: expected a mapping, got a list"),
        ("a.toml", "a = " + "[" * 100_000, "a.toml:1: nests deeper than can be read"),
        ("a.yaml", "a0: &a0 [x]\n" + LAUGHS, "a.yaml:5: aliases repeat more than 10000 values"),
        ("a.yaml", "a0: &a0 {x: y}\n" + MERGES, "a.yaml:5: aliases repeat more than 10000 values"),
        ("a.yaml", "a: &a\n- [*a]\n", "a.yaml:2: the alias *a stands within what it stands for"),
    ],
)
def test_what_would_take_the_process_down_is_a_fault(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    # In a process of its own, which has too little memory for what the text stands for.
    (tmp_path / name).write_text(text)
    answer = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, tmp_path],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(said)


IN_LITTLE_MEMORY = """
import pathlib, resource, sys
from sidecar.redaction.rules import read_rules
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
print(read_rules(pathlib.Path(sys.argv[1]))[1][0])
"""


def test_aliases_may_be_used(tmp_path: Path) -> None:
    load(
        tmp_path,
        a_yaml="version: 1\nrules:\n"
        "- {id: a, find: email, except: &spared {keys: [k]}}\n"
        "- {id: b, find: card, except: *spared}\n",
    )
    assert [rule.except_.keys for rule in load_rules(tmp_path).rules] == [["k"], ["k"]]


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path, name: str) -> None:
    text = '{"version": 1, "rules": [{"id": "a", "find": "email"}]}'
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert [rule.id for rule in load_rules(tmp_path).rules] == ["a"]
