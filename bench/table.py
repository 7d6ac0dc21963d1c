"""What a benchmark says, and how it is written down."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from sidecar import __version__

ROUNDS = 7


class Row(msgspec.Struct):
    """One figure."""

    what: str
    figure: str
    goal: str = ""


class Section(msgspec.Struct):
    """What is measured together.

    Attributes:
        heading: over its table.
        about: what was measured, and how, in a sentence or two.
        rows: measures.
    """

    heading: str
    about: str
    rows: Callable[[], list[Row]]


_TITLE = "# Results\n\nFigures of one machine say little; compare them within one section.\n"


def report(section: Section, rows: list[Row]) -> str:
    """Return a section as Markdown."""
    lines = [
        f"## {section.heading}",
        "",
        f"{section.about} Measured on {datetime.now(UTC):%Y-%m-%d}, sidecar {__version__}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores ({platform.machine()}).",
        "",
        "| what | figure | must be |",
        "|---|---|---|",
        *(f"| {row.what} | {row.figure} | {row.goal} |" for row in rows),
    ]
    return "\n".join([*lines, ""])


def written(before: str, measured: dict[str, str], order: Iterable[str]) -> str:
    """Return the results with some sections anew and the others as they were.

    Args:
        before: the results so far.
        measured: heading → section, as `report` returns it.
        order: of all headings.
    """
    _, *old = before.split("\n## ")
    sections = {text.partition("\n")[0]: f"## {text.strip()}\n" for text in old} | measured
    return "\n".join([_TITLE, *(sections[heading] for heading in order if heading in sections)])


def progress(doing: str) -> None:
    """Say on a terminal what is being measured; an empty text wipes that out."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{doing}")
        sys.stderr.flush()


def seconds(once: Callable[[], object]) -> float:
    """Return how long a call takes, by the clock."""
    started = time.perf_counter()
    once()
    return time.perf_counter() - started


def median_rate(once: Callable[[], int]) -> float:
    """Return the median, over some rounds, of what a call says it did in a second."""
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        count = once()
        rates.append(count / (time.perf_counter() - started))
    return statistics.median(rates)
