"""What the calls of many pods cost one Redis, from the price of each."""

import msgspec

from bench.scale_model import Rates


class Price(msgspec.Struct):
    """What one call costs Redis.

    Attributes:
        commands: as it counts them, with those of a script.
        bytes_in, bytes_out: without the value.
        cpu: seconds of its core when it has little else to do,
        busy_cpu: and when thousands ask at one time.
    """

    commands: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    cpu: float = 0.0
    busy_cpu: float = 0.0

    def plus(self, other: "Price", times: float) -> "Price":
        return Price(
            self.commands + times * other.commands,
            self.bytes_in + times * other.bytes_in,
            self.bytes_out + times * other.bytes_out,
            self.cpu + times * other.cpu,
            self.busy_cpu + times * other.busy_cpu,
        )


class Storm(msgspec.Struct):
    """How pods come back to a Redis that was killed.

    Attributes:
        pods: how many.
        seconds: until all are connected.
        commands: a second, at most.
        attempts: to connect.
        cpu: seconds of the server's core for all that.
    """

    pods: int
    seconds: float
    commands: float
    attempts: int
    cpu: float


class Figures(msgspec.Struct):
    """What was measured.

    Attributes:
        about: when and on what.
        prices: of one ``read`` (a look-up in Redis that finds), ``read_missing``, ``set``, ``lock``
            (taking or leaving it), ``probe``, ``told`` (one pod of one key), and ``connect``,
            without the value.
        nobody: seconds of its core that it takes in a second without connections.
        cpu_per_byte: of a value, in seconds.
        connection_bytes, busy_connection_bytes: of memory, at rest and soon after a call.
        tracked_key_bytes, tracked_item_bytes: of what Redis remembers of a key that was read, and
            of each pod that has read it.
        tracked_item_resident_bytes: the latter, of the process (RSS).
        key_bytes: of a key with its name, without its value.
        stored: bytes of a value → bytes as Redis keeps it.
        silences: pods that one change is told to → seconds in which nobody else is answered.
    """

    about: str
    prices: dict[str, Price]
    nobody: float
    cpu_per_byte: float
    connection_bytes: float
    busy_connection_bytes: float
    tracked_key_bytes: float
    tracked_item_bytes: float
    tracked_item_resident_bytes: float
    key_bytes: float
    stored: dict[int, int]
    silences: dict[int, float]
    storm: Storm


class Cost(msgspec.Struct):
    """What a workload costs Redis: a second of it, and bytes of memory.

    Attributes:
        cores: that it keeps busy when it has little else to do (more of them than 1: a sum).
        busy_cores: the same by the prices of a busy server, and in the busiest second.
    """

    commands: float
    told: float
    bytes_in: float
    bytes_out: float
    cores: float
    busy_cores: float
    busiest_cores: float
    memory_connections: float
    memory_tracking: float
    memory_values: float


def cost(figures: Figures, rates: Rates, pods: int) -> Cost:
    """Return what the calls of so many pods cost."""
    price = _priced(figures, rates.calls)
    value_cores = figures.cpu_per_byte * (rates.stored_in + rates.stored_out)
    return Cost(
        commands=price.commands,
        told=rates.calls["told"],
        bytes_in=price.bytes_in + rates.stored_in,
        bytes_out=price.bytes_out + rates.stored_out,
        cores=figures.nobody + price.cpu + value_cores,
        busy_cores=figures.nobody + price.busy_cpu + value_cores,
        busiest_cores=figures.nobody + _priced(figures, rates.busiest).busy_cpu + value_cores,
        memory_connections=pods * figures.busy_connection_bytes,
        memory_tracking=rates.tracked_keys * figures.tracked_key_bytes
        + rates.tracked_items * figures.tracked_item_bytes,
        memory_values=rates.keys * figures.key_bytes + rates.stored_bytes,
    )


def _priced(figures: Figures, calls: dict[str, float]) -> Price:
    total = Price()
    for kind, times in calls.items():
        total = total.plus(figures.prices[kind], times)
    return total
