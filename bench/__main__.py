"""``python -m bench``: measure, print a table, rewrite ``bench/RESULTS.md``."""

import argparse
import sys
from pathlib import Path

from bench import captured, comparison, engine, process, quality, requests, worst
from bench.table import progress, report

SECTIONS = {
    "process": process.SECTION,
    "quality": quality.SECTION,
    "engine": engine.SECTION,
    "worst": worst.SECTION,
    "presidio": comparison.SECTION,
    "captured": captured.SECTION,
    "requests": requests.SECTION,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure, and print a table. Without a choice of sections all are measured, "
        "and bench/RESULTS.md is written anew.",
        epilog="sections: "
        + "; ".join(f"{name}: {section.heading.lower()}" for name, section in SECTIONS.items()),
    )
    parser.add_argument("section", nargs="*", help="what to measure (default: everything)")
    chosen = parser.parse_args().section
    if unknown := set(chosen) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}; see --help")
    measured = []
    for name in chosen or SECTIONS:
        measured.append((SECTIONS[name], SECTIONS[name].rows()))
    progress("")
    text = report(measured)
    if not chosen:
        (Path(__file__).parent / "RESULTS.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
