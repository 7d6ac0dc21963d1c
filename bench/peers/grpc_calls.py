"""``python -m bench.peers.grpc_calls TARGET CALLS SECONDS``: batches over OTLP/gRPC.

One channel of grpcio, without compression, a few calls under way at a time. Ends after so many
calls, or seconds. Prints JSON: ``{"rates": [calls a second, of each round], "calls": …,
"errors": …, "connections": …}``.
"""

import itertools
import sys
import threading
import time

import grpc
import msgspec

from bench.peers.batches import clean_batches
from sidecar.receivers.otlp import OTLP_SIGNALS

_UNDER_WAY = 4
_ROUNDS, _ROUND_SECONDS = 5, 4.0
_TIMEOUT_SECONDS = 30.0
_PATH = next(otlp.grpc_path for otlp in OTLP_SIGNALS if otlp.signal == "traces")


class _Calls:
    """Calls on one channel, so many under way at a time."""

    def __init__(self, channel: grpc.Channel) -> None:
        # Bytes go as they are.
        self._export = channel.unary_unary(_PATH)
        self._bodies = itertools.cycle(clean_batches())
        self._room = threading.Semaphore(_UNDER_WAY)
        self._lock = threading.Lock()
        self.done = self.errors = 0

    def run(self, calls: int, seconds: float) -> float:
        """Call so often, or for so long; return how many a second were answered well."""
        started = time.monotonic()
        before, sent = self.done - self.errors, 0
        while sent < calls and time.monotonic() - started < seconds:
            self._room.acquire()
            future = self._export.future(next(self._bodies), timeout=_TIMEOUT_SECONDS)
            future.add_done_callback(self._ended)
            sent += 1
        for _ in range(_UNDER_WAY):
            self._room.acquire()
        self._room.release(_UNDER_WAY)
        return (self.done - self.errors - before) / (time.monotonic() - started)

    def _ended(self, future: grpc.Future) -> None:
        with self._lock:
            self.done += 1
            self.errors += future.code() is not grpc.StatusCode.OK
        self._room.release()


def main() -> None:
    target, most, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    connected: list[grpc.ChannelConnectivity] = []
    deadline = time.monotonic() + seconds
    with grpc.insecure_channel(target) as channel:
        channel.subscribe(connected.append, try_to_connect=True)
        calls = _Calls(channel)
        calls.run(2 * _UNDER_WAY, _ROUND_SECONDS)
        rates = [calls.run(most, _ROUND_SECONDS) for _ in range(_ROUNDS)]
        calls.run(most - calls.done, deadline - time.monotonic())
    figures = {
        "rates": rates,
        "calls": calls.done,
        "errors": calls.errors,
        "connections": connected.count(grpc.ChannelConnectivity.READY),
    }
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main()
