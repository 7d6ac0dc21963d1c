"""A sidecar with a queue on disk that is killed under load, again and again."""

import random
import signal
from pathlib import Path
from typing import Literal

import msgspec
import trio

from tests.collector import Collector
from tests.load import Acknowledged, Arrived, load, metric, wait_until
from tests.process import SidecarProcess

DRAIN_SECONDS = 60.0


class Survival(msgspec.Struct):
    """What came of it, in records.

    Attributes:
        acknowledged: told to be safe.
        missing: of these, never came; at a target that takes everything, 0.
        repeated: came more than once.
        not_under_way: of these, were in no request that was under way when the process was killed.
        exit_codes: of the stops.
    """

    acknowledged: int
    missing: int
    repeated: int
    not_under_way: int
    exit_codes: list[int]


async def survive(
    collector: Collector,
    directory: Path,
    rounds: int,
    how: Literal["kill", "stop", "stop twice"],
    environ: dict[str, str],
    seed: int = 1,
) -> Survival:
    """Kill a sidecar under load or stop it, start it again, and so on; at last drain it.

    Args:
        collector: takes everything.
        directory: for the queue.
        rounds: how often.
        how: with SIGKILL, with SIGTERM, or with a second SIGTERM that ends the drain.
        environ: of the sidecar, beside the queue and the collector.
        seed: of the moments.
    """
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "SIDECAR_QUEUE_DIR": str(directory),
        **environ,
    }
    draw = random.Random(seed)
    acknowledged, arrived = Acknowledged(), Arrived()
    under_way: set[str] = set()
    exit_codes: list[int] = []

    def one_round() -> None:
        sidecar = SidecarProcess(settings)
        try:
            sidecar.wait_ready()
            with load(sidecar, acknowledged):
                wait = draw.uniform(0.0, 1.0)
                before = len(acknowledged.names)
                wait_until(lambda: len(acknowledged.names) > before, 30, "nothing acknowledged")
                # A moment that nothing in the process knows of.
                trio.from_thread.run(trio.sleep, wait)
                if how == "kill":
                    sidecar.process.kill()
                    sidecar.process.wait()
                else:
                    if how == "stop twice":
                        sidecar.process.send_signal(signal.SIGTERM)
                        wait_until(lambda: '"stopping"' in sidecar.log, 10, "not stopping")
                    exit_codes.append(sidecar.stop())
        finally:
            sidecar.close()

    for _ in range(rounds):
        await trio.to_thread.run_sync(one_round)
        # In order, each of them answered before the next was sent: only the last was under way.
        arrived.add(collector.requests)
        if arrived.requests:
            under_way |= arrived.requests[-1]

    def drain() -> None:
        sidecar = SidecarProcess(settings)
        try:
            sidecar.wait_ready()
            wait_until(lambda: not metric(sidecar, "queue_records"), DRAIN_SECONDS, "not drained")
            sidecar.stop()
        finally:
            sidecar.close()

    await trio.to_thread.run_sync(drain)
    arrived.add(collector.requests)
    repeated = arrived.repeated()
    return Survival(
        acknowledged=len(acknowledged.names),
        missing=len(acknowledged.names - arrived.counts.keys()),
        repeated=len(repeated),
        not_under_way=len(repeated - under_way),
        exit_codes=exit_codes,
    )
