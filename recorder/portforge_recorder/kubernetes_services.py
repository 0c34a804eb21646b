"""Services of the cluster: which ports and which workload stand behind each. Pure.

From what is kept of Services, EndpointSlices and Nodes; not for watching them
(:mod:`portforge_recorder.kubernetes`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from portforge.apply.inventory import Service, ServicePort
from portforge.schema import Workload
from portforge_recorder.kubernetes_objects import KeptPort, KeptService, KeptSlice

__all__ = ["collapsed", "make_services"]


def collapsed(ranges: Iterable[str]) -> tuple[str, ...]:
    """The fewest networks that are the same, IPv4 first.

    >>> collapsed(["fd00::/64", "10.244.1.0/24", "10.244.0.0/24"])
    ('10.244.0.0/23', 'fd00::/64')
    """
    parsed = [ip_network(text) for text in ranges]
    fours = collapse_addresses(n for n in parsed if isinstance(n, IPv4Network))
    sixes = collapse_addresses(n for n in parsed if isinstance(n, IPv6Network))
    return (*map(str, fours), *map(str, sixes))


def make_services(
    services: Iterable[KeptService],
    slices: Iterable[KeptSlice],
    workloads: Mapping[str, Workload | None],
    nodes: Collection[str],
) -> tuple[Service, ...]:
    """Services with the ports and the one workload behind them.

    ``workloads``: of each pod that runs, by its UID in the API. An entrance that is a node's
    address stays the node's: probes come from there too.
    """
    by_service: dict[tuple[str, str], list[KeptSlice]] = {}
    for part in slices:
        by_service.setdefault((part.namespace, part.service), []).append(part)
    made = []
    for kept in services:
        parts = by_service.get((kept.namespace, kept.name), [])
        found = {workloads.get(uid) for part in parts for uid in part.pods}
        entrances = tuple(a for a in kept.entrances if a not in nodes)
        made.append(
            Service(
                kept.namespace,
                kept.name,
                tuple(dict.fromkeys(kept.addresses + entrances)),
                tuple(_ports(kept.ports, parts)),
                found.pop() if len(found) == 1 else None,
            )
        )
    return tuple(sorted(made, key=lambda s: (s.namespace, s.name)))


def _ports(ports: Iterable[KeptPort], parts: Iterable[KeptSlice]) -> Iterator[ServicePort]:
    """The ports whose backends' port is known and one."""
    behind: dict[tuple[str, str], set[int]] = {}
    for part in parts:
        for name, protocol, number in part.ports:
            behind.setdefault((name, protocol), set()).add(number)
    for port in ports:
        found = behind.get((port.name, port.protocol), set())
        target = port.target if not found else found.pop() if len(found) == 1 else None
        if target:
            yield ServicePort(port.protocol, port.port, target, port.node_port)
