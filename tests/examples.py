"""Examples in documents: where they stand, and a shell that does what they say."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sidecar.settings import default_rules_dir
from tests.process import SidecarProcess, sidecar_process

ROOT = Path(__file__).parent.parent
# How long a command that only asks may be asked again: a change of the rules takes its time.
_ASK_SECONDS = 10.0
_FENCE = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of a file of a rules folder: `# my-rules/10-staff.yaml` in its first line, or behind the fence.
_PATH = re.compile(r"(?:# )?((?:[\w-]+/)+[\w-]+\.(?:yaml|toml|json))(, with a fault)?")
_HEADING = re.compile(r"^##+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_RUN = re.compile(r"((?:[A-Z_]+=\S+ )*)sidecar run")
_UPSTREAM = re.compile(r"\.venv/bin/python -m tests\.upstream --port (\d+)")
# What is read at an address of this machine.
_AT_PORT = re.compile(r"\b(127\.0\.0\.1|localhost):(\d+)")
_PATHS = ("SIDECAR_RULES", "SIDECAR_CACHE_KEY_FILE")


class Block(msgspec.Struct, frozen=True):
    """A fenced block.

    Attributes:
        language: ``yaml``, ``console`` and so on.
        name: what else stands behind the fence.
        text: without the fences.
        line: of the document, at which the text begins.
    """

    language: str
    name: str
    text: str
    line: int

    @property
    def path(self) -> str:
        """Of the file of a rules folder that it is; else nothing."""
        named = self._named()
        return named[1] if named else ""

    @property
    def faulty(self) -> bool:
        """Whether it says that there is a fault in it."""
        named = self._named()
        return bool(named and named[2])

    def _named(self) -> re.Match[str] | None:
        if self.language not in {"yaml", "toml", "json"}:
            return None
        return _PATH.fullmatch(self.name or self.text.partition("\n")[0])

    def write(self, folder: Path) -> Path:
        """Write it under its name; return the rules folder that it lies in."""
        target = folder / self.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.text)
        return target.parent

    def commands(self) -> Iterator[tuple[str, str]]:
        """Yield (command, printed output) in order, of a ``console`` block."""
        if self.language != "console":
            return
        for example in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            yield command, output


class Section(msgspec.Struct, frozen=True):
    """What stands under one heading, up to the next one of any level."""

    title: str
    text: str
    blocks: list[Block]


def sections(document: str) -> list[Section]:
    """Return the sections of a Markdown document that has headings with ``##`` or more."""
    fences = [match.span() for match in _FENCE.finditer(document)]
    headings = [
        match
        for match in _HEADING.finditer(document)
        if not any(start < match.start() < end for start, end in fences)
    ]
    found = []
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        end = len(document) if following is None else following.start()
        text = document[heading.end() : end]
        first = document.count("\n", 0, heading.end()) + 1
        blocks = [
            Block(match[1], match[2] or "", match[3], first + text.count("\n", 0, match.start(3)))
            for match in _FENCE.finditer(text)
        ]
        found.append(Section(heading[1], text, blocks))
    return found


def cells(line: str) -> list[str]:
    """Return the cells of a row of a table."""
    return [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\) \| ", line[1:-1])]


def table(document: list[Section], title: str, first_cell: str) -> list[list[str]]:
    """Return the rows of a table, by the section it stands in and the first cell of its head."""
    (section,) = (s for s in document if s.title == title)
    rows: list[list[str]] = []
    inside = False
    for line in section.text.splitlines():
        inside = line.startswith("|") and (inside or cells(line)[0] == first_cell)
        if inside:
            rows.append(cells(line))
    assert len(rows) > 2, f"{title} has no table that begins with {first_cell}"
    return rows[2:]


def code(cell: str) -> list[str]:
    """Return the code spans of a cell."""
    spans = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", cell)
    return [text.strip() if len(ticks) > 1 else text for ticks, text in spans]


def broken_links(document: Path) -> list[str]:
    """Return the links of a Markdown document that lead to no file, or to no heading of one."""
    text = _FENCE.sub("", document.read_text())
    targets = [link for link in _LINK.findall(text) if not link.startswith(("http:", "https:"))]
    assert targets, f"{document.name} has no links"
    return [target for target in targets if not _leads_somewhere(document, target)]


def _leads_somewhere(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = document.parent / name if name else document
    if not path.exists():
        return False
    # As GitHub makes anchors of headings.
    titles = [section.title for section in sections(path.read_text())] if anchor else []
    slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    return not anchor or anchor in slugs


class Shell:
    """Runs commands in a folder, as a reader would type them, and servers beside them.

    Each server has a free port; in what it writes and runs, that stands for the one that the
    document shows, and in what is printed the other way round.

    Args:
        folder: the working directory; the rules that ship are in it, as in a checkout.
        stack: ends what runs beside the commands.

    Attributes:
        sidecars: those that run.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.sidecars: list[SidecarProcess] = []
        self._folder = folder
        self._stack = stack
        self._ports: dict[str, str] = {}
        shutil.copytree(default_rules_dir(), folder / "rules")
        bin_folder = folder.parent / f"{folder.name}.bin"
        bin_folder.mkdir()
        for name, target in (("sidecar", "-m sidecar"), ("curl", f"'{ROOT}/tests/curl.py'")):
            script = bin_folder / name
            script.write_text(f"#!/bin/sh\nexec '{sys.executable}' {target} \"$@\"\n")
            script.chmod(0o755)
        self._environ = {
            **{k: v for k, v in os.environ.items() if k == "HOME" or "COVERAGE" in k},
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, environ: dict[str, str]) -> SidecarProcess:
        """Run a sidecar, to which ``curl`` then talks."""
        shown = [environ.pop("SIDECAR_PORT", "8000"), environ.pop("PROMETHEUS_PORT", "9090")]
        environ = {name: self._actual(value) for name, value in environ.items()}
        environ |= {k: str(self._folder / v) for k, v in environ.items() if k in _PATHS}
        sidecar = self._stack.enter_context(sidecar_process(environ))
        self.sidecars.append(sidecar)
        for port, url in zip(shown, (sidecar.url, sidecar.metrics_url), strict=True):
            self.serve(port, url.rpartition(":")[2])
        return sidecar

    def serve(self, shown: str, port: str) -> None:
        """Let what is shown at one port of this machine be at another one."""
        self._ports[shown] = port

    def follow(self, block: Block) -> Iterator[tuple[str, str, str]]:
        """Write the file that a block is; run its commands; yield (command, answer, printed)."""
        if block.path:
            msgspec.structs.replace(block, text=self._actual(block.text)).write(self._folder)
        for command, printed in block.commands():
            yield command, steady(self.run(command, printed)), steady(printed)

    def run(self, command: str, printed: str) -> str:
        """Return what a command prints, errors too.

        What only asks a sidecar is asked until it answers as ``printed``, or for some seconds.
        """
        if service := _RUN.fullmatch(command):
            self.start(dict(pair.split("=", 1) for pair in service[1].split()))
            return printed
        if upstream := _UPSTREAM.fullmatch(command):
            return self._start_upstream(upstream[1])
        asks = command.startswith("curl") and not re.search(" -(?:d|X) ", command)
        deadline = time.monotonic() + _ASK_SECONDS
        while True:
            output = self._shown(
                subprocess.run(
                    ["sh", "-c", self._actual(command)],
                    cwd=self._folder,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=60,
                    check=False,
                    text=True,
                ).stdout
            )
            if not asks or steady(output) == steady(printed) or time.monotonic() > deadline:
                return output

    def _start_upstream(self, shown: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.upstream"],
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.terminate)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        self.serve(shown, url.rpartition(":")[2])
        return self._shown(url)

    def _actual(self, text: str) -> str:
        return _AT_PORT.sub(lambda at: f"{at[1]}:{self._ports.get(at[2], at[2])}", text)

    def _shown(self, text: str) -> str:
        ports = {actual: shown for shown, actual in self._ports.items()}
        return _AT_PORT.sub(lambda at: f"{at[1]}:{ports.get(at[2], at[2])}", text)


_UNSTEADY = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"\d{4}-\d{2}-\d{2}T[\d:.]+Z", "<time>"),
    (r"\b\d\d:\d\d:\d\dZ", "<time>"),
    (r"(?m)^date: .*", "date: <time>"),
    (r"\d+ rules in force", "<number> rules in force"),
    (r'"ttl_remaining":[\d.]+', '"ttl_remaining":<seconds>'),
    (r"\bttl=\d+", "ttl=<seconds>"),
    (r"(?m)^age: \d+", "age: <seconds>"),
    (r"\bsidecar-[0-9a-f]{8}\b", "sidecar-<name>"),
    (r"\bcurl/[\d.]+", "curl/<version>"),
)


def steady(text: str) -> str:
    """Return the text without what differs from run to run, and with every rule that is added."""
    for pattern, written in _UNSTEADY:
        text = re.sub(pattern, written, text)
    return text.strip()
