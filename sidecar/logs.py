"""The sidecar's own log: JSON lines on standard error, readable lines on a terminal.

Nothing logs a value that came in with a request: the log leaves the pod unredacted.
"""

import logging
import sys

import structlog


def configure(level: str) -> None:
    """Set up structlog.

    Args:
        level: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL``.
    """
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries log requests and addresses; what matters of it, the sidecar logs itself.
    logging.getLogger().setLevel(logging.CRITICAL)
