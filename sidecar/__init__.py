"""The telemetry sidecar: telemetry in, personal data out, the rest passed on."""

from importlib.metadata import version

__version__ = version("telemetry-cache-sidecar")
