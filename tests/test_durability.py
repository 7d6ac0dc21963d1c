"""What was acknowledged arrives: a real process, killed and stopped for real, under real load.

The long form of these is ``python -m bench durability``.
"""

from pathlib import Path

import pytest

from tests.collector import open_collector
from tests.durability import survive


@pytest.mark.parametrize("sync", ["full", "normal"])
async def test_no_acknowledged_record_is_lost_by_kill_9(tmp_path: Path, sync: str) -> None:
    async with open_collector() as collector:
        survival = await survive(
            collector, tmp_path, 4, "kill", {"SIDECAR_QUEUE_SYNC": sync}, seed=len(sync)
        )
    assert survival.acknowledged > 100
    assert survival.missing == 0
    assert survival.not_under_way == 0


async def test_no_acknowledged_record_is_lost_by_a_stop(tmp_path: Path) -> None:
    async with open_collector() as collector:
        survival = await survive(collector, tmp_path, 3, "stop", {"SIDECAR_DRAIN_SECONDS": "5"})
    assert survival.exit_codes == [0, 0, 0]
    assert survival.acknowledged > 100
    assert survival.missing == 0
    assert survival.repeated == 0
