"""The README: its examples answer as printed there."""

from contextlib import ExitStack
from pathlib import Path

import trio

from sidecar.app import open_webui_environ
from sidecar.settings import Settings
from tests.examples import ROOT, Shell, broken_links, sections
from tests.valkey import run_valkey

README = (ROOT / "README.md").read_text()
BLOCKS = [block for section in sections(README) for block in section.blocks]


async def test_every_example_answers_as_printed(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    async with run_valkey() as server:
        await trio.to_thread.run_sync(follow_all, folder, server.port)


def follow_all(folder: Path, redis_port: int) -> None:
    ran = 0
    with ExitStack() as stack:
        shell = Shell(folder, stack)
        shell.serve("6379", str(redis_port))
        # As `make run` on a machine without Redis.
        sidecar = shell.start({"REDIS_URL": "redis://127.0.0.1:1"})
        for block in BLOCKS:
            for command, answer, printed in shell.follow(block):
                assert answer == printed, command
                ran += 1
        sidecar.stop()
        (line,) = sidecar.lines()
    assert ran == 23
    assert '"note":"mail [REDACTED_EMAIL]"' in README
    assert line["payload"]["note"] == "mail [REDACTED_EMAIL]"


def test_it_tells_the_variables_that_the_start_prints() -> None:
    for settings in (Settings(), Settings(sidecar_otlp_grpc_port=0)):
        block = "\n".join(f"{k}={v}" for k, v in open_webui_environ(settings).items())
        assert f"```sh\n{block}\n```" in README


def test_its_links_lead_somewhere() -> None:
    assert broken_links(ROOT / "README.md") == []
