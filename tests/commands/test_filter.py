"""Redacting pieces: what is changed, what is left out, and where findings are said to be."""

from pathlib import Path

import msgspec
import pytest

from sidecar.commands.filter import Filter
from sidecar.commands.pieces import InputFormat, Splitter
from sidecar.redaction.engine import Engine
from sidecar.redaction.report import Finding
from sidecar.redaction.rules import load_rules

RULES = """
version: 1
rules:
  - {id: user, keys: [user_id]}
  - {id: key, find: private-key}
  - {id: mail, find: email}
  - {id: staff, pattern: 'E-[0-9]{6}', action: {replace: {with: '0'}}}
  - {id: spin, pattern: endless, action: {replace: {with: endless-endless}}}
  - {id: gone, pattern: TOPSECRET, action: {drop_record: {}}}
"""
KEY_LINE = "bm90IGEga2V5IGF0IGFsbCwganVzdCB0ZXh0\n"
BEGIN = "-----BEGIN RSA PRIVATE" + " KEY-----\n"
END = "-----END RSA PRIVATE" + " KEY-----\n"
KEY = BEGIN + KEY_LINE * 3 + END


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder: Path = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(RULES)
    return Engine(load_rules(folder))


class Run:
    """A filter and what came out of it."""

    def __init__(
        self, engine: Engine, data: bytes, size: int = 10_000, form: InputFormat = "auto"
    ) -> None:
        self.findings: list[Finding] = []
        self.filter = Filter(engine.redactor("http"), engine.rules, form, self.findings.append)
        splitter = Splitter(form, max_key=200)
        self.out = b""
        for at in range(0, len(data), size):
            self.out += self.filter.redact(splitter.feed(data[at : at + size]))
        self.out += self.filter.redact(splitter.feed(b"", end=True))
        self.filter.finish()

    @property
    def paths(self) -> list[str]:
        return [found.path for found in self.findings]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"\n\r\n\n x \r\n\r", b"\n\r\n\n x \r\n\r"),
        (b"to a@example.com\r\nend", b"to [REDACTED_MAIL]\r\nend"),
        (b"caf\xe9 a@example.com \xff\r\n", b"caf\xe9 [REDACTED_MAIL] \xff\r\n"),
        ("café a@example.com\n\xff\n".encode(), "café [REDACTED_MAIL]\n\xff\n".encode()),
        (b'{ "n": 1.50, "s": "\\u0041" }\n', b'{ "n": 1.50, "s": "\\u0041" }\n'),
        (b' {"user_id": "bob", "n": 1}\r\n', b' {"user_id":"[REDACTED_USER]","n":1}\r\n'),
        (b'{"user_id": "bob", "n": NaN}', b'{"user_id":"[REDACTED_USER]","n":null}'),
        # What is JSON once it is redacted is redacted as JSON, as it would be the next time.
        (b'{"user_id": "bob", "n": E-123456}\n', b'{"user_id":"[REDACTED_USER]","n":0}\n'),
        (f"see {KEY}end\n".encode(), b"see [REDACTED_KEY]\nend\n"),
        # As UTF-8 and as Latin-1: what is found in either reading goes.
        ("\uff41@example.com ".encode() + b"\xff\n", b"[REDACTED_MAIL] \xff\n"),
        (b"andr\xe9@example.com\n", b"[REDACTED_MAIL]\n"),
        (f"see \xff{KEY}end\n".encode("latin-1"), b"see \xff[REDACTED_KEY]\nend\n"),
    ],
)
def test_what_comes_out(engine: Engine, data: bytes, expected: bytes, size: int) -> None:
    run = Run(engine, data, size)
    assert run.out == expected
    assert (run.filter.failed, run.filter.dropped) == (0, 0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{\n  "user_id": "é",\n  "n": [\n    1\n  ]\n}\n', '{\n  "user_id": "[REDACTED_USER]",'),
        ('{\n\t"user_id": "bob"\n}', '{\n\t"user_id": "[REDACTED_USER]"\n}'),
        ('{\r\n "user_id": "bob"\r\n}\r\n', '{\r\n "user_id": "[REDACTED_USER]"\r\n}\r\n'),
        ('{"user_id":\n"bob"}\n', '{"user_id":"[REDACTED_USER]"}\n'),
        ('{\n "a": "\\u00e9",\n "user_id": "b"\n}', '{\n "a": "\\u00e9",\n "user_id": "[RED'),
        ('{\n  "n" :   1.50\n}\n', '{\n  "n" :   1.50\n}\n'),
    ],
)
def test_a_document_keeps_its_style(engine: Engine, data: str, expected: str) -> None:
    run = Run(engine, data.encode())
    assert run.out.decode().startswith(expected)
    before, after = msgspec.json.decode(data), msgspec.json.decode(run.out)
    assert after == (before | {"user_id": "[REDACTED_USER]"} if "user_id" in before else before)


@pytest.mark.parametrize(
    "line",
    [
        '{"user_id": "bob", "user_id": null}',
        '{"a": {"user_id": "bob", "user_id": null}}',
        # One quotation mark fewer in its escape for each one more in the name that is there twice.
        '{"user_id": "bob", "user_id": null, "x": "\\u0022\\u0022\\u0022\\u0022"}',
    ],
)
def test_a_value_that_json_decoding_forgets_does_not_come_out(engine: Engine, line: str) -> None:
    assert b"bob" not in Run(engine, line.encode()).out


def test_an_escaped_quotation_mark_changes_nothing(engine: Engine) -> None:
    line = b'{"x": "say \\u0022hi\\u0022", "y": {"x": 1}}\n'
    assert Run(engine, line).out == line


@pytest.mark.parametrize(
    ("form", "data", "out", "failed", "dropped"),
    [
        ("auto", "a\nendless\nb@example.com\n", "a\n[REDACTED_MAIL]\n", 1, 0),
        ("auto", "a\nTOPSECRET\nb\n", "a\nb\n", 0, 1),
        ("auto", '{"a": "endless"}\n{"b": 1}\n', '{"b": 1}\n', 1, 0),
        ("auto", '{"a": "TOPSECRET"}\n{"b": 1}\n', '{"b": 1}\n', 0, 1),
        ("auto", "[" * 100 + "]" * 100 + "\nx\n", "x\n", 1, 0),
        ("auto", "[" * 5000 + "]" * 5000 + "\nx\n", "x\n", 1, 0),
        ("auto", '{"a": "\\ud800", "user_id": "bob"}\nx\n', "x\n", 1, 0),
        ("auto", f"endless {KEY}x\n", "x\n", 1, 0),
        ("auto", '{\n "a": "endless"\n}\n', "", 1, 0),
        ("json", "no JSON", "", 1, 0),
        ("ndjson", '{"a": 1}\nno JSON\n\n"a"\n', '{"a": 1}\n\n"a"\n', 1, 0),
    ],
)
def test_what_cannot_be_redacted_is_left_out_and_counted(
    engine: Engine, form: InputFormat, data: str, out: str, failed: int, dropped: int
) -> None:
    run = Run(engine, data.encode(), form=form)
    assert (run.out.decode(), run.filter.failed, run.filter.dropped) == (out, failed, dropped)


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_of_a_key_without_end_nothing_comes_out(engine: Engine, size: int) -> None:
    data = f"a\n{BEGIN}{KEY_LINE * 30}end of it\nb\n"
    assert Run(engine, data.encode(), size).out == b"a\n[REDACTED_KEY]\nend of it\nb\n"


def test_without_a_rule_for_keys_they_come_out_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 1\nrules:\n  - {id: mail, find: email}\n")
    data = f"a\n{BEGIN}{KEY_LINE * 30}end of it\nb\n".encode()
    assert Run(Engine(load_rules(tmp_path)), data, 50).out == data


@pytest.mark.parametrize("size", [1, 5, 33, 10_000])
def test_offsets_are_those_of_the_whole_stream(engine: Engine, size: int) -> None:
    text = (
        "é one@example.com\n"
        '{"a": "é", "user_id": "bob"}\r\n'
        f"😀 two@example.com {KEY} three@example.com\n"
        "endless\nTOPSECRET\nfour@example.com"
    )
    run = Run(engine, text.encode(), size)
    found = {
        text[f.start : f.end] for f in run.findings if f.rule in ("mail", "key") and not f.path
    }
    assert found == {f"{n}@example.com" for n in ("one", "two", "three", "four")} | {KEY.strip()}


def test_offsets_behind_bytes_that_are_no_utf8(engine: Engine) -> None:
    run = Run(engine, "é a\n".encode() + b"\xe9\xff\n" + b"one@example.com\n")
    (found,) = run.findings
    assert (found.start, found.end) == (7, 22)


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize(
    ("form", "data", "paths"),
    [
        ("auto", '{"a": {"user_id": "b"}}', ["/a/user_id"]),
        ("auto", '\n{"a": {"user_id": "b"}}\n\n', ["/a/user_id"]),
        ("auto", '{"user_id": "b"}\n{"a": 1}\n{"user_id": "b"}\n', ["/0/user_id", "/2/user_id"]),
        ("auto", 'x\n{"user_id": "b"}\n', ["/0/user_id"]),
        ("auto", '{"user_id": "b"}\nx a@example.com\n', ["/0/user_id", ""]),
        ("auto", '{\n"a": [{"user_id": "b"}]}\n', ["/a/0/user_id"]),
        ("json", '{"a/b": {"user_id": "b"}}\n', ["/a~1b/user_id"]),
        ("ndjson", '{"a": 1}\n\n{"user_id": "b"}\n', ["/1/user_id"]),
    ],
)
def test_paths_are_json_pointers(
    engine: Engine, form: InputFormat, data: str, paths: list[str], size: int
) -> None:
    assert Run(engine, data.encode(), size, form).paths == paths
