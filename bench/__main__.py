"""``python -m bench``: measure, print tables, write them into ``bench/RESULTS.md``."""

import argparse
import sys
from pathlib import Path

from bench import (
    cache,
    captured,
    comparison,
    durability,
    engine,
    peers,
    pressure,
    proxy,
    quality,
    scale,
    worst,
)
from bench.table import progress, report, written

SECTIONS = {
    "peers": peers.SECTION,
    "quality": quality.SECTION,
    "engine": engine.SECTION,
    "worst": worst.SECTION,
    "presidio": comparison.SECTION,
    "captured": captured.SECTION,
    "pressure": pressure.SECTION,
    "cache": cache.SECTION,
    "proxy": proxy.SECTION,
    "throughput": durability.THROUGHPUT,
}
# These take from minutes to an hour.
LONG = {
    "scale": scale.SECTION,
    "kills": durability.KILLS,
    "stops": durability.STOPS,
    "outage": durability.OUTAGE,
    "soak": durability.SOAK,
}
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    every = SECTIONS | LONG
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure, print tables, and write them into bench/RESULTS.md, where other "
        "sections stay as they are. Without a choice of sections all are measured but the long "
        f"ones: {', '.join(LONG)}.",
        epilog="sections: "
        + "; ".join(f"{name}: {section.heading.lower()}" for name, section in every.items()),
    )
    parser.add_argument("section", nargs="*", help="what to measure (default: all but the long)")
    chosen = parser.parse_args().section
    if unknown := set(chosen) - every.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}; see --help")
    headings = [section.heading for section in every.values()]
    for name in chosen or SECTIONS:
        section = every[name]
        text = report(section, section.rows())
        progress("")
        print(text, flush=True)
        before = RESULTS.read_text() if RESULTS.exists() else ""
        RESULTS.write_text(written(before, {section.heading: text}, headings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
