"""What the tests of enforcement share: a bed of their own node name, and short policies."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from portforge.demo.pods import Node, Pod
from portforge.policy import Mode, PortPolicy
from portforge.schema import Workload
from portforge_recorder.load import BPFFS, remove, versions

from .bed import Bed, make_bed
from .puppet import Puppet

OPEN_PORT, SHUT_PORT = 7100, 7201
_numbers = count(1)


def _sweep() -> None:
    """Take out of the kernel what a run that was killed has left there."""
    for folder in BPFFS.glob("portforge/enforce-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            for pins in versions(folder.name):
                remove(pins)


@contextmanager
def standing_bed(folder: Path) -> Iterator[Bed]:
    """A bed for several tests. Its pins have a name that no other run uses."""
    _sweep()
    with (
        Node(f"enforce-{os.getpid()}-{next(_numbers)}") as node,
        make_bed(folder, node) as bed,
    ):
        yield bed


class Pair(NamedTuple):
    """A pod with a policy, one without, and their puppets."""

    bed: Bed
    web: Pod
    other: Pod
    inside: Puppet
    outside: Puppet


@contextmanager
def standing_pair(folder: Path) -> Iterator[Pair]:
    """A pair for several tests, each listening on both ports."""
    with standing_bed(folder) as bed:
        web, other = bed.node.pod("t", "Deployment", "web"), bed.node.pod("t", "Job", "other")
        ports = (OPEN_PORT, SHUT_PORT)
        yield Pair(bed, web, other, Puppet(web, *ports), Puppet(other, *ports))


def rule(
    protocol: str,
    port: int = OPEN_PORT,
    end_port: int | None = None,
    peers: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """A rule called ``tcp-7100``."""
    return {
        "id": f"{protocol.lower()}-{port}",
        "protocol": protocol,
        "port": port,
        "end_port": end_port,
        "peers": peers,
        **more,
    }


def policy(
    workload: str,
    mode: Mode = Mode.ENFORCE,
    *,
    ingress: Sequence[dict[str, Any]] | None = None,
    egress: Sequence[dict[str, Any]] | None = None,
    **more: Any,
) -> PortPolicy:
    """A policy of the Deployment ``t/<workload>``; rules without a direction in their ids."""

    def named(side: str, rules: Sequence[dict[str, Any]] | None) -> Any:
        if rules is None:
            return None
        both = ingress is not None and egress is not None
        return [{**r, "id": f"{side}-{r['id']}" if both else r["id"]} for r in rules]

    return PortPolicy.model_validate(
        {
            "namespace": "t",
            "name": workload,
            "workload": Workload("t", "Deployment", workload),
            "mode": mode,
            "ingress": named("in", ingress),
            "egress": named("out", egress),
            **more,
        }
    )
