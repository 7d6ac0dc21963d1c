"""The OpenAPI document against a running sidecar, by schemathesis."""

import subprocess
import sys
from pathlib import Path

import httpx2

from tests.process import SidecarProcess


def test_every_answer_is_as_documented(sidecar: SidecarProcess) -> None:
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{sidecar.url}/openapi.json",
        "--checks=all",
        "--max-examples=25",
        "--seed=1",
        "--generation-database=none",
        "--suppress-health-check=all",
        "--no-color",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout
    assert "23 selected / 23 total" in result.stdout


def test_every_path_of_the_contract_is_documented(sidecar: SidecarProcess) -> None:
    paths = httpx2.get(f"{sidecar.url}/openapi.json").json()["paths"]
    assert {(method, path) for path, item in paths.items() for method in item} == {
        ("post", "/log"),
        ("post", "/log/batch"),
        ("post", "/cache/set"),
        ("get", "/cache/get"),
        ("delete", "/cache"),
        ("post", "/cache/key"),
        ("get", "/cache/stats"),
        ("post", "/redact"),
        ("get", "/redactions"),
        ("get", "/health"),
        ("get", "/healthz"),
        ("get", "/livez"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("post", "/v1/traces"),
        ("post", "/v1/metrics"),
        ("post", "/v1/logs"),
        *(
            (method, "/proxy/{route}/{path}")
            for method in ("get", "post", "put", "patch", "delete", "options")
        ),
    }
