"""Load from the other core: by wrk, and by programs of this package that run on their own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

# The same one where there is but one.
SERVER_CORE, LOAD_CORE = (sorted(os.sched_getaffinity(0)) * 2)[:2]
PROTOBUF, JSON = "application/x-protobuf", "application/json"

_TIMEOUT_SECONDS = 30
FOLDER = Path(__file__).parent


class MissingError(Exception):
    """A program is not installed; says where it comes from."""


class FaultyAnswersError(Exception):
    """A server failed under load, so what it did in a second says nothing."""


class Requests(msgspec.Struct, frozen=True):
    """Different requests of one method, sent in turn.

    Attributes:
        method: of all.
        paths: one each, with the query; a single one is that of all.
        bodies: one each; none for GET.
        media_type: of the bodies.
    """

    method: str
    paths: Sequence[str]
    bodies: Sequence[bytes] = ()
    media_type: str = JSON


class Figures(msgspec.Struct, frozen=True):
    """What a round of load came to: requests a second, and seconds to an answer."""

    rate: float
    p50: float
    p99: float


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core what is started in this block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wrk(url: str, requests: Requests, seconds: int, connections: int) -> Figures:
    """Send requests as fast as they are answered.

    Args:
        url: of the server; its path stands before that of the requests.
        requests: sent in turn.
        seconds: how long.
        connections: each has one request under way.

    Raises:
        FaultyAnswersError: an answer was neither 2xx nor 3xx, or none came.
        MissingError: there is no wrk.
    """
    program = installed("wrk", "wrk")
    with tempfile.NamedTemporaryFile() as file:
        _write(Path(file.name), urlsplit(url).path, requests)
        command: list[str | Path] = [
            *(program, "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("--timeout", f"{_TIMEOUT_SECONDS}s", "-s", FOLDER / "wrk.lua"),
            *(url, "--", file.name),
        ]
        with on_core(LOAD_CORE):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("figures "))
    count, microseconds, p50, p99, faults = map(int, line.split()[1:])
    if faults or not count:
        raise FaultyAnswersError(f"{faults} faults beside {count} answers")
    return Figures(1e6 * count / microseconds, p50 / 1e6, p99 / 1e6)


def program_of_load(module: str, *arguments: str) -> Any:
    """Run a module of this package on the core of the load; return the JSON that it prints."""
    with on_core(LOAD_CORE):
        done = subprocess.run(
            [sys.executable, "-m", f"bench.peers.{module}", *arguments],
            stdout=subprocess.PIPE,
            check=True,
        )
    return msgspec.json.decode(done.stdout)


def installed(program: str, package: str) -> str:
    """Return the path of a program of a Debian package; raises `MissingError`."""
    if found := shutil.which(program):
        return found
    raise MissingError(f"no {program} here (Debian package {package})")


def _write(file: Path, prefix: str, requests: Requests) -> None:
    count = max(len(requests.paths), len(requests.bodies))
    paths = list(requests.paths) if len(requests.paths) == count else [*requests.paths] * count
    bodies = requests.bodies or [b""] * count
    with file.open("wb") as out:
        media_type = requests.media_type if requests.bodies else ""
        out.write(f"{requests.method}\n{media_type}\n".encode())
        for path, body in zip(paths, bodies, strict=True):
            out.write(f"{len(body)} {prefix}{path}\n".encode() + body)
