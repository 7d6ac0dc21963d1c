"""``sidecar redact`` as a process on real pipes."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

COMMAND = [sys.executable, "-m", "sidecar", "redact"]
LINE = b"2026-11-24 02:25:53.123 | INFO | open_webui.main:142 - GET /api/v1/chats took 12 ms\n"
RULES = """
version: 1
rules:
  - {id: user, keys: [user_id]}
  - {id: mail, find: email}
  - {id: staff, pattern: 'E-[0-9]{6}', action: {hash: {}}, signals: [logs]}
  - {id: spin, pattern: endless, action: {replace: {with: endless-endless}}}
  - {id: gone, pattern: TOPSECRET, action: {drop_record: {}}}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES)
    inherited = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"} or "COVERAGE" in k}
    return {**inherited, "SIDECAR_RULES": str(folder), "SIDECAR_HASH_KEY": "for the test"}


def run(
    environ: Mapping[str, str], *arguments: str, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environ, input=given, capture_output=True, timeout=60
    )


@contextmanager
def pipe(environ: Mapping[str, str], **streams: Any) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    with subprocess.Popen(
        COMMAND, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **streams
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdin, process.stdout
        finally:
            process.kill()


def test_a_line_comes_out_before_the_next_comes_in(environ: dict[str, str]) -> None:
    with pipe(environ) as (into, out):
        for line, expected in (
            (b"to a@example.com\n", b"to [REDACTED_MAIL]\n"),
            (b'{"user_id": "bob"}\n', b'{"user_id":"[REDACTED_USER]"}\n'),
            (b"\n", b"\n"),
            (b"plain\n", b"plain\n"),
        ):
            into.write(line)
            into.flush()
            assert out.readline() == expected


def peak_memory(environ: Mapping[str, str], size: int) -> int:
    """Return the most memory that a filter of ``size`` bytes took, in kB."""
    block = LINE * 1000
    with subprocess.Popen(
        COMMAND, env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        for _ in range(size // len(block)):
            process.stdin.write(block)
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def test_memory_does_not_grow_with_the_input(environ: dict[str, str]) -> None:
    assert peak_memory(environ, 60_000_000) < peak_memory(environ, 5_000_000) + 4096


def test_every_finding_is_a_json_line_that_points_at_the_value(environ: dict[str, str]) -> None:
    text = "é one@example.com\n" * 20_000
    answer = run(environ, "--report", given=text.encode())
    assert answer.stdout.decode() == "é [REDACTED_MAIL]\n" * 20_000
    findings = [msgspec.json.decode(line) for line in answer.stderr.splitlines()]
    assert len(findings) == 20_000
    assert {text[found["start"] : found["end"]] for found in findings} == {"one@example.com"}
    assert findings[0] == {"rule": "mail", "start": 2, "end": 17, "path": ""}


def test_a_file_is_read_and_its_end_kept(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "app.log").write_bytes(LINE * 10_000 + b"a@example.com")
    answer = run(environ, str(tmp_path / "app.log"))
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout == LINE * 10_000 + b"[REDACTED_MAIL]"


def test_rules_and_signal_can_be_named(environ: dict[str, str]) -> None:
    folder = environ["SIDECAR_RULES"]
    by_default = run({**environ, "SIDECAR_RULES": ""}, "--rules", folder, given=b"E-123456\n")
    assert by_default.stdout == b"E-123456\n"
    for_logs = run(environ, "--signal", "logs", given=b"E-123456\n")
    assert for_logs.stdout.startswith(b"[STAFF:")


@pytest.mark.parametrize(
    ("given", "out", "code", "said"),
    [
        (b"endless\nx\nendless\n", b"x\n", 1, b"sidecar: 2 records left out: they could not be"),
        (b'{"a": "endless"}\n', b"", 1, b"sidecar: 1 record left out: it could not be redacted\n"),
        (b"TOPSECRET\nx\n", b"x\n", 0, b""),
        (b"first\n" + b"x" * (2**24 + 1), b"first\n", 1, b"sidecar: standard input: a line is l"),
        ("x\n".encode("utf-16"), b"", 1, b"sidecar: standard input: this is UTF-16 text; convert"),
    ],
)
def test_what_is_left_out_is_said(
    environ: dict[str, str], given: bytes, out: bytes, code: int, said: bytes
) -> None:
    answer = run(environ, given=given)
    assert (answer.stdout, answer.returncode) == (out, code)
    assert answer.stderr.startswith(said) and answer.stderr.count(b"\n") == bool(said)


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (["none.log"], {}, 1, "sidecar: none.log: No such file or directory"),
        (["/"], {}, 1, "sidecar: /: is a directory; name a file in it"),
        ([""], {}, 1, "sidecar: '': No such file or directory"),
        (["/proc/self/mem"], {}, 1, "sidecar: /proc/self/mem: Input/output error"),
        (["a", "b"], {}, 2, "usage: sidecar"),
        (["--rules", "none"], {}, 1, "sidecar: none: the rules folder cannot be read: No such"),
        ([], {"SIDECAR_HASH_KEY": ""}, 1, "sidecar: rules.yaml:6: "),
        ([], {"LOG_LEVEL": "loud"}, 1, "sidecar: LOG_LEVEL='loud' is not allowed"),
        (["--signal", "x"], {}, 2, "sidecar: --signal 'x' is unknown: use one of traces, metrics"),
        (["--format", "x"], {}, 2, "usage: sidecar redact"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    environ: dict[str, str], arguments: list[str], variables: dict[str, str], code: int, said: str
) -> None:
    answer = run({**environ, **variables}, *arguments, given=b"a@example.com\n")
    assert (answer.returncode, answer.stdout) == (code, b"")
    assert answer.stderr.decode().startswith(said)
    assert b"Traceback" not in answer.stderr


@pytest.mark.parametrize("size", [0, 1])
def test_an_input_without_a_line_is_no_fault(environ: dict[str, str], size: int) -> None:
    answer = run(environ, given=b"x" * size)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"x" * size, b"")


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (">/dev/full", b"sidecar: standard output: No space left on device\n"),
        (">&-", b"sidecar: standard output: Bad file descriptor\n"),
        ("<&-", b"sidecar: standard input: Bad file descriptor\n"),
        ("2>&-", b""),
        ("2>/dev/full", b""),
    ],
)
def test_a_stream_that_cannot_be_used_fails_in_one_line(
    environ: dict[str, str], streams: str, said: bytes
) -> None:
    answer = subprocess.run(
        ["sh", "-c", f'"$@" --report {streams}', "sh", *COMMAND],
        env=environ,
        input=b"a@example.com\n",
        capture_output=True,
        timeout=60,
    )
    assert (answer.returncode, answer.stderr) == (1, said)


def test_a_reader_that_goes_away_ends_it_as_it_ends_grep(environ: dict[str, str]) -> None:
    with subprocess.Popen(
        COMMAND,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.close()
        with pytest.raises(BrokenPipeError):
            while True:
                process.stdin.write(LINE * 1000)
                process.stdin.flush()
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (-signal.SIGPIPE, b"")


def test_an_interrupt_ends_it_without_a_traceback(environ: dict[str, str]) -> None:
    with subprocess.Popen(
        COMMAND,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None and process.stderr.read() == b""


def test_a_file_shows_progress_on_a_terminal_and_clears_it(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "app.log").write_bytes(LINE * 60_000)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, str(tmp_path / "app.log")], env=environ, stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how a terminal says on Linux that the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"% " in shown and b"MB/s" in shown
    assert shown.endswith(b"\r\x1b[K") and b"\n" not in shown


def test_on_a_terminal_it_says_what_it_waits_for(environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        COMMAND, env=environ, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        assert b"Ctrl-D" in read_until(ours, b"ends it")
        os.write(ours, b"to a@example.com\n\x04")
        assert process.stdout is not None
        assert process.stdout.read() == b"to [REDACTED_MAIL]\n"
    os.close(ours)
    assert process.returncode == 0


def read_until(source: int, words: bytes) -> bytes:
    shown = b""
    while words not in shown:
        shown += os.read(source, 4096)
    return shown


@pytest.mark.parametrize("arguments", [["redact", "--help"], ["check", "--help"]])
def test_help_gives_examples(environ: dict[str, str], arguments: list[str]) -> None:
    answer = subprocess.run(
        [*COMMAND[:-1], *arguments], env=environ, capture_output=True, timeout=60
    )
    assert answer.returncode == 0
    assert f"  sidecar {arguments[0]}".encode() in answer.stdout
