"""Fixtures of the kernel tests. Without root or BPF they fail, unless told aloud not to run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from portforge.demo.pods import Node, Pod

from .bed import Bed, make_bed

collect_ignore_glob = ["test_*.py"] if os.environ.get("PORTFORGE_WITHOUT_KERNEL") == "1" else []


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    """A fresh node with the programs loaded; make pods with ``bed.node.pod(...)``."""
    with Node(f"bed-{os.getpid()}") as node, make_bed(tmp_path, node) as ready:
        yield ready


@pytest.fixture(scope="module")
def standing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bed]:
    """A bed for all tests of a module."""
    name = f"{request.module.__name__.rpartition('_')[2]}-{os.getpid()}"
    folder = tmp_path_factory.mktemp(name)
    with Node(name) as node, make_bed(folder, node) as ready:
        yield ready


@pytest.fixture(scope="module")
def pods(standing: Bed) -> tuple[Pod, Pod]:
    """Two pods on the standing bed: one that asks, one that answers."""
    pod = standing.node.pod
    return pod("t", "Deployment", "asks"), pod("t", "Deployment", "answers")


def pytest_report_header() -> str | None:
    """Say aloud that the kernel is left out."""
    if not collect_ignore_glob:
        return None
    return "PORTFORGE_WITHOUT_KERNEL=1: NO KERNEL TEST IS RUN"
