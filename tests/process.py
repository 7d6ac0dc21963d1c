"""A real sidecar process on free ports, for end-to-end tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

READY_SECONDS = 30.0


class SidecarProcess:
    """A sidecar while it runs.

    Attributes:
        url, otlp_http_url, metrics_url: without a path.
        grpc_target: host and port for a gRPC channel.
        log: its standard error so far.
    """

    def __init__(self, environ: Mapping[str, str], python: str = sys.executable) -> None:
        names = (
            "SIDECAR_PORT",
            "SIDECAR_OTLP_HTTP_PORT",
            "SIDECAR_OTLP_GRPC_PORT",
            "PROMETHEUS_PORT",
        )
        ports = {name: environ.get(name) or str(_unused_port()) for name in names}
        self.url = f"http://127.0.0.1:{ports['SIDECAR_PORT']}"
        self.otlp_http_url = f"http://127.0.0.1:{ports['SIDECAR_OTLP_HTTP_PORT']}"
        self.grpc_target = f"127.0.0.1:{ports['SIDECAR_OTLP_GRPC_PORT']}"
        self.metrics_url = f"http://127.0.0.1:{ports['PROMETHEUS_PORT']}"
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        inherited = {
            k: v for k, v in os.environ.items() if k in {"PATH", "HOME"} or "COVERAGE" in k
        }
        self.process = subprocess.Popen(
            [python, "-m", "sidecar", "run"],
            env={
                **inherited,
                "REDIS_URL": "",
                "SIDECAR_METRICS_HOST": "127.0.0.1",
                **environ,
                **ports,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._errors,
        )

    def wait_ready(self) -> None:
        """Return when it says that it is ready; raises when it ends before, or never is."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"exit code {self.process.returncode}: {self.log}")
            try:
                if httpx2.get(f"{self.metrics_url}/readyz", trust_env=False).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.02)
        raise TimeoutError(self.log)

    @property
    def log(self) -> str:
        """Return what it wrote to standard error."""
        return _content(self._errors).decode()

    def lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines that it wrote to standard output."""
        return [msgspec.json.decode(line) for line in _content(self._output).splitlines()]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self._output.close()
        self._errors.close()


def _unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _content(file: Any) -> bytes:
    return Path(f"/proc/self/fd/{file.fileno()}").read_bytes()


@contextmanager
def sidecar_process(
    environ: Mapping[str, str] | None = None, python: str = sys.executable
) -> Iterator[SidecarProcess]:
    """Start a sidecar with these settings and wait until it is ready."""
    process = SidecarProcess(environ or {}, python)
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()
