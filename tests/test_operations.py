"""The operators' guides: the metrics and reasons in them are those of the process."""

import re
from typing import get_args

import pytest

from bench import __main__ as bench
from sidecar.http.client import Failure
from sidecar.metrics import REGISTRY
from sidecar.pressure import Reason
from tests.examples import ROOT, broken_links, code, sections, table

GUIDE = (ROOT / "docs" / "operations.md").read_text()
SECTIONS = sections(GUIDE)
TITLE = "The cache and the proxy"
# What the proxy itself tells, beside how an upstream failed and why there was no room.
OWN_REASONS = {"withheld", "refused", "client_gone"}


def known() -> set[str]:
    """Return the names of all metrics, without what they begin with."""
    return {
        (f"{metric.name}_total" if metric.type == "counter" else metric.name).removeprefix(
            "telemetry_cache_"
        )
        for metric in REGISTRY.collect()
    }


def test_every_metric_of_the_cache_and_the_proxy_is_there() -> None:
    told = [name for row in table(SECTIONS, TITLE, "metric") for name in code(row[0])]
    of_these = {n for n in known() if re.match("proxy_|model_|redis_|cache_", n)}
    assert sorted(told) == sorted(of_these)


def test_metrics_to_watch_are_those_of_the_process() -> None:
    rows = table(SECTIONS, "What to watch", "metric")
    assert {code(row[0])[0] for row in rows} <= known()


def test_reasons_of_failures_are_those_of_the_proxy() -> None:
    told = [name for row in table(SECTIONS, TITLE, "reason") for name in code(row[0])]
    assert sorted(told) == sorted({*get_args(Failure), *get_args(Reason), *OWN_REASONS})


@pytest.mark.parametrize("guide", ["operations", "performance"])
def test_its_links_lead_somewhere(guide: str) -> None:
    assert broken_links(ROOT / "docs" / f"{guide}.md") == []


def test_sections_to_measure_are_those_of_the_benchmark() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    named = re.findall(r"python -m bench ([a-z ]+)", text)
    assert named
    assert {name for line in named for name in line.split()} <= bench.SECTIONS.keys()
