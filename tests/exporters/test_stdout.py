import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from sidecar.exporters.stdout import StdoutExporter
from sidecar.pipeline.batch import Batch
from sidecar.pipeline.exporter import Refused, Retryable


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._open = {self.reader, self.writer}

    def close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in list(self._open):
            self.close(fd)

    def read_all(self) -> bytes:
        """Read up to the end; the writer must be closed."""
        with os.fdopen(os.dup(self.reader), "rb") as file:
            return file.read()

    def fill(self) -> int:
        """Fill the pipe; return how many bytes that took."""
        os.set_blocking(self.writer, False)
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"x" * 4096)
        except BlockingIOError:
            return size


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close_all()


def events(count: int, size: int = 10) -> Batch:
    line = msgspec.json.encode({"event_id": "1", "event": "e", "payload": {"text": "x" * size}})
    return Batch("events", b"\n".join([line] * count), count)


async def test_lines_arrive_whole(pipe: Pipe) -> None:
    assert await StdoutExporter(pipe.writer).export(events(3)) == 0
    pipe.close(pipe.writer)
    lines = pipe.read_all().splitlines()
    assert [msgspec.json.decode(line)["signal"] for line in lines] == ["events"] * 3


@pytest.mark.parametrize("blocking", [True, False])
async def test_more_than_a_pipe_holds_arrives_whole(pipe: Pipe, blocking: bool) -> None:
    os.set_blocking(pipe.writer, blocking)
    flags = fcntl.fcntl(pipe.writer, fcntl.F_GETFL)
    received: list[bytes] = []

    async def read() -> None:
        received.append(await trio.to_thread.run_sync(pipe.read_all))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await StdoutExporter(pipe.writer).export(events(100, 10_000))
        assert fcntl.fcntl(pipe.writer, fcntl.F_GETFL) == flags
        pipe.close(pipe.writer)
    lines = received[0].splitlines()
    assert len(lines) == 100
    assert all(len(msgspec.json.decode(line)["payload"]["text"]) == 10_000 for line in lines)


async def test_regular_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        await StdoutExporter(file.fileno()).export(events(2))
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("blocking", [True, False])
async def test_reader_that_takes_nothing_is_retryable(pipe: Pipe, blocking: bool) -> None:
    pipe.fill()
    os.set_blocking(pipe.writer, blocking)
    with pytest.raises(Retryable, match="ETIMEDOUT"):
        await StdoutExporter(pipe.writer, stalled_seconds=0.1).export(events(1))


async def test_blocked_write_can_be_cancelled(pipe: Pipe) -> None:
    pipe.fill()
    os.set_blocking(pipe.writer, True)
    with trio.fail_after(5), trio.move_on_after(0.05) as scope:
        await StdoutExporter(pipe.writer).export(events(1))
    assert scope.cancelled_caught


async def test_closed_pipe_is_retryable(pipe: Pipe) -> None:
    pipe.close(pipe.reader)
    with pytest.raises(Retryable, match="EPIPE"):
        await StdoutExporter(pipe.writer).export(events(1))


async def test_closed_descriptor_is_retryable(pipe: Pipe) -> None:
    pipe.close(pipe.writer)
    with pytest.raises(Retryable, match="EBADF"):
        await StdoutExporter(pipe.writer).export(events(1))


async def test_line_torn_by_a_failure_is_ended_before_the_next(pipe: Pipe) -> None:
    exporter = StdoutExporter(pipe.writer, stalled_seconds=0.1)
    with pytest.raises(Retryable):
        await exporter.export(events(1, 1_000_000))
    torn = os.read(pipe.reader, 10_000_000)
    await exporter.export(events(1))
    pipe.close(pipe.writer)
    rest = pipe.read_all()
    assert torn
    assert b"\n" not in torn
    assert rest.startswith(b"\n")
    assert msgspec.json.decode(rest)["payload"] == {"text": "x" * 10}


async def test_malformed_batch_is_refused_and_nothing_written(pipe: Pipe) -> None:
    with pytest.raises(Refused):
        await StdoutExporter(pipe.writer).export(Batch("traces", b"\xff", 1))
    pipe.close(pipe.writer)
    assert pipe.read_all() == b""
