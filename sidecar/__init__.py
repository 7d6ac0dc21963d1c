"""The telemetry sidecar: telemetry in, personal data out, the rest passed on."""

# Here, since reading it from what is installed takes a hundredth of a second of each start.
__version__ = "0.1.0"
