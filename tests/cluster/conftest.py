"""Real API servers and a real cluster for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from localcluster import binaries
from localcluster.control import ControlPlane


@pytest.fixture(scope="session")
def built() -> Path:
    """The binaries; built the first time, which takes minutes."""
    return binaries.build()


@pytest.fixture(scope="module")
def api_server(
    built: Path,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ControlPlane]:
    """A real API server with its etcd, empty, for one module; no node."""
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
