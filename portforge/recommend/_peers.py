"""The peers of one rule: listed, or generalised where the price allows it and no mark is crossed.

What is not generalised is listed exactly, up to the 256 peers that a rule may have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address

from portforge.errors import CaptureError
from portforge.policy import Entity, PeerSelector
from portforge.policy._model import MOST_PEERS
from portforge.recommend._blocks import covering
from portforge.recommend._edges import Edge, workload_of
from portforge.recommend._marks import Around
from portforge.recommend._options import Options
from portforge.recommend._price import (
    CLUSTER_COST,
    NAMED_COST,
    NAMESPACE_COST,
    most_listed,
    worth,
)
from portforge.schema import PeerKind, Workload

__all__ = ["Peers", "named", "select_peers"]

_MOST_BLOCKS = 32
_CLUSTER, _NODE, _WORLD = (
    PeerSelector(entity=entity) for entity in (Entity.CLUSTER, Entity.NODE, Entity.WORLD)
)


@dataclass
class Peers:
    """The selectors of one rule, collected; ``unlisted``: peers for which there was no room."""

    selectors: set[PeerSelector] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    over_grant: list[str] = field(default_factory=list)
    unlisted: int = 0


@dataclass
class _Seen:
    """The peers by kind; addresses with their connections, those outside with when met first."""

    workloads: set[Workload] = field(default_factory=set)
    services: dict[str, str | None] = field(default_factory=dict)
    """Those without one known workload behind them, with their namespaces."""
    nodes: dict[str, set[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    outside: dict[str, datetime] = field(default_factory=dict)
    used: dict[PeerSelector, int] = field(default_factory=dict)


def named(edge: Edge) -> bool:
    """Whether the peer is known by name: a lost one is not."""
    return edge.peer.kind == PeerKind.NODE or workload_of(edge.peer) is not None


def select_peers(edges: Sequence[Edge], options: Options, around: Around) -> Peers:
    """The peers of the rule for these edges, of one direction, protocol and port or range."""
    return _Selection(edges, options, around).peers


class _Selection:
    def __init__(self, edges: Sequence[Edge], options: Options, around: Around) -> None:
        self._options, self._around = options, around
        workload = edges[0].workload
        assert workload is not None  # noqa: S101  rules are made of workloads' edges
        self._workload, self._protocol = workload, str(edges[0].protocol)
        ports = [edge.port for edge in edges]
        self._ports = (min(ports), max(ports))
        self._seen = _seen(edges)
        self.peers = Peers()
        self._inside()
        self._outside()
        self._shorten()

    def _may(self, *selectors: PeerSelector) -> bool:
        """Whether no mark is crossed; where one is, the rule says so."""
        mark = self._around.marks.crossed(self._workload, self._protocol, self._ports, selectors)
        if mark is not None:
            wide = ", ".join(map(str, selectors))
            self.peers.reasons.append(f"not opened to {wide}: {mark}")
        return mark is None

    def _inside(self) -> None:
        seen, peers, price = self._seen, self.peers, self._options.price
        namespaces = self._namespaces()
        for ip, namespace in sorted(seen.services.items()):
            if namespace not in namespaces:
                peers.selectors.add(_address(ip))
                peers.reasons.append(f"{ip} is a Service without one known workload behind it")
        if seen.nodes:
            if price and self._may(_NODE):
                peers.selectors.add(_NODE)
                peers.over_grant.append(f"every node; seen: {', '.join(sorted(seen.nodes))}")
            else:
                peers.selectors |= {_address(ip) for ips in seen.nodes.values() for ip in ips}
        if seen.unknown:
            peers.reasons.append(
                f"{_count(seen.unknown)} of the cluster belong to no known workload"
            )
            if price and self._may(_CLUSTER):
                peers.selectors.add(_CLUSTER)
                peers.over_grant.append(f"the whole cluster for {_count(seen.unknown)}")
            else:
                peers.selectors |= {_address(ip) for ip in seen.unknown}
        self._named(namespaces)

    def _namespaces(self) -> dict[str, list[Workload]]:
        """The namespaces that are worth it, with the workloads seen that each stands for."""
        found: defaultdict[str, list[Workload]] = defaultdict(list)
        for workload in sorted(self._seen.workloads):
            found[workload.namespace].append(workload)
        return {
            namespace: some
            for namespace, some in found.items()
            if worth(NAMESPACE_COST, len(some) - 1, self._options.price)
            and self._may(PeerSelector(namespace=namespace))
        }

    def _named(self, namespaces: Mapping[str, Sequence[Workload]]) -> None:
        """Workloads one by one, but for ``namespaces``; or the cluster for more than has room."""
        peers, every = self.peers, self._seen.workloads
        single = {one for one in every if one.namespace not in namespaces}
        left = len(single) + len(namespaces)
        if worth(CLUSTER_COST, left - 1, self._options.price) and self._may(_CLUSTER):
            peers.selectors.add(_CLUSTER)
            peers.reasons.append(f"{len(every)} workloads: too many to list")
            peers.over_grant.append(f"the whole cluster for {len(every)} workloads seen")
            return
        peers.selectors |= {PeerSelector(workload=one) for one in single}
        for namespace, some in namespaces.items():
            wide = PeerSelector(namespace=namespace)
            known = {*some, *self._around.workloads.get(namespace, ())}
            peers.selectors.add(wide)
            peers.reasons.append(f"{len(some)} workloads of {namespace}: too many to list")
            peers.over_grant.append(
                f"{wide} for {len(some)} of the {len(known)} workloads known in {namespace}"
            )

    def _outside(self) -> None:
        """Few addresses are listed; for many it is blocks, else all the world."""
        outside, peers, price = self._seen.outside, self.peers, self._options.price
        exact = {_address(ip) for ip in outside}
        if not worth(NAMED_COST, len(outside) - 1, price):
            peers.selectors |= exact
            return
        met = sorted(outside, key=lambda ip: (outside[ip], ip))
        most = min(most_listed(price), _MOST_BLOCKS)
        blocks = covering(met, most, price, self._around.inside)
        count = f"{_count(outside)} outside the cluster: too many to list"
        if blocks is None:
            if not self._may(_WORLD):
                peers.selectors |= exact
                return
            peers.selectors.add(_WORLD)
            peers.reasons.append(count)
            peers.over_grant.append(f"any external address for {_count(outside)} seen")
            return
        chosen = {PeerSelector(cidr=cidr) for cidr in blocks.cidrs}
        if not self._may(*sorted(chosen, key=lambda peer: peer.sort_key)):
            peers.selectors |= exact
            return
        peers.selectors |= chosen
        peers.reasons.append(f"{count}, and they lie in {', '.join(blocks.cidrs)}")
        six = any(":" in cidr for cidr in blocks.cidrs)
        unit = "addresses (of IPv6: /64)" if six else "addresses"
        peers.over_grant.append(f"{blocks.admitted} {unit} admitted, {blocks.seen} seen")

    def _shorten(self) -> None:
        """The most used peers, where there are more than a rule can hold."""
        peers, used = self.peers, self._seen.used
        peers.unlisted = len(peers.selectors) - MOST_PEERS
        if peers.unlisted <= 0:
            peers.unlisted = 0
            return
        order = sorted(
            peers.selectors,
            key=lambda p: (p.entity is None and p.namespace is None, -used.get(p, 0), p.sort_key),
        )
        peers.selectors = set(order[:MOST_PEERS])
        peers.reasons.append(
            f"{peers.unlisted} more peers were seen than the {MOST_PEERS} that a rule can list; "
            "the least used are left out: raise the price, or mark less"
        )


def _seen(edges: Sequence[Edge]) -> _Seen:
    seen = _Seen()
    for edge in edges:
        ip, kind = edge.peer.ip, edge.peer.kind
        selector: PeerSelector | None = None
        if kind == PeerKind.NODE:
            seen.nodes.setdefault(edge.peer.workload or ip or "", set()).update([ip] if ip else [])
        elif (workload := workload_of(edge.peer)) is not None:
            selector = PeerSelector(workload=workload)
            seen.workloads.add(workload)
        elif ip is None:
            continue
        elif kind == PeerKind.EXTERNAL:
            seen.outside[ip] = min(edge.first_seen, seen.outside.get(ip, edge.first_seen))
        elif kind == PeerKind.SERVICE:
            seen.services[ip] = edge.peer.namespace
        else:
            seen.unknown.add(ip)
        if selector is None and ip is not None:
            selector = _address(ip)
        if selector is not None:
            seen.used[selector] = seen.used.get(selector, 0) + edge.connections
    return seen


def _count(addresses: Collection[str]) -> str:
    return f"{len(addresses)} address" + ("es" if len(addresses) != 1 else "")


def _address(ip: str) -> PeerSelector:
    try:
        address = ip_address(ip)
    except ValueError:
        raise CaptureError(
            f"peer_ip {ip!r} is not an address",
            place="flows",
            remedy="do not trust this capture: record again",
        ) from None
    return PeerSelector(cidr=f"{address}/{address.max_prefixlen}")
