"""Failures that nobody expected, in the log."""

from types import TracebackType

import structlog

_log = structlog.get_logger(__name__)


def log_failure(error: BaseException) -> None:
    """Log the type of an unexpected exception and where it came from.

    Its text is left out, and so are the values in its frames: both may hold a payload.
    """
    _log.error("handler_failed", error=type(error).__name__, places=_places(error.__traceback__))


def _places(traceback: TracebackType | None) -> list[str]:
    places = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{module}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    return places
