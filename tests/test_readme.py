"""The README: its examples answer as printed there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx2

from sidecar.app import open_webui_environ
from sidecar.redaction.detectors import DETECTORS
from sidecar.settings import Settings
from tests.process import SidecarProcess, sidecar_process

README = (Path(__file__).parent.parent / "README.md").read_text()


def examples() -> Iterator[tuple[str, str]]:
    """Yield (command, printed answer) of every console block, in order."""
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, answer = example.partition("\n")
            yield command, answer


def run_curl(command: str, sidecar: SidecarProcess) -> str:
    """Do what a curl command says; no machine needs curl for it."""
    words = iter(shlex.split(command)[1:])
    headers, data, url = {}, None, ""
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(words)
        elif word != "-s":
            url = word
    url = url.replace("localhost:8000", sidecar.url).replace("localhost:9090", sidecar.metrics_url)
    return httpx2.request("POST" if data else "GET", url, headers=headers, content=data).text


def steady(text: str) -> str:
    """Return the text without what differs from run to run: ids, times, seconds left."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"\d{4}-\d{2}-\d{2}T[\d:.]+Z", "<time>", text)
    return re.sub(r'"ttl_remaining":[\d.]+', '"ttl_remaining":<seconds>', text).strip()


def test_every_example_answers_as_printed() -> None:
    # As `make run` on a machine without Redis.
    with sidecar_process({"REDIS_URL": "redis://127.0.0.1:1"}) as sidecar:
        answers = [(steady(run_curl(command, sidecar)), steady(out)) for command, out in examples()]
        sidecar.stop()
        (line,) = sidecar.lines()
    assert len(answers) == 7
    for answer, printed in answers:
        assert answer == printed
    assert '"note":"mail [REDACTED_EMAIL]"' in README
    assert line["payload"]["note"] == "mail [REDACTED_EMAIL]"


def test_it_tells_the_variables_that_the_start_prints() -> None:
    for settings in (Settings(), Settings(sidecar_otlp_grpc_port=0)):
        block = "\n".join(f"{k}={v}" for k, v in open_webui_environ(settings).items())
        assert f"```sh\n{block}\n```" in README


def test_it_lists_every_detector() -> None:
    row = next(line for line in README.splitlines() if line.startswith("| `find` |"))
    assert set(re.findall(r"`([a-z0-9-]+)`", row)) - {"find"} == set(DETECTORS)


def test_the_example_rule_holds(tmp_path: Path) -> None:
    from sidecar.redaction.engine import Engine
    from sidecar.redaction.rules import load_rules

    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "rule.yaml").write_text(block)
    Engine(load_rules(tmp_path))
