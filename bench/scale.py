"""What N pods cost one shared Redis: prices are measured, what many pods do is simulated.

``python -m bench scale`` measures on a real server with the sidecar's own caches, plays the
workloads below, compares that with a small real run, keeps all of it in ``bench/scale.json``, and
writes the tables of ``docs/scale.md`` anew.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import scale_measure
from bench.scale_cost import Cost, Figures, cost
from bench.scale_model import Rates, Simulation, Workload
from bench.table import Row, Section, progress

# What the tables are about: change these, and run it again.
PODS = (100, 1_000, 10_000)
WORKLOADS = (
    Workload("quiet", lookups=0.5, writes=0.0, own_writes=0.01, ttl=3600),
    Workload("typical", lookups=5.0, writes=0.0005, own_writes=0.1, ttl=600),
    Workload("write-heavy", lookups=10.0, writes=0.01, own_writes=1.0, ttl=300),
)

# The real run that the simulation is compared with.
REAL = Workload("real", lookups=20, writes=0.2, own_writes=0.5, ttl=8, keys=400, fetch_seconds=0.2)
_REAL_PODS = 30
_REAL_SECONDS = 20.0
_WITHIN = 0.2

RECORD = Path(__file__).parent / "scale.json"
GUIDE = Path(__file__).parents[1] / "docs/scale.md"

_MIB = 2**20


class Compared(msgspec.Struct):
    """A figure of the real run."""

    what: str
    predicted: float
    measured: float

    @property
    def deviation(self) -> float:
        return self.predicted / self.measured - 1


class Record(msgspec.Struct):
    """All that the tables are made of: ``rates`` by workload, in the order of `PODS`."""

    figures: Figures
    rates: dict[str, list[Rates]]
    real: list[Compared]


def simulated(figures: Figures, workload: Workload, pods: int) -> Rates:
    """Return what so many pods do once they have been running for a while."""
    simulation = Simulation(workload, pods, lambda size: figures.stored[size])
    return simulation.run(workload.ttl, workload.ttl)


def _compare(figures: Figures) -> list[Compared]:
    spent, told = scale_measure.live(REAL, _REAL_PODS, 2 * REAL.ttl, _REAL_SECONDS)
    simulation = Simulation(REAL, _REAL_PODS, lambda size: figures.stored[size])
    expected = cost(figures, simulation.run(2 * REAL.ttl, 10 * _REAL_SECONDS), _REAL_PODS)
    return [
        Compared("commands/s", expected.commands, spent.commands),
        Compared("messages of changes/s", expected.told, told),
        Compared("bytes/s to Redis", expected.bytes_in, spent.bytes_in),
        Compared("bytes/s from Redis", expected.bytes_out, spent.bytes_out),
        Compared("cores of Redis", expected.cores, spent.cpu),
    ]


def measured() -> Record:
    """Measure, simulate and compare."""
    figures = scale_measure.measure(WORKLOADS[0])
    real = _compare(figures)
    rates: dict[str, list[Rates]] = {}
    for workload in WORKLOADS:
        for pods in PODS:
            progress(f"scale, {pods} pods, {workload.name}")
            rates.setdefault(workload.name, []).append(simulated(figures, workload, pods))
    return Record(figures, rates, real)


def tables(record: Record) -> dict[str, str]:
    """Return the tables of the guide, by the names of their places."""
    made = {
        "prices": _prices(record.figures),
        "silences": _silences(record.figures),
        "storm": _storm(record.figures),
        "memory": _memory(record.figures),
        "real": _real(record.real),
    }
    for workload in WORKLOADS:
        made[workload.name] = _workload(record.figures, record.rates[workload.name])
    return made


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


_CALLS = {
    "read": "look-up in Redis, found (`GET`, `PTTL`)",
    "read_missing": "look-up in Redis, not found",
    "set": "write (`EVAL`: `SET`, `PTTL`)",
    "lock": "taking or leaving the lock of a fetch (`EVAL`)",
    "probe": "probe, once a second and pod (`GET`)",
    "told": "telling one pod of one change",
    "connect": "connecting, with the first reads",
}


def _prices(figures: Figures) -> str:
    lines = []
    for kind, what in _CALLS.items():
        price = figures.prices[kind]
        lines.append(
            [
                what,
                f"{price.commands:.0f}",
                f"{price.bytes_in:.0f}",
                f"{price.bytes_out:.0f}",
                f"{1e6 * price.cpu:.0f}",
                f"{1e6 * price.busy_cpu:.0f}",
            ]
        )
    head = ["call", "commands", "bytes in", "bytes out", "µs, 40 pods", "µs, 5,000 pods"]
    return _table(head, lines)


def _silences(figures: Figures) -> str:
    told = figures.prices["told"].busy_cpu
    lines = [
        [f"{pods:,}", f"{1e3 * told * pods:.0f} ms", f"{1e3 * silence:.0f} ms"]
        for pods, silence in figures.silences.items()
    ]
    return _table(["pods that are told of one change", "of the core", "by the clock"], lines)


def _storm(figures: Figures) -> str:
    storm = figures.storm
    lines = [
        ["pods", f"{storm.pods}"],
        ["until all are connected", f"{storm.seconds:.1f} s"],
        ["attempts to connect", f"{storm.attempts}"],
        ["commands/s, at most", _number(storm.commands)],
        ["time of the server's core", f"{1e3 * storm.cpu:.0f} ms"],
    ]
    return _table(["after `kill -9` and a start", "measured"], lines)


def _memory(figures: Figures) -> str:
    lines = [
        ["connection, idle", _number(figures.connection_bytes)],
        ["connection, just used", _number(figures.busy_connection_bytes)],
        ["key with its name, without its value", _number(figures.key_bytes)],
        ["key that is tracked", _number(figures.tracked_key_bytes)],
        ["and for each pod that has read it", _number(figures.tracked_item_bytes)],
        ["the same, of the process", _number(figures.tracked_item_resident_bytes)],
    ]
    lines += [
        [f"value of {size:,} bytes of JSON", f"{kept:,}"] for size, kept in figures.stored.items()
    ]
    return _table(["memory of Redis for one", "bytes"], lines)


def _real(real: list[Compared]) -> str:
    lines = [
        [row.what, _number(row.predicted), _number(row.measured), f"{100 * row.deviation:+.0f} %"]
        for row in real
    ]
    return _table(["what", "simulated", "measured", "deviation"], lines)


def _workload(figures: Figures, rates: list[Rates]) -> str:
    costs = [cost(figures, at, pods) for at, pods in zip(rates, PODS, strict=True)]
    told = figures.prices["told"].busy_cpu
    rows: list[tuple[str, Callable[[Rates, Cost], str]]] = [
        ("connections", lambda at, _: f"{at.calls['probe']:,.0f}"),
        ("answered by the pod's memory", lambda at, _: f"{100 * at.hit_ratio:.0f} %"),
        ("commands/s", lambda _, total: _number(total.commands)),
        ("messages of changes/s", lambda _, total: _number(total.told)),
        ("pods told of one change, at most", lambda at, _: _number(at.most_told)),
        ("core taken by that, ms, at most", lambda at, _: _number(1e3 * told * at.most_told)),
        ("Mbit/s to Redis", lambda _, total: _number(8e-6 * total.bytes_in)),
        ("Mbit/s from Redis", lambda _, total: _number(8e-6 * total.bytes_out)),
        ("cores of Redis", lambda _, total: _number(total.busy_cores)),
        ("cores, busiest second", lambda _, total: _number(total.busiest_cores)),
        ("keys in Redis", lambda at, _: _number(at.keys)),
        ("keys that Redis tracks", lambda at, _: _number(at.tracked_keys)),
        ("pairs of key and pod it tracks", lambda at, _: _number(at.tracked_items)),
        ("MiB for connections", lambda _, total: _number(total.memory_connections / _MIB)),
        ("MiB for tracking", lambda _, total: _number(total.memory_tracking / _MIB)),
        ("MiB for values", lambda _, total: _number(total.memory_values / _MIB)),
    ]
    lines = [
        [what, *(figure(at, total) for at, total in zip(rates, costs, strict=True))]
        for what, figure in rows
    ]
    return _table(["", *(f"{pods:,} pods" for pods in PODS)], lines)


def _number(value: float) -> str:
    """Return a number with two digits that count, or more before the point."""
    if value >= 100:
        digits = 10 ** (len(str(int(value))) - 2)
        return f"{round(value / digits) * digits:,}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def with_tables(text: str, record: Record) -> str:
    """Return a guide with its tables anew, each after a comment ``<!-- table: name -->``."""
    for name, table in tables(record).items():
        place = re.compile(rf"(<!-- table: {name} -->\n)(?:\|.*\n)*")
        text = place.sub(lambda found: f"{found[1]}{table}\n", text)  # noqa: B023
    return re.sub(r"Measured with .*", f"Measured with {record.figures.about}.", text)


def _rows() -> list[Row]:
    record = measured()
    RECORD.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    GUIDE.write_text(with_tables(GUIDE.read_text(), record))
    figures, storm = record.figures, record.figures.storm
    rows = [
        Row(
            f"one {kind.replace('_', ' ')}",
            f"{price.commands:.1f} commands, {price.bytes_in:.0f} bytes in, "
            f"{price.bytes_out:.0f} out; {1e6 * price.cpu:.1f} µs, "
            f"{1e6 * price.busy_cpu:.1f} among 5,000",
        )
        for kind, price in figures.prices.items()
    ]
    rows += [
        Row("memory of a connection, idle", f"{figures.connection_bytes:,.0f} bytes"),
        Row("memory of a connection, just used", f"{figures.busy_connection_bytes:,.0f} bytes"),
        Row("memory of a tracked key", f"{figures.tracked_key_bytes:.0f} bytes"),
        Row(
            "and for each pod that has read it",
            f"{figures.tracked_item_bytes:.0f} bytes "
            f"({figures.tracked_item_resident_bytes:.0f} of the process)",
        ),
        Row("memory of a key without its value", f"{figures.key_bytes:.0f} bytes"),
    ]
    rows += [
        Row(f"value of {size} bytes in Redis", f"{bytes_} bytes")
        for size, bytes_ in figures.stored.items()
    ]
    rows += [
        Row(f"silence while {pods:,} are told of a change", f"{1e3 * silence:.1f} ms")
        for pods, silence in figures.silences.items()
    ]
    rows.append(
        Row(
            f"{storm.pods} pods back after kill -9",
            f"{storm.seconds:.2f} s, {storm.attempts} attempts, at most "
            f"{storm.commands:,.0f} commands/s, {1e3 * storm.cpu:.0f} ms of a core",
        )
    )
    rows += [
        Row(
            f"{_REAL_PODS} real pods, {row.what}",
            f"{_number(row.measured)}, simulated {_number(row.predicted)} "
            f"({100 * row.deviation:+.1f} %)",
            "" if row.what.startswith("cores") else f"within {100 * _WITHIN:.0f} %",
        )
        for row in record.real
    ]
    return rows


SECTION = Section(
    "Pods on one Redis",
    f"{scale_measure.CACHES} to {max(scale_measure.IDLE)} real caches in three processes, and up "
    f"to {max(scale_measure.CROWDS):,} plain connections, on one Valkey of the same machine; "
    f"processor time of its main thread, best of {scale_measure.TIMES}. What that makes for "
    "thousands of pods is in docs/scale.md.",
    _rows,
)
