"""The command line: ``sidecar run``, ``sidecar health``."""

import argparse
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial

import structlog

from sidecar import __version__
from sidecar.settings import Settings, SettingsError, describe, load_settings, unknown_variables

_RUN_HELP = """\
Take telemetry in, redact it, pass it on. All settings are environment variables; the README
lists them. Without any, redacted telemetry goes to standard output, one JSON object a line.

examples:
  sidecar run
  OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 sidecar run
  SIDECAR_RULES=/etc/sidecar/rules REDIS_URL=redis://cache:6379 sidecar run
"""
_HEALTH_HELP = """\
Exit with 0 when the sidecar is ready, else with 1; for container health checks.

examples:
  sidecar health
  sidecar health --url http://127.0.0.1:9090/livez
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="sidecar", description="The telemetry sidecar for Open WebUI pods."
    )
    parser.add_argument("--version", action="version", version=f"sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    run = command("run", help="run the service", description=_RUN_HELP)
    run.set_defaults(run=lambda _: _run())
    health = command("health", help="tell whether the service is ready", description=_HEALTH_HELP)
    health.add_argument(
        "--url", help="what to ask (default: /readyz at PROMETHEUS_PORT on this host)"
    )
    health.set_defaults(run=lambda given: _health(given.url))
    given = parser.parse_args(arguments)
    return int(given.run(given))


def _run() -> int:
    # Imported here, since `sidecar health` runs every few seconds and needs none of it.
    import trio

    from sidecar import logs
    from sidecar.app import Sidecar, StartError
    from sidecar.redaction.rules import RulesError

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


def _readiness_url(settings: Settings) -> str:
    host = settings.sidecar_metrics_host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{host}:{settings.prometheus_port}/readyz"


def _health(url: str | None) -> int:
    try:
        url = url or _readiness_url(load_settings(os.environ))
        # No proxy: what is asked stands on this host.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=5) as answer:
            ready = answer.status == 200
        reason = "" if ready else f"answered {answer.status}"
    except urllib.error.HTTPError as error:
        ready, reason = False, f"not ready (status {error.code})"
    except (OSError, ValueError, SettingsError) as error:
        ready, reason = False, str(getattr(error, "reason", error))
    if not ready:
        print(f"sidecar: {url or 'health'}: {reason}", file=sys.stderr)  # noqa: T201
    return 0 if ready else 1
