"""What the recorder's user-space tests share: a small cluster, rows, a full disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from portforge.apply.inventory import Inventory, Node, Pod, Service, ServicePort
from portforge.apply.layout import FLOW, FLOW_KEY, LISTENER, LISTENER_KEY, packed_address
from portforge.schema import Workload
from portforge_recorder.attribute import attribute

CLOCK = 1_795_600_800_000_000  # 2026-11-25T10:00:00Z, in µs, at boot
WEB = "0f8fad5b-d9cb-469f-a165-70867728950e"
PROXY = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
NAMES = {
    11: f"kubepods-burstable-pod{WEB.replace('-', '_')}.slice",
    12: f"kubepods/besteffort/pod{PROXY}",
    99: "kubepods-pod11111111_1111_1111_1111_111111111111.slice",
}


@pytest.fixture
def inventory() -> Inventory:
    redis = Workload("shop", "StatefulSet", "redis")
    return Inventory(
        "demo",
        "node-a",
        pods=(
            Pod(
                WEB,
                "shop",
                "web-abc",
                Workload("shop", "Deployment", "web"),
                "node-a",
                ("10.77.0.11",),
            ),
            Pod(
                PROXY,
                "kube-system",
                "proxy-x",
                Workload("kube-system", "DaemonSet", "proxy"),
                "node-a",
                ("10.77.0.1",),
                host_network=True,
            ),
            Pod("a" * 32, "shop", "redis-0", redis, "node-b", ("10.77.0.12", "fd77::12")),
        ),
        services=(
            Service("shop", "redis", ("10.96.0.5",), (ServicePort("TCP", 6379, 16379),), redis),
        ),
        nodes=(Node("node-a", ("10.77.0.1",)),),
        cidrs=("10.77.0.0/24", "10.96.0.0/16", "fd77::/64"),
    )


def flow(
    cgroup: int = 11,
    peer: str | None = "10.77.0.12",
    port: int = 6379,
    protocol: int = 6,
    direction: int = 1,
    verdict: int = 0,
    scope: int = 0,
    first_ns: int = 1_000_000_000,
    last_ns: int = 2_000_000_000,
    **counters: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One entry of the flow map."""
    key, value = np.zeros(1, FLOW_KEY), np.zeros(1, FLOW)
    key["peer"][0] = np.frombuffer(packed_address(peer) if peer else bytes(16), "u1")
    key["cgroup"], key["port"], key["protocol"] = cgroup, port, protocol
    key["direction"], key["verdict"], key["scope"] = direction, verdict, scope
    value["first_ns"], value["last_ns"] = first_ns, last_ns
    for name, number in {"connections": 1, **counters}.items():
        value[name] = number
    return key, value


def listener(
    cgroup: int,
    port: int,
    scope: int = 0,
    live: int = 1,
    snapshot: int = 0,
    since_ns: int = 500_000,
):
    """One entry of the listener map."""
    key, value = np.zeros(1, LISTENER_KEY), np.zeros(1, LISTENER)
    key["cgroup"], key["port"], key["protocol"], key["scope"] = cgroup, port, 6, scope
    value["live"], value["snapshot"], value["since_ns"] = live, snapshot, since_ns
    return key, value


Drain = Callable[..., tuple[pa.Table, int]]


@pytest.fixture
def drain(inventory: Inventory) -> Drain:
    """attribute() of entries made with ``flow`` and ``listener``."""

    def run(*flows, listeners=(), rules=None, now=9_000_000_000, told=lambda *_: None):
        keys = np.concatenate([np.zeros(0, FLOW_KEY), *(k for k, _ in flows)])
        values = np.concatenate([np.zeros(0, FLOW), *(v for _, v in flows)])
        pair = (
            np.concatenate([np.zeros(0, LISTENER_KEY), *(k for k, _ in listeners)]),
            np.concatenate([np.zeros(0, LISTENER), *(v for _, v in listeners)]),
        )
        rest = (NAMES, inventory, rules or {}, CLOCK, now, "node-a", told)
        return attribute(keys, values, pair, *rest)

    return run


@pytest.fixture
def entry():
    return flow


@pytest.fixture
def listening():
    return listener


@pytest.fixture
def rows(drain: Drain) -> Callable[..., pa.Table]:
    """``rows(n, start)``: n rows, told apart by ``connections`` = start, start + 1, …"""

    def make(n: int, start: int = 0, first_ns: int = 1_000_000_000) -> pa.Table:
        made = [
            flow(port=1 + i % 60_000, connections=start + i, first_ns=first_ns, last_ns=first_ns)
            for i in range(n)
        ]
        return drain(*made)[0]

    return make


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB. Needs root, like the recorder itself."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
