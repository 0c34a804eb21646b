"""A node of test pods with the programs loaded: what every kernel test stands on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from portforge.apply.enforce import Applied, Enforcer
from portforge.apply.layout import Direction, Scope, Verdict, unpacked_address
from portforge.apply.node import NodeMaps, Rows
from portforge.apply.state import State
from portforge.demo.pods import Node
from portforge.policy import PortPolicy, approve
from portforge_recorder.identity import StaticSource
from portforge_recorder.load import Sizes, load, remove, versions
from portforge_recorder.snapshot import register

# A connection is recorded at its close at the latest, and that is when both FINs are acknowledged.
SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Flow:
    """One entry of the kernel's flow map, readable."""

    cgroup: int
    peer: str
    port: int
    protocol: int
    direction: Direction
    verdict: Verdict
    scope: Scope
    connections: int
    bytes_sent: int
    bytes_received: int
    retransmits: int
    policy: int
    rule: int


@dataclass
class Bed:
    """The node, its maps, and an enforcer with a state of its own."""

    node: Node
    maps: NodeMaps
    enforcer: Enforcer
    folder: Path

    def source(self) -> StaticSource:
        """The inventory of the pods as they are now."""
        path = self.folder / "inventory.yaml"
        self.node.write_inventory(path)
        return StaticSource(path)

    def enforce(self, *policies: PortPolicy) -> Applied:
        """Approve and put in force exactly these policies."""
        now = datetime.now(UTC)
        self.enforcer.state.change([approve(p, "tester", now) for p in policies])
        return self.enforcer.reconcile(self.source().inventory())

    def flows(self, settle: float = SETTLE_SECONDS) -> list[Flow]:
        """Everything recorded since the last call."""
        time.sleep(settle)
        drained = self.maps.drain()
        self.maps.drained()
        return [_flow(k, v) for k, v in zip(drained.keys, drained.values, strict=True)]


def _flow(key: Rows, value: Rows) -> Flow:
    return Flow(
        int(key["cgroup"]),
        unpacked_address(np.asarray(key["peer"]).tobytes()),
        int(key["port"]),
        int(key["protocol"]),
        Direction(int(key["direction"])),
        Verdict(int(key["verdict"])),
        Scope(int(key["scope"])),
        int(value["connections"]),
        int(value["bytes_sent"]),
        int(value["bytes_received"]),
        int(value["retransmits"]),
        int(value["policy"]),
        int(value["rule"]),
    )


@contextlib.contextmanager
def make_bed(
    folder: Path, node: Node, sizes: Sizes = Sizes(), flush_seconds: float = 10
) -> Iterator[Bed]:
    """Load on ``node``; take everything out of the kernel at the end, also after a failure."""
    try:
        pins = load(node.name, node.kubepods, sizes, flush_seconds)
        with NodeMaps(pins) as maps:
            register(maps, node.kubepods)
            yield Bed(node, maps, Enforcer(maps, State(node.name, folder / "state")), folder)
    finally:
        for pins in versions(node.name):
            remove(pins)
