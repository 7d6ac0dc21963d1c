"""The guide to many pods says what its figures say, and its settings suit a server and a cache."""

import re

import msgspec
import pytest
import trio

from bench import scale
from bench.scale_cost import Price
from bench.scale_model import PLAYED, Simulation, Workload
from sidecar.cache.redis import RedisCache
from sidecar.cache.tiers import Cache
from tests.cache.conftest import until, value
from tests.examples import broken_links
from tests.valkey import run_valkey

_GUIDE = scale.GUIDE.read_text()
_RECORD = msgspec.json.decode(scale.RECORD.read_bytes(), type=scale.Record)
_SMALL = Workload("small", lookups=2, writes=0.1, own_writes=0.1, ttl=60, keys=200)


def _half(size: int) -> float:
    return size / 2


def test_the_tables_are_those_of_the_recorded_figures() -> None:
    assert scale.with_tables(_GUIDE, _RECORD) == _GUIDE
    for table in scale.tables(_RECORD).values():
        assert table in _GUIDE


def test_its_links_lead_somewhere() -> None:
    assert broken_links(scale.GUIDE) == []


@pytest.mark.parametrize("workload", scale.WORKLOADS[:2], ids=lambda workload: workload.name)
def test_the_simulation_makes_of_the_figures_what_is_recorded(workload: Workload) -> None:
    rates = msgspec.to_builtins(scale.simulated(_RECORD.figures, workload, scale.PODS[0]))
    recorded = msgspec.to_builtins(_RECORD.rates[workload.name][0])
    calls, recorded_calls = rates.pop("calls"), recorded.pop("calls")
    busiest, recorded_busiest = rates.pop("busiest"), recorded.pop("busiest")
    # The last digit of a logarithm is the platform's.
    assert rates == pytest.approx(recorded, rel=0.01)
    assert calls == pytest.approx(recorded_calls, rel=0.01)
    assert sum(busiest.values()) == pytest.approx(sum(recorded_busiest.values()), rel=0.05)


def test_the_real_run_was_as_simulated() -> None:
    rates = [row for row in _RECORD.real if not row.what.startswith("cores")]
    assert len(rates) == 4
    assert all(abs(row.deviation) <= 0.2 for row in rates)


def test_one_seed_has_one_outcome_and_another_seed_another() -> None:
    first, again, other = (Simulation(_SMALL, 20, _half, seed).run(60, 60) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_pods_that_stand_for_others_do_as_those_would() -> None:
    """Where half of the pods are played, all figures are near those of playing all of them."""
    pods = 2 * PLAYED
    sampled = Simulation(_SMALL, pods, _half).run(60, 240)
    whole = Simulation(_SMALL, pods, _half, played=pods).run(60, 240)
    assert sampled.hit_ratio == pytest.approx(whole.hit_ratio, abs=0.03)
    for kind in ("read", "set", "told"):
        assert sampled.calls[kind] == pytest.approx(whole.calls[kind], rel=0.1)
    assert sampled.tracked_items == pytest.approx(whole.tracked_items, rel=0.1)


def test_all_who_have_read_a_key_are_told_of_its_end() -> None:
    load = Workload("one key", lookups=10, writes=0, own_writes=0, ttl=20, keys=1)
    rates = Simulation(load, 30, _half).run(20, 200)
    assert rates.most_told == 30
    assert rates.hit_ratio > 0.9


def test_a_price_is_added_so_many_times() -> None:
    assert Price(1, 2, 3, 4, 5).plus(Price(1, 1, 1, 1, 1), 2) == Price(3, 4, 5, 6, 7)


async def test_a_cache_works_with_the_settings_of_the_guide(nursery: trio.Nursery) -> None:
    (block,) = re.findall(r"```conf\n(.*?)```", _GUIDE, re.S)
    lines = [line.split(maxsplit=1) for line in block.splitlines() if not line.startswith("#")]
    config = dict(lines)
    started_with = {name: config.pop(name) for name in ("tcp-backlog", "maxclients")}
    async with run_valkey(config=started_with) as server:
        with server.client() as client:
            for name, setting in config.items():
                client.config_set(name, setting.strip('"'))
        writer, reader = (Cache(2**20, RedisCache(server.url, 2.0)) for _ in range(2))
        for cache in (writer, reader):
            await nursery.start(cache.run)
        await until(lambda: writer.redis_connected and reader.redis_connected)
        await writer.set("key", b'"old"', 60)
        assert await value(reader, "key") == b'"old"'
        await writer.set("key", b'"new"', 60)
        with trio.fail_after(5):
            while await value(reader, "key") != b'"new"':
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
