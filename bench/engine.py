"""How much log text is redacted in a second: by the engine, by many rules, through a pipe."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial

from bench.extra_rules import with_extra_rules
from bench.logtext import blocks, clean_text, dirty_text
from bench.process import memory_bytes
from bench.table import Row, Section, progress, seconds
from sidecar.redaction.engine import Engine
from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from sidecar.redaction.rules import load_rules
from sidecar.settings import default_rules_dir

MB = 10**6
TOTAL = 100 * MB
# Made once and gone through until it is `TOTAL`.
PIECE = 8 * MB
_FEW_ROUNDS, _FEW = 5, MB


def rows() -> list[Row]:
    progress("making log text")
    clean, dirty = clean_text(PIECE), dirty_text(PIECE)
    return [
        *_engine_rows(clean, "clean text", "≥ 30 MB/s"),
        *_engine_rows(dirty, "a finding in every tenth line", "≥ 10 MB/s"),
        *_many_rules_rows(clean, dirty),
        *_pipe_rows(clean, dirty),
    ]


def redact_all(redactor: Redactor, texts: Iterable[str]) -> int:
    """Redact texts one by one; return how many were changed."""
    return sum(redactor.string(text, "", Report(), {}) is not text for text in texts)


def shipped() -> Redactor:
    return Engine(load_rules(default_rules_dir())).redactor("logs")


def _engine_rows(text: str, kind: str, goal: str) -> list[Row]:
    redactor = shipped()
    pieces, lines = blocks(text), text.splitlines(keepends=True)
    changed = redact_all(redactor, lines) / len(lines)
    rows = []
    for what, texts, must in (("64 KiB blocks", pieces, goal), ("line by line", lines, "")):
        progress(f"engine, {kind}, {what}")
        rate = _rate(partial(redact_all, redactor, texts), len(text.encode()))
        rows.append(Row(f"engine, {kind}, {what}", f"{rate:.1f} MB/s", must))
    rows.append(Row(f"lines changed, {kind}", f"{100 * changed:.1f} %"))
    return rows


def _rate(once: Callable[[], object], size: int) -> float:
    """Go through a text until it is `TOTAL`; return MB/s."""
    passes = max(1, round(TOTAL / size))
    return passes * size / MB / sum(seconds(once) for _ in range(passes))


def _many_rules_rows(clean: str, dirty: str) -> list[Row]:
    """Time few rules and many in turn, so that what else the machine does falls on both."""
    few = load_rules(default_rules_dir())
    many = with_extra_rules(few)
    redactors = [Engine(rules).redactor("logs") for rules in (few, many)]
    rows = []
    for kind, text in (("clean text", clean), ("a finding in every tenth line", dirty)):
        progress(f"many rules, {kind}")
        pieces = blocks(text[:_FEW])
        best = [float("inf")] * 2
        for _ in range(_FEW_ROUNDS):
            for index, redactor in enumerate(redactors):
                taken = seconds(partial(redact_all, redactor, pieces))
                best[index] = min(best[index], taken)
        what = f"{len(many.rules)} rules against {len(few.rules)}, {kind}"
        rows.append(Row(what, f"{best[1] / best[0]:.2f} times the time", "≤ 1.6"))
    return rows


def _pipe_rows(clean: str, dirty: str) -> list[Row]:
    rows: list[Row] = []
    for kind, text, sizes, goal in (
        ("clean text", clean, (10, 200), "≥ 20 MB/s"),
        ("a finding in every tenth line", dirty, (10, 50), ""),
        ("clean JSON lines", _json_lines(clean), (10, 100), ""),
    ):
        data, memory = text.encode(), []
        for size in sizes:
            progress(f"sidecar redact, {kind}, {size} MB")
            rate, peak = _through_pipe(data, size * MB)
            memory.append(f"{peak / 2**20:.0f} MiB for {size} MB")
        rows += [
            Row(f"sidecar redact, a pipe of {sizes[-1]} MB, {kind}", f"{rate:.1f} MB/s", goal),
            Row(f"its peak memory, {kind}", ", ".join(memory), "equal"),
        ]
    return rows


def _json_lines(text: str) -> str:
    """Return log text as a structured logger writes it: one JSON object a line."""
    return "".join(
        json.dumps(
            {"ts": line[:27], "level": "info", "logger": "app", "line": n, "message": line[28:]}
        )
        + "\n"
        for n, line in enumerate(text.splitlines())
    )


def _through_pipe(data: bytes, total: int) -> tuple[float, int]:
    """Send text through ``sidecar redact``; return MB/s, its start included, and peak bytes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "redact"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    stdin, stdout, peak = process.stdin, process.stdout, 0

    def write() -> None:
        nonlocal peak
        for start in range(0, total, len(data)):
            stdin.write(data[: total - start])
        stdin.flush()
        # Not what `wait4` tells: on Linux that is at least the memory of the parent.
        peak = memory_bytes(process.pid, "VmHWM")
        stdin.close()

    def run() -> None:
        writer = threading.Thread(target=write)
        writer.start()
        while stdout.read(2**20):
            pass
        writer.join()
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, process.args)

    taken = seconds(run)
    return total / MB / taken, peak


SECTION = Section(
    "Engine",
    f"Log text with the rules that ship, one core: {TOTAL // MB} MB, which are {PIECE // MB} MB "
    "of different lines gone through again and again.",
    rows,
)
