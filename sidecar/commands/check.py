"""``sidecar check``: says everything that is wrong with a rules folder."""

import os
import re
import sys
from pathlib import Path

from sidecar.redaction.engine import check_rules
from sidecar.redaction.rules import load_rules
from sidecar.settings import SettingsError, load_settings

# So that rules that hash can be checked where the key of production must not be.
_KEY_FOR_CHECKING = b"no key, for checking alone"
_STDOUT = 1
_PLACE = re.compile(r"(.+?)(?::([0-9]+))?: ")


def check(folder: str | None) -> int:
    """Print ``file:line: reason`` for every fault; return 0 when there is none, else 1.

    They come in the order of files and lines. On a terminal, their number follows.

    Args:
        folder: the rules folder; None for the one the service would use.
    """
    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        print(f"sidecar: {error}", file=sys.stderr)  # noqa: T201
        return 1
    path = settings.rules_dir if folder is None else Path(folder)
    faults = _faults(path, settings.sidecar_hash_key.encode() or _KEY_FOR_CHECKING)
    said = faults or [_summary(path)]
    if faults and os.isatty(_STDOUT):
        said = [*faults, _count(len(faults), "fault")]
    try:
        with open(_STDOUT, "wb", closefd=False) as out:
            out.write("".join(_printable(line) + "\n" for line in said).encode())
    except BrokenPipeError:
        pass  # the reader has seen enough
    except OSError as error:
        print(f"sidecar: standard output: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    return 1 if faults else 0


def _faults(folder: Path, hash_key: bytes) -> list[str]:
    """Return all faults in order of their places."""
    try:
        faults = check_rules(folder, hash_key)
    except Exception as error:
        # A tool for CI says what it has met, whatever that is, in a line as all others are.
        faults = [f"{folder}: cannot be checked: {type(error).__name__}: {error}"]
    return sorted(faults, key=_place)


def _place(fault: str) -> tuple[str, int]:
    place = _PLACE.match(fault)
    return ("", 0) if place is None else (place[1], int(place[2] or 0))


def _summary(folder: Path) -> str:
    rules = load_rules(folder)
    files = {place.rpartition(":")[0] for place in rules.places.values()}
    tests = sum(len(rule.tests) for rule in rules.rules)
    routes = f", {_count(len(rules.routes), 'route')}" if rules.routes else ""
    return (
        f"{_count(len(rules.rules), 'rule')} in {_count(len(files), 'file')}, "
        f"{_count(tests, 'test')} passed{routes}"
    )


def _printable(line: str) -> str:
    """Escape what a terminal would take for a command."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
