"""Real API servers and a real cluster for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusterdemo.shop import Shop
from clusterdemo.shop import image as shop_image
from localcluster import binaries, images
from localcluster.cluster import Cluster
from localcluster.control import ControlPlane

from tests.cluster.left_out import LEFT_OUT
from tests.cluster.release import Release
from tests.cluster.standing import Standing

collect_ignore_glob = ["test_*.py"] if LEFT_OUT else []


def pytest_report_header() -> str | None:
    """Say aloud that the cluster is left out."""
    return LEFT_OUT or None


HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The install guide first in this folder: it needs a cluster without the session's release."""
    places = [i for i, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted(
        (items[i] for i in places), key=lambda item: item.path.name != "test_install_guide.py"
    )
    for place, item in zip(places, ordered, strict=True):
        items[place] = item


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


@pytest.fixture(scope="session")
def cluster(built: Path) -> Iterator[Cluster]:  # noqa: ARG001
    """A real cluster of three nodes with this checkout's images, for the whole run.

    PORTFORGE_TEST_CLUSTER=name:number takes one that runs (or starts it) and leaves it running.
    """
    kept = os.environ.get("PORTFORGE_TEST_CLUSTER", "")
    name, _, number = (kept or "test:7").partition(":")
    cluster = Cluster(name, int(number))
    try:
        cluster.up()
        cluster.load(*images.portforge(), shop_image())
        yield cluster
    finally:
        if not kept:
            cluster.down()


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """The chart, installed; ana is an analyst, ben an approver, olga on call."""
    release = Release(cluster)
    release.install()
    try:
        yield release
    finally:
        release.uninstall()


@pytest.fixture(scope="session")
def shop(cluster: Cluster, release: Release) -> Iterator[Shop]:  # noqa: ARG001
    """The shop, serving its client, while agents watch."""
    shop = Shop(cluster.kubectl)
    shop.start()
    try:
        yield shop
    finally:
        shop.stop()


@pytest.fixture(scope="module")
def standing(
    request: pytest.FixtureRequest,
    release: Release,
    shop: Shop,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Standing]:
    """The shop under enforced policies; what a module met is told at its end."""
    name = request.path.stem.removeprefix("test_")
    standing = Standing(release, tmp_path_factory.mktemp(name))
    try:
        standing.prepare()
        yield standing
    finally:
        standing.tell(name)
        standing.clear()
