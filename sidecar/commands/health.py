"""``sidecar health``: asks a running sidecar whether it is ready."""

import os
import sys
import urllib.error
import urllib.request

from sidecar.settings import Settings, SettingsError, load_settings


def health(url: str | None) -> int:
    """Return 0 when what ``url`` names answers 200, else 1; by default ``/readyz`` on this host."""
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


def _readiness_url(settings: Settings) -> str:
    host = settings.sidecar_metrics_host
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{host}:{settings.prometheus_port}/readyz"
