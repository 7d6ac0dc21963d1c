"""``sidecar run``: the service."""

import os
import sys

import structlog
import trio

from sidecar import logs
from sidecar.app import Sidecar, StartError
from sidecar.redaction.faults import RulesError
from sidecar.settings import SettingsError, describe, load_settings, unknown_variables


def run() -> int:
    """Run until a signal stops it; return 1 when it cannot start, else 0."""
    try:
        settings = load_settings(os.environ)
        logs.configure(settings.log_level)
        log = structlog.get_logger(__name__)
        log.debug("settings", **describe(settings))
        for variable in unknown_variables(os.environ):
            log.warning("unknown_variable", variable=variable)
        sidecar = Sidecar(settings)
        sidecar.listen()
        try:
            trio.run(sidecar.run)
        finally:
            sidecar.close()
    except (SettingsError, RulesError, StartError) as error:
        print(f"sidecar: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
