"""What a generalisation costs and saves, in one currency. Pure.

A selector is one peer of one rule. Generalising saves selectors and costs port-peers that nobody
was seen to use: one peer on one port. ``price`` is how many of these one saved selector may cost:
a generalisation is made where ``cost <= price * saved``.

Some generalisations are a name, not a number: ``World``, ``Cluster``, the whole ephemeral range of
a system. What they admit is counted for the evidence, but no list of peers is ever long enough to
pay for that. So each has a fixed cost, that of the list it replaces at the default price of 256:

- ``World``, and the ephemeral range: 2,048. Nine addresses, or ports, are worth it.
- a namespace for workloads of it: 8,192. They have names that last, so a list is given up late:
  33 workloads of one namespace are worth it. Who comes to the namespace later is let in, too.
- ``Cluster`` for workloads, and namespaces, that still are a list then: 65,536. It is given up
  where a rule can hold no more: at 256 peers.

Nodes, addresses of the cluster that belong to no known workload, and TCP 53 beside UDP 53 are
generalised at any price but 0: no list of them lasts, or holds what is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address, ip_network

from portforge.policy import Entity, PeerSelector, Rule
from portforge.recommend._edges import Edge
from portforge.schema import PeerKind, Workload

__all__ = [
    "CLUSTER_COST",
    "NAMED_COST",
    "NAMESPACE_COST",
    "members",
    "most_listed",
    "unobserved",
    "worth",
]

NAMED_COST, NAMESPACE_COST, CLUSTER_COST = 2048, 8192, 65536
_WORLD, _CLUSTER = 1 << 32, 1 << 16
"""Counted for ``World``: the addresses of IPv4; for ``Cluster``: those of the usual pod network."""
_NETWORK = 64
"""A host of IPv6 has a /64 to choose from: it counts as one."""


def worth(cost: int, saved: int, price: int) -> bool:
    """Whether so many unobserved port-peers may be admitted.

    >>> worth(44, 19, 256), worth(44, 19, 0), worth(0, 0, 0)
    (True, False, True)
    """
    return cost <= price * saved


def most_listed(price: int) -> int:
    """The longest list of outside addresses that ``World`` is not worth.

    >>> most_listed(256), most_listed(2048), most_listed(1)
    (8, 1, 2048)
    """
    return max(1, -(-NAMED_COST // price)) if price else _WORLD


def unobserved(
    rule: Rule,
    edges: Sequence[Edge],
    nodes: int,
    workloads: Mapping[str, Collection[Workload]] | None = None,
) -> int:
    """Port-peers that the rule admits and that none of its edges used.

    ``World`` counts as 4,294,967,296 addresses, ``Cluster`` as 65,536, ``Node`` as the nodes that
    were seen at all; any peer is both of the first. A workload is one peer, a block counts its
    addresses (of IPv6, its /64s). A namespace counts as the workloads that are known there, and
    what else of it was seen: what it will hold one day, nobody knows, and is not counted.

    Parameters
    ----------
    nodes: how many nodes the capture knows.
    workloads: the workloads that it knows, by namespace.
    """
    seen = {(edge.port, _unit(edge)) for edge in edges if edge.peer.ip is not None}
    size = rule.last_port - rule.port + 1
    if rule.peers is None:
        return max(0, size * (_WORLD + _CLUSTER) - len(seen))
    entities = {peer.entity for peer in rule.peers}
    namespaces = {peer.namespace for peer in rule.peers if peer.namespace is not None}
    total = 0
    for peer in rule.peers:
        if peer.workload is not None and peer.workload.namespace in namespaces:
            continue
        if Entity.CLUSTER in entities and (peer.workload or peer.namespace) is not None:
            continue
        if peer.cidr is not None and Entity.WORLD in entities:
            continue
        if peer.entity == Entity.NODE and Entity.CLUSTER in entities:
            continue
        if peer.namespace is not None:
            total += members(peer.namespace, edges, workloads or {})
            continue
        total += _capacity(peer, nodes, len({u for _, u in seen if u[0] == "node"}))
    return max(0, size * total - len(seen))


def members(
    namespace: str, edges: Sequence[Edge], workloads: Mapping[str, Collection[Workload]]
) -> int:
    """The workloads known in a namespace, and the Services of it that were seen without one."""
    kinds = (PeerKind.WORKLOAD, PeerKind.SERVICE)
    own = [e for e in edges if e.peer.namespace == namespace and e.peer.kind in kinds]
    known = {("workload", *workload) for workload in workloads.get(namespace, ())}
    return len(known | {_unit(edge) for edge in own})


def _capacity(peer: PeerSelector, nodes: int, nodes_seen: int) -> int:
    if peer.cidr is not None:
        network = ip_network(peer.cidr)
        bits = 32 if network.version == 4 else _NETWORK
        return 1 << max(0, bits - network.prefixlen)
    if peer.entity == Entity.NODE:
        return max(nodes, nodes_seen)
    return {None: 1, Entity.CLUSTER: _CLUSTER, Entity.WORLD: _WORLD}[peer.entity]


def _unit(edge: Edge) -> tuple[str, ...]:
    """One peer: a workload, a node, an address (of IPv6 outside, its /64)."""
    peer = edge.peer
    if peer.kind == PeerKind.NODE:
        return ("node", peer.workload or peer.ip or "")
    if peer.workload is not None and peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE):
        return ("workload", peer.namespace or "", peer.workload_kind or "", peer.workload)
    address = ip_address(peer.ip or "0.0.0.0")  # noqa: S104
    if address.version == 6 and peer.kind == PeerKind.EXTERNAL:
        return ("address", str(int(address) >> _NETWORK))
    return ("address", str(address))
