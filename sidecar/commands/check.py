"""``sidecar check``: says everything that is wrong with a rules folder."""

import os
import sys
from pathlib import Path

from sidecar.redaction.engine import check_rules
from sidecar.redaction.rules import load_rules
from sidecar.settings import SettingsError, load_settings

# So that rules that hash can be checked where the key of production must not be.
_KEY_FOR_CHECKING = b"no key, for checking alone"


def check(folder: str | None) -> int:
    """Print ``file:line: reason`` for every fault; return 0 when there is none, else 1.

    Args:
        folder: the rules folder; None for the one the service would use.
    """
    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        print(f"sidecar: {error}", file=sys.stderr)  # noqa: T201
        return 1
    path = settings.rules_dir if folder is None else Path(folder)
    faults = check_rules(path, settings.sidecar_hash_key.encode() or _KEY_FOR_CHECKING)
    for fault in faults:
        print(fault)  # noqa: T201
    if faults:
        return 1
    rules = load_rules(path)
    files = {place.rpartition(":")[0] for place in rules.places.values()}
    tests = sum(len(rule.tests) for rule in rules.rules)
    print(  # noqa: T201
        f"{_count(len(rules.rules), 'rule')} in {_count(len(files), 'file')}, "
        f"{_count(tests, 'test')} passed"
    )
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
