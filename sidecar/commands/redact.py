"""``sidecar redact``: a filter from standard input or a file to standard output.

What is here reads, writes and tells; `sidecar.commands.pieces` cuts the stream and
`sidecar.commands.filter` redacts it. Every read is passed on as soon as it holds a whole line.
"""

import os
import signal
import stat
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from sidecar.commands.filter import Filter
from sidecar.commands.pieces import InputError, InputFormat, Piece, Splitter
from sidecar.redaction.engine import Engine
from sidecar.redaction.faults import RulesError
from sidecar.redaction.report import Finding
from sidecar.redaction.rules import RULE_SIGNALS, load_rules
from sidecar.settings import SettingsError, load_settings

# By number, since what is closed is no `sys.stdout` either.
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_BLOCK = 256 * 2**10
_SHOW_EVERY = 0.1  # seconds


def redact(file: str, rules: str | None, form: InputFormat, signal_name: str, report: bool) -> int:
    """Redact ``file`` (``-`` for standard input) to standard output.

    Args:
        file: its path.
        rules: the rules folder; None for the one the service would use.
        form: what the input is.
        signal_name: the rules of which signal to use.
        report: print every finding to standard error, one JSON object a line.

    Returns:
        0; 1 when something could not be read or was left out, 2 for an unknown signal.
    """
    # To end as other filters do when the reader has gone away.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if signal_name not in RULE_SIGNALS:
        _say(f"--signal '{signal_name}' is unknown: use one of {', '.join(RULE_SIGNALS)}")
        return 2
    try:
        source = _open(file)
        try:
            settings = load_settings(os.environ)
            folder = settings.rules_dir if rules is None else Path(rules)
            engine = Engine(load_rules(folder), settings.sidecar_hash_key.encode())
            findings: list[Finding] = []
            redaction = Filter(
                engine.redactor(signal_name),
                engine.rules,
                form,
                findings.append if report else None,
            )
            return _pump(source, Splitter(form), redaction, findings, shows=not report)
        finally:
            os.close(source)
    except (SettingsError, RulesError) as error:
        _say(str(error))
    except InputError as error:
        _say(f"{_name(file)}: {error}")
    except OSError as error:
        _say(f"{error.filename or _name(file)}: {error.strerror}")
    return 1


def _open(file: str) -> int:
    """Return what to read from, as a file descriptor."""
    if file != "-":
        source = os.open(file, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(source).st_mode):
            os.close(source)
            raise InputError("is a directory; name a file in it")
        return source
    os.fstat(_STDIN)  # raises when it is closed
    if os.isatty(_STDIN) and os.isatty(_STDERR):
        _say("reading what is typed here; Ctrl-D at the beginning of a line ends it")
    return _STDIN


def _pump(
    source: int, splitter: Splitter, redaction: Filter, findings: list[Finding], *, shows: bool
) -> int:
    progress = _progress(source) if shows else None
    try:
        end = False
        while not end:
            block = os.read(source, _BLOCK)
            end = not block
            pieces: list[Piece] = []
            try:
                for piece in splitter.feed(block, end=end):
                    pieces.append(piece)
            finally:
                # What stands before a fault comes out.
                _write(_STDOUT, redaction.redact(pieces))
                _tell(findings)
            if progress is not None:
                progress.add(len(block))
    finally:
        if progress is not None:
            progress.clear()
    redaction.finish()
    _tell(findings)
    if redaction.dropped and os.isatty(_STDERR):
        _say(f"{_records(redaction.dropped)} dropped by a rule")
    if redaction.failed:
        they = "it" if redaction.failed == 1 else "they"
        _say(f"{_records(redaction.failed)} left out: {they} could not be redacted")
    return 1 if redaction.failed else 0


class _Progress:
    """One line on the terminal, which goes away at the end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._done = 0
        self._begun = time.monotonic()
        self._shown = self._begun - _SHOW_EVERY

    def add(self, length: int) -> None:
        self._done += length
        now = time.monotonic()
        if now - self._shown >= _SHOW_EVERY:
            self._shown = now
            speed = self._done / (now - self._begun)
            _show(
                f"\r{self._done / self._size:4.0%}  {self._done / 1e6:.0f} of "
                f"{self._size / 1e6:.0f} MB  {speed / 1e6:.0f} MB/s\x1b[K"
            )

    def clear(self) -> None:
        _show("\r\x1b[K")


def _progress(source: int) -> _Progress | None:
    """Return what shows the progress: of a file, to a terminal on which nothing else is written."""
    status = os.fstat(source)
    is_file = stat.S_ISREG(status.st_mode) and status.st_size > 0
    shown = is_file and os.isatty(_STDERR) and not os.isatty(_STDOUT)
    return _Progress(status.st_size) if shown else None


def _write(target: int, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(target, rest) :]
    except OSError as error:
        error.filename = "standard output" if target == _STDOUT else "standard error"
        raise


def _tell(findings: list[Finding]) -> None:
    lines = [msgspec.json.encode(found) + b"\n" for found in findings]
    findings.clear()
    if lines:
        _write(_STDERR, b"".join(lines))


def _name(file: str) -> str:
    return "standard input" if file == "-" else file or "''"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"


def _say(message: str) -> None:
    _show(f"sidecar: {message}\n")


def _show(text: str) -> None:
    with suppress(OSError):  # nobody is left to be told
        os.write(_STDERR, text.encode(errors="backslashreplace"))
