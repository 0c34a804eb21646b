"""What the analyst marked as sensitive, and whether a generalisation would cross it. Pure.

A mark names a workload, a namespace, a peer, a port of a protocol, or several of these at once.
A workload or namespace is meant at both ends: it is opened to nobody new, and opened by nobody new.
Where it is not known whether a selector holds what is marked, it does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from portforge.policy import Entity, PeerSelector
from portforge.recommend._decisions import Decision, Verb
from portforge.recommend._edges import Edge, workload_of
from portforge.schema import PeerKind, Workload

__all__ = ["Around", "Marks", "around_of", "names_meet"]

_KINDS = {
    Entity.NODE: {PeerKind.NODE},
    Entity.CLUSTER: {PeerKind.WORKLOAD, PeerKind.SERVICE, PeerKind.NODE, PeerKind.UNKNOWN},
    Entity.WORLD: {PeerKind.EXTERNAL},
}


class Marks:
    """The decisions that mark something, of all that were taken.

    Parameters
    ----------
    inside: addresses of the cluster. Whose one is, is not always known: it may be a marked pod's.
    """

    def __init__(
        self, decisions: Iterable[Decision] = (), inside: Collection[str] = frozenset()
    ) -> None:
        self._inside = inside
        self._marks = [one for one in decisions if one.decision == Verb.SENSITIVE]

    def crossed(
        self,
        workload: Workload,
        protocol: str,
        ports: tuple[int, int],
        selectors: Iterable[PeerSelector] | None,
    ) -> Decision | None:
        """The first mark that holds some peer of ``selectors`` (None: any) on some of ``ports``."""
        chosen = None if selectors is None else list(selectors)
        for mark in self._about(workload, protocol, ports):
            if chosen is None or any(self._holds(mark, workload, peer) for peer in chosen):
                return mark
        return None

    def ports(self, workload: Workload, protocol: str) -> set[int]:
        """The single ports that some mark is about at this workload."""
        return {
            mark.port
            for mark in self._about(workload, protocol, (1, 65535))
            if mark.port is not None
        }

    def _about(
        self, workload: Workload, protocol: str, ports: tuple[int, int]
    ) -> Iterator[Decision]:
        for mark in self._marks:
            if mark.protocol is not None and mark.protocol != protocol:
                continue
            if mark.port is not None and not ports[0] <= mark.port <= ports[1]:
                continue
            # With a peer of its own, the workload or namespace is the one that the rule is for.
            if mark.peer is not None and not _is_one(mark, workload):
                continue
            yield mark

    def _holds(self, mark: Decision, workload: Workload, selector: PeerSelector) -> bool:
        marked = mark.peer
        if marked is not None and (marked.cidr is not None or marked.entity is not None):
            return _overlap(marked, selector)
        if marked is None and _is_one(mark, workload):
            return True
        # It is somebody else: the peer. Addresses outside are no workload.
        if selector.workload is not None or selector.namespace is not None:
            return names_meet(marked or _as_peer(mark), selector)
        return selector.entity == Entity.CLUSTER or self._pods(selector.cidr)

    def _pods(self, cidr: str | None) -> bool:
        if cidr is None:
            return False
        network = ip_network(cidr)
        if network.num_addresses == 1:
            return str(network.network_address) in self._inside
        return any(ip_address(ip) in network for ip in self._inside)


def names_meet(one: PeerSelector, other: PeerSelector) -> bool:
    """Whether both name a workload or a namespace, and some workload is meant by both.

    >>> team = PeerSelector(namespace="team-b")
    >>> names_meet(team, PeerSelector(workload=Workload("team-b", "Deployment", "web")))
    True
    >>> names_meet(team, PeerSelector(namespace="team-c"))
    False
    """
    home = _home(one)
    if home is None or home != _home(other):
        return False
    return None in (one.workload, other.workload) or one.workload == other.workload


def _home(selector: PeerSelector) -> str | None:
    """The namespace that it names, or whose workload it names."""
    return selector.workload.namespace if selector.workload else selector.namespace


def _as_peer(mark: Decision) -> PeerSelector:
    """The workload or the namespace that is marked, as a peer of others."""
    return PeerSelector(workload=mark.workload, namespace=mark.namespace)


def _is_one(mark: Decision, workload: Workload) -> bool:
    return (mark.workload is None or mark.workload == workload) and (
        mark.namespace is None or mark.namespace == workload.namespace
    )


def _overlap(marked: PeerSelector, selector: PeerSelector) -> bool:
    if marked.cidr is not None and selector.cidr is not None:
        return ip_network(marked.cidr).overlaps(ip_network(selector.cidr))
    if marked.entity is not None and selector.entity is not None:
        return not _KINDS[marked.entity].isdisjoint(_KINDS[selector.entity])
    if selector.workload is not None or selector.namespace is not None:
        # A block of addresses may hold its pods.
        return marked.entity in (None, Entity.CLUSTER)
    return True


@dataclass(frozen=True)
class Around:
    """What the rules of one workload must know of the cluster around it.

    Parameters
    ----------
    inside: the cluster's own addresses; no block of addresses outside may hold one.
    nodes: how many nodes the capture knows.
    workloads: of each namespace, the workloads that the capture knows: by what they did, or as
        somebody's peer. One that never had traffic in the window is not among them.
    """

    inside: frozenset[str] = frozenset()
    nodes: int = 0
    marks: Marks = Marks()  # noqa: RUF009
    workloads: Mapping[str, Collection[Workload]] = field(default_factory=dict)


def around_of(edges: Iterable[Edge], nodes: Iterable[str], decisions: Iterable[Decision]) -> Around:
    """From all edges of the window, and the nodes on which pods were seen."""
    outside = (PeerKind.EXTERNAL, PeerKind.LOOPBACK)
    inside, names = set(), set(nodes)
    workloads: defaultdict[str, set[Workload]] = defaultdict(set)
    for edge in edges:
        for known in (edge.workload, workload_of(edge.peer)):
            if known is not None and known.kind != "Node":
                workloads[known.namespace].add(known)
        if edge.peer.ip and edge.peer.kind not in outside:
            inside.add(edge.peer.ip)
        if edge.peer.kind == PeerKind.NODE and edge.peer.workload:
            names.add(edge.peer.workload)
    return Around(frozenset(inside), len(names), Marks(decisions, inside), dict(workloads))
