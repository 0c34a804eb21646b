"""What this node enforces now, read from the kernel. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from portforge.apply.cgroups import pod_uid
from portforge.apply.inventory import Inventory
from portforge.apply.layout import KERNEL_LOSSES, Established, Mode, Restrict
from portforge.apply.node import NodeMaps
from portforge.apply.state import State

__all__ = ["NodeStatus", "PodStatus", "node_status"]


@dataclass(frozen=True)
class PodStatus:
    """One pod as the kernel sees it. ``mode`` is None where no policy is assigned."""

    pod: str
    workload: str | None
    policy: int
    mode: str | None
    established: str | None
    restricts: tuple[str, ...]
    unknown: bool = False
    """It is denied until the recorder knows it (``until-known``)."""


@dataclass(frozen=True)
class NodeStatus:
    """This node: its pods, the size of what is written, and what was lost since the load."""

    node: str
    programs: str
    epoch: int
    generation: int
    pods: tuple[PodStatus, ...]
    rules: int
    peers: int
    listeners: int
    losses: dict[str, int]
    history: int
    closed: bool = False
    """New pods that are not known are denied until they are."""
    expected: int = 0
    """Pods that the kernel takes over when their cgroup is made, those that run included."""

    def as_json(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        return {"schema": 1, **asdict(self)}


def node_status(maps: NodeMaps, state: State, inventory: Inventory | None) -> NodeStatus:
    """Read the status; names of pods need the inventory, else their cgroups' names stand."""
    by_uid = {p.uid: p for p in inventory.pods} if inventory else {}
    names = maps.pod_names()
    keys, values = maps.read("pods")
    pods = []
    for key, value in zip(keys, values, strict=True):
        name = names.get(int(key), str(int(key)))
        pod = by_uid.get(pod_uid(name) or "")
        policy = int(value["policy"])
        pods.append(
            PodStatus(
                f"{pod.namespace}/{pod.name}" if pod else name,
                f"{pod.workload.kind}/{pod.workload.name}" if pod and pod.workload else None,
                policy,
                Mode(int(value["mode"])).name.capitalize() if policy else None,
                Established(int(value["established"])).name.capitalize() if policy else None,
                tuple(r.name.lower() for r in Restrict if int(value["restricted"]) & r and r.name),
                bool(value["unknown"]),
            )
        )
    config = maps.config()
    return NodeStatus(
        state.folder.name,
        maps.folder.name,
        config["epoch"],
        config["generation"],
        tuple(sorted(pods, key=lambda p: p.pod)),
        len(maps.read("rules")[0]),
        len(maps.read("peers")[0]),
        len(maps.read("listeners")[0]),
        {r.value: n for r, n in zip(KERNEL_LOSSES, maps.losses(), strict=True) if n},
        len(state.history()),
        bool(config["closed"]),
        len(maps.read("expected")[0]),
    )
