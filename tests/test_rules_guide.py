"""The operators' guide to rules: every example in it does what it says there."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar.metrics import REGISTRY
from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.engine import Engine, check_rules
from sidecar.redaction.report import Report
from sidecar.redaction.rules import (
    RULE_SIGNALS,
    Action,
    Rule,
    RuleSignal,
    load_rules,
    read_rules,
)
from sidecar.redaction.validators import validator
from sidecar.redaction.walk_json import redact_json
from sidecar.redaction.walk_otlp import redact_otlp
from sidecar.settings import default_rules_dir
from tests.examples import ROOT, Block, Section, Shell, broken_links, code, sections, table

GUIDE = (ROOT / "docs" / "rules.md").read_text()
SECTIONS = sections(GUIDE)
KEY = b"for the guide only"

RULES_BLOCKS = [block for section in SECTIONS for block in section.blocks if block.path]
SHELL_SECTIONS = [s for s in SECTIONS if any(b.language == "console" for b in s.blocks)]


def manifests() -> Iterator[Any]:
    """Yield what stands in the blocks for Kubernetes."""
    for section in SECTIONS:
        for block in section.blocks:
            if block.language == "yaml" and not block.path:
                yield yaml.safe_load(block.text)


def by_line(block: Block) -> str:
    return f"line-{block.line}"


def test_every_block_is_of_a_kind_that_is_run() -> None:
    kinds = {block.language for section in SECTIONS for block in section.blocks}
    assert kinds == {"yaml", "toml", "json", "console", "sh"}
    assert GUIDE.count("```") == 2 * sum(len(section.blocks) for section in SECTIONS)
    assert len(RULES_BLOCKS) > 20


@pytest.mark.parametrize("block", RULES_BLOCKS, ids=by_line)
def test_a_rules_file_holds_to_its_tests(block: Block, tmp_path: Path) -> None:
    faults = check_rules(block.write(tmp_path), KEY)
    assert bool(faults) == block.faulty, faults


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_every_rule_is_shown_at_work(section: Section, tmp_path: Path) -> None:
    shown = False
    for number, block in reversed(list(enumerate(section.blocks))):
        shown = shown or block.language == "console"
        if block.path:
            rules, _ = read_rules(block.write(tmp_path / str(number)))
            assert shown or all(rule.tests for rule in rules.rules), block.path


@pytest.mark.parametrize("section", SHELL_SECTIONS, ids=lambda section: section.title)
def test_commands_print_what_stands_below_them(section: Section, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with ExitStack() as stack:
        shell = Shell(folder, stack)
        for block in section.blocks:
            for command, answer, printed in shell.follow(block):
                assert answer == printed, command


def redact(rule: str, value: Any, folder: Path, signal: RuleSignal = "http") -> Any:
    """Return what one rule, written as a line of YAML, makes of a JSON value."""
    (folder / "rule.yaml").write_text(f"version: 1\nrules:\n  - {rule}\n")
    return redact_json(value, Engine(load_rules(folder)).redactor(signal), Report())


def test_the_table_of_detectors_is_that_of_the_engine() -> None:
    names = [code(row[0]) for row in table(SECTIONS, "find: built-in detectors", "detector")]
    assert sorted(names) == sorted([name] for name in DETECTORS)


@pytest.mark.parametrize(
    "row", table(SECTIONS, "find: built-in detectors", "detector"), ids=lambda r: r[0]
)
def test_a_detector_finds_what_the_table_says(row: list[str], tmp_path: Path) -> None:
    (name,), (before, after), (stays,) = code(row[0]), code(row[2]), code(row[3])
    rule = f"{{id: found, find: {name}, action: {{replace: {{with: '[REDACTED]'}}}}}}"
    assert redact(rule, before, tmp_path) == after
    assert redact(rule, stays, tmp_path) == stays


def test_tables_name_all_parts_of_the_language() -> None:
    actions = [row[0] for row in table(SECTIONS, "action", "action")]
    named = {re.match(r"`\{(\w+)", action)[1] for action in actions}  # type: ignore[index]
    assert named == set(Action.__struct_fields__)
    titles = " ".join(section.title for section in SECTIONS)
    for field in msgspec.structs.fields(Rule):
        if field.name not in {"id", "description"}:
            assert re.search(rf"\b{field.encode_name}\b", titles), field.encode_name
    for signal in RULE_SIGNALS:
        assert f"`{signal}`" in GUIDE
    assert {"keys.ignore", "keys.allow"} <= {section.title for section in SECTIONS}


def test_it_names_every_check() -> None:
    with pytest.raises(ValueError, match="unknown check") as refused:
        validator("none")
    known = re.findall(r"there are (.*) and the numbers", str(refused.value))[0].split(", ")
    (section,) = (s for s in SECTIONS if s.title == "validate")
    assert set(known) <= set(code(section.text.rpartition("```")[2]))


@pytest.mark.parametrize("row", table(SECTIONS, "action", "action"), ids=lambda row: row[0])
def test_the_actions_of_the_table_are_as_they_are_written(row: list[str], tmp_path: Path) -> None:
    for action in code(row[0]):
        for way, what in (("keys", "[a]"), ("pattern", "a")):
            (tmp_path / "a.yaml").write_text(
                f"version: 1\nrules:\n  - {{id: a, {way}: {what}, action: {action}}}\n"
            )
            faults = check_rules(tmp_path, KEY)
            assert bool(faults) == (way == "pattern" and row[2] == "`keys`"), faults


def test_texts_in_no_attribute_have_the_names_of_the_table(tmp_path: Path) -> None:
    names = [code(row[0])[0] for row in table(SECTIONS, "keys: whole values", "name")]
    span = {
        "name": "n",
        "status": {"message": "m"},
        "events": [{"name": "n"}],
    }
    log = {"body": {"kvlistValue": {"values": [{"key": "user", "value": {"stringValue": "u"}}]}}}
    metric = {"name": "kept", "description": "d", "sum": {}}
    messages = (
        (ExportTraceServiceRequest, "resourceSpans", "scopeSpans", {"spans": [span]}),
        (ExportLogsServiceRequest, "resourceLogs", "scopeLogs", {"logRecords": [log]}),
        (ExportMetricsServiceRequest, "resourceMetrics", "scopeMetrics", {"metrics": [metric]}),
    )
    (tmp_path / "rule.yaml").write_text(
        f"version: 1\nrules:\n  - {{id: a, keys: {names}, action: {{replace: {{with: '#'}}}}}}\n"
    )
    redactor = Engine(load_rules(tmp_path)).redactor("traces")
    keys: set[str] = set()
    for kind, resources, scopes, content in messages:
        request = ParseDict({resources: [{scopes: [content]}]}, kind())
        keys |= {key for key, _ in redact_otlp(request, redactor).report.counts}
    assert keys == set(names)


def faults_of(text: str, folder: Path) -> list[str]:
    (folder / "a.yaml").write_text(text)
    return [fault.partition(": ")[2] for fault in check_rules(folder, KEY)]


WRITTEN = {"rule": "version: 1\nrules:\n  - {}\n", "file": "{}\n"}


@pytest.mark.parametrize("kind", WRITTEN)
def test_faults_are_told_as_the_table_says(kind: str, tmp_path: Path) -> None:
    for row in table(SECTIONS, "Faults and what they say", kind):
        (wrong,), (said,), (right,) = map(code, row)
        (fault,) = faults_of(WRITTEN[kind].replace("{}", wrong, 1), tmp_path)
        # Of a long list, the beginning is told.
        assert fault == said or (said.endswith("…") and fault.startswith(said[:-1]))
        assert faults_of(WRITTEN[kind].replace("{}", right, 1), tmp_path) == []


def test_the_rules_that_ship_are_those_of_the_table() -> None:
    rules = load_rules(default_rules_dir())
    shipped: dict[str, list[str]] = {}
    for rule_id, place in rules.places.items():
        shipped.setdefault(place.partition(":")[0], []).append(rule_id)
    rows = table(SECTIONS, "The rules that ship", "file")
    assert {code(row[0])[0]: code(row[2]) for row in rows} == shipped


def test_metrics_of_the_guide_are_those_of_the_process() -> None:
    known = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in REGISTRY.collect()
    }
    named = set(re.findall(r"`(telemetry_cache_\w+)", GUIDE))
    assert len(named) >= 6
    assert named <= known


def test_the_config_map_is_a_rules_folder_and_is_mounted_where_it_is_read(tmp_path: Path) -> None:
    config_map, pod = manifests()
    for name, content in config_map["data"].items():
        (tmp_path / name).write_text(content)
    assert check_rules(tmp_path, KEY) == []
    (container,) = pod["containers"]
    (variable,), (mount,), (volume,) = (
        container["env"],
        container["volumeMounts"],
        pod["volumes"],
    )
    assert variable == {"name": "SIDECAR_RULES", "value": mount["mountPath"]}
    assert mount["name"] == volume["name"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]


def test_its_links_lead_somewhere() -> None:
    assert broken_links(ROOT / "docs" / "rules.md") == []
