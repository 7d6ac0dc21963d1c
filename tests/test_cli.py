"""The command line's own words."""

import subprocess
import sys

import pytest

from sidecar.cli import main
from sidecar.commands.pieces import INPUT_FORMATS


@pytest.mark.parametrize("command", ["check", "redact", "queue"])
def test_commands_have_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert "examples:\n" in output
    assert output.count(f"sidecar {command}") > 2


def test_the_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["redact", "--help"])
    assert f"{{{','.join(INPUT_FORMATS)}}}" in capsys.readouterr().out


def test_a_health_check_loads_nothing_of_the_service() -> None:
    script = (
        "import sys; from sidecar.cli import main; main(['health', '--url', 'http://127.0.0.1:1'])\n"
        "assert not {'trio', 're2', 'yaml', 'structlog'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_start_loads_nothing_that_may_not_be_needed() -> None:
    script = (
        "import sys, sidecar.commands.run\n"
        "assert not {'coredis', 'cryptography', 'hypercorn', 'quart'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
