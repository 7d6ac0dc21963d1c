"""The guide to the cache: its examples answer as printed, and its account for Redis is enough."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import valkey
from coredis.typing import Key

from sidecar.cache import memory, values
from sidecar.cache.link import CALL_SECONDS
from sidecar.cache.locks import LOCK_SECONDS, Locks
from sidecar.cache.redis import RedisCache, RefusedError
from sidecar.cache.tiers import Cache
from sidecar.cache.values import KEY_PREFIX
from sidecar.metrics import REGISTRY
from sidecar.settings import Settings
from tests.examples import ROOT, Shell, broken_links, code, sections, table
from tests.process import SidecarProcess
from tests.valkey import Valkey, run_cluster, run_replicas, run_sentinel, run_valkey

GUIDE = (ROOT / "docs" / "cache.md").read_text()
SECTIONS = sections(GUIDE)
BLOCKS = [block for section in SECTIONS for block in section.blocks]
(ACCOUNT,) = (block.text.split() for block in BLOCKS if block.language == "sh")
AWAY = "When Redis is away, slow or full"
COMMANDS = [word for word in ACCOUNT if word.startswith("+")]


def beside(first_cell: str) -> list[str]:
    """Return the commands of a row of the table of accounts."""
    rows = table(SECTIONS, "An account for the sidecar", "for")
    (row,) = (row for row in rows if row[0].startswith(first_cell))
    return code(row[1])[0].split()


async def test_every_example_answers_as_printed(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    async with run_valkey() as server:
        with ExitStack() as stack:
            shell = Shell(folder, stack)
            shell.serve("6379", str(server.port))
            await trio.to_thread.run_sync(follow_all, shell)


def follow_all(shell: Shell) -> None:
    changes = 0
    for block in BLOCKS:
        for command, answer, printed in shell.follow(block):
            assert answer == printed, command
            if re.search(r">> cache\.keys|mv new\.keys|sed -i", command):
                changes += 1
                until_taken(shell.sidecars[-2:], changes)
    assert changes == 3


def until_taken(sidecars: list[SidecarProcess], changes: int) -> None:
    """Wait until all have told of so many changes of their keys."""
    deadline = time.monotonic() + 10
    while not all(each.log.count("cache_keys_taken") == changes for each in sidecars):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@asynccontextmanager
async def pods(url: str) -> AsyncIterator[list[Cache]]:
    """Run two pods, once both are connected."""
    two = [Cache(2**22, RedisCache(url, call_seconds=2.0)) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for pod in two:
            await nursery.start(pod.run)
        with trio.fail_after(10):
            while not all(pod.redis_connected for pod in two):
                await trio.sleep(0.01)
        yield two
        nursery.cancel_scope.cancel()


async def work(url: str) -> None:
    """Do all that a sidecar does with Redis."""
    async with pods(url) as (one, other):
        for number in range(20):
            await one.set(f"key-{number}", b"1", 60)
            await other.get(f"key-{number}")
            await one.set(f"key-{number}", b"2", 60)
        await other.delete("key-1")
        async with one.flight("fetched", 5):
            await one.set("fetched", b"3", 60)
        with suppress(LookupError):
            async with other.flight("given up", 5):
                raise LookupError
        assert one._redis is not None
        locks = Locks(one._redis)
        with suppress(RefusedError):
            await locks.take("held", b"token", waited=False)
            await locks.renew("held", b"token")


def give(client: Any, commands: list[str], name: str = "sidecar") -> None:
    """Make the guide's account with these commands, and forget what was refused before."""
    words = [word for word in ACCOUNT if not word.startswith("+")]
    assert words[:3] == ["ACL", "SETUSER", "sidecar"]
    client.execute_command("ACL", "DELUSER", name)
    client.execute_command("ACL", "SETUSER", name, *words[3:], *commands)
    client.execute_command("ACL", "LOG", "RESET")


def refused(client: Any) -> set[str]:
    """Return what accounts were not let do."""
    return {entry["object"] for entry in client.acl_log()}


def account_of(url: str) -> str:
    return url.replace("://", "://sidecar:a-long-password@")


async def test_the_account_may_do_all_that_a_sidecar_does() -> None:
    async with run_valkey() as server:
        with server.client() as client:
            give(client, COMMANDS)
            await work(account_of(server.url))
            assert refused(client) == set()
            # And no more: not even in a cache of its own.
            sidecar: Any = valkey.Valkey.from_url(account_of(server.url))
            with sidecar:
                for words in (("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*")):
                    with pytest.raises(valkey.exceptions.NoPermissionError):
                        sidecar.execute_command(*words)
                with pytest.raises(valkey.exceptions.NoPermissionError):
                    sidecar.get("another:key")


async def attempt(url: str) -> None:
    """Try to connect, until that has failed once."""
    pod = Cache(2**22, RedisCache(url))
    with structlog.testing.capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(pod.run)
            with trio.fail_after(10):
                while not lines:
                    await trio.sleep(0.001)
            assert not pod.redis_connected
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["redis_unreachable"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_no_command_of_the_account_is_too_many(command: str) -> None:
    async with run_valkey() as server:
        with server.client() as client:
            give(client, [each for each in COMMANDS if each != command])
            if command == "+get":
                await attempt(account_of(server.url))
            else:
                await work(account_of(server.url))
            assert refused(client) == {command[1:]}


async def test_a_database_needs_one_more() -> None:
    async with run_valkey() as server:
        with server.client() as client:
            give(client, [*COMMANDS, *beside("a database")])
            await work(account_of(server.url) + "/3")
            assert refused(client) == set()


async def test_a_cluster_needs_more_on_each_node() -> None:
    slots, asking = beside("a cluster")
    async with run_cluster() as nodes:
        for node in nodes:
            with node.client() as client:
                give(client, [*COMMANDS, slots])
        url = f"redis+cluster://sidecar:a-long-password@127.0.0.1:{nodes[0].port}"
        await work(url)
        assert [refused_at(node) for node in nodes] == [set()] * 4
        key = move_one(nodes)
        assert await value_of(url, key) is None
        assert [refused_at(node) for node in nodes] == [set(), set(), {asking[1:]}, set()]
        for node in nodes:
            with node.client() as client:
                give(client, [*COMMANDS, slots, asking])
        assert await value_of(url, key) == b"2"


async def value_of(url: str, key: str) -> bytes | None:
    async with pods(url) as (one, _):
        found = await one.get(key)
    return None if found is None else found.value


def refused_at(node: Valkey) -> set[str]:
    with node.client() as client:
        return refused(client)


def move_one(nodes: list[Valkey]) -> str:
    """Move a key of `work` from the second primary to the third, and not yet its slot."""
    with nodes[1].client() as source, nodes[2].client() as target:
        key = next(k for k in source.scan_iter() if k.startswith(KEY_PREFIX + b"key-"))
        slot = Key(key).slot
        ids = [node.execute_command("CLUSTER", "MYID").decode() for node in (source, target)]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        source.execute_command("MIGRATE", "127.0.0.1", nodes[2].port, key, 0, 1000)
    return str(key.removeprefix(KEY_PREFIX).decode())


async def test_sentinels_need_an_account_of_their_own() -> None:
    commands = beside("the sentinels")
    async with run_replicas() as (primary, _), run_sentinel(primary, "main") as port:
        sentinel: Any = valkey.Valkey(port=port)
        options = "sentinel_username=watch&sentinel_password=a-long-password"
        url = f"redis+sentinel://sidecar:a-long-password@127.0.0.1:{port}/main?{options}"
        with primary.client() as client, sentinel:
            give(client, [*COMMANDS, *beside("servers behind")])
            give(sentinel, commands, "watch")
            await work(url)
            assert refused(client) == refused(sentinel) == set()


def test_figures_are_those_of_the_code() -> None:
    assert f"{memory.ENTRY_OVERHEAD} bytes beside" in GUIDE
    assert Settings().sidecar_cache_bytes == 16 * 2**20 and "16 MiB" in GUIDE
    assert values.MAX_VALUE_BYTES == 2**20 and "| a value | 1 MiB" in GUIDE
    assert f"{round(CALL_SECONDS * 1000)} ms at most" in GUIDE
    assert f"for {LOCK_SECONDS:.0f} seconds" in GUIDE


def test_metrics_of_the_guide_are_those_of_the_process() -> None:
    known = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in REGISTRY.collect()
    }
    shown = {code(row[2])[0] for row in table(SECTIONS, AWAY, "Redis is") if code(row[2])}
    shown |= {name for name in code(GUIDE) if re.fullmatch(r"cache_\w*(?:bytes|rate)", name)}
    assert len(shown) == 5
    assert {f"telemetry_cache_{name.partition('{')[0]}" for name in shown} <= known


def test_its_links_lead_somewhere() -> None:
    assert broken_links(ROOT / "docs" / "cache.md") == []
