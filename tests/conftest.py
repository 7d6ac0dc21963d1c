from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.process import SidecarProcess, sidecar_process

# The machine may be slow and busy; how long an example takes is no property of the code.
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.fixture(scope="session")
def sidecar() -> Iterator[SidecarProcess]:
    """A sidecar without Redis or a collector, for all tests that leave no trace behind."""
    with sidecar_process() as process:
        yield process
