"""Find one-sided answers: a source that got next to nothing out of a workload, and did not return.

A scan too short for the thresholds of ``_scans`` looks like this. So does a real call that says
little: one is told by coming back, or by a service whose other callers say as little. Health
checks come back; those of the pod's own node never reach this place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from portforge.recommend._edges import Edge, Party, party
from portforge.recommend._hours import Hours
from portforge.recommend._options import Options
from portforge.schema import Direction, PeerKind

__all__ = ["ends", "find_one_sided", "is_probe"]

_SOME_HOURS, _MANY_HOURS, _PODS, _CONNECTIONS = 3, 6, 2, 10
"""A caller comes back: in 3 hours from 2 pods, in 6 hours from one, or with 10 connections.

A scanner asks a port once or twice. Hours and pods are those of ``medium`` and ``high``
confidence in the evidence."""

_Port = tuple[Party, str, int]
_OUTSIDE: Party = ("outside",)


@dataclass
class _Use:
    """What one source did on one port of a target."""

    connections: int = 0
    small: bool = True
    hours: Hours = field(default_factory=Hours)
    pods: set[str] = field(default_factory=set)
    """Of the source; its addresses, where only the target's record is there."""

    def add(self, edge: Edge, options: Options) -> None:
        # No connection opened: one that is older than the recorder, and no probe.
        self.small &= edge.connections > 0 and is_probe(edge, options)
        self.connections += edge.connections
        self.hours |= edge.hours
        incoming = edge.direction == Direction.INGRESS
        self.pods.update([edge.peer.ip] if incoming and edge.peer.ip else edge.pods)

    @property
    def returns(self) -> bool:
        hours = len(self.hours)
        several = hours >= _SOME_HOURS and len(self.pods) >= _PODS
        return several or hours >= _MANY_HOURS or self.connections >= _CONNECTIONS


def ends(edge: Edge) -> tuple[Party, Party] | None:
    """Source and target; None where one is not known."""
    peer = party(edge.peer)
    if edge.workload is None or peer is None:
        return None
    me: Party = tuple(edge.workload)
    return (peer, me) if edge.direction == Direction.INGRESS else (me, peer)


def is_probe(edge: Edge, options: Options) -> bool:
    """Not answered, or with next to no payload."""
    return not edge.answered or edge.bytes <= options.probe_bytes * edge.connections


def find_one_sided(edges: Iterable[Edge], options: Options) -> frozenset[tuple[Party, Party]]:
    """Pairs of source and target whose every answered connection is a probe, and of no service.

    Parameters
    ----------
    edges: of both ends, in which a source and a target may both be recorders of the same call.
    """
    incoming: defaultdict[tuple[Party, _Port], _Use] = defaultdict(_Use)
    outgoing: defaultdict[tuple[Party, _Port], _Use] = defaultdict(_Use)
    shared: defaultdict[tuple[Party, _Port], _Use] = defaultdict(_Use)
    for edge in edges:
        if not edge.answered or not _told_apart(edge) or (both := ends(edge)) is None:
            continue
        source, target = both
        egress = edge.direction == Direction.EGRESS
        port = (target, str(edge.protocol), (egress and edge.target_port) or edge.port)
        (outgoing if egress else incoming)[source, port].add(edge, options)
        if edge.peer.kind == PeerKind.EXTERNAL:
            shared[_OUTSIDE, port].add(edge, options)
    # Both ends count the same connection: the records are looked at one by one, not added up.
    records = (incoming, outgoing, shared)
    small_services = _small_services(records)
    pairs: dict[tuple[Party, Party], bool] = {}
    for record in (incoming, outgoing):
        for (source, port), use in record.items():
            pair = (source, port[0])
            probed = use.small and not use.returns and port not in small_services
            pairs[pair] = pairs.get(pair, True) and probed
    return frozenset(pair for pair, probed in pairs.items() if probed)


def _told_apart(edge: Edge) -> bool:
    """Whether the target is a workload and the source one, or an address outside.

    Nodes stand for many callers (load balancers check health through them), and an unknown
    address may be any pod of a workload that really calls.
    """
    kinds = (PeerKind.WORKLOAD, PeerKind.SERVICE)
    if edge.direction == Direction.INGRESS:
        kinds = (PeerKind.WORKLOAD, PeerKind.EXTERNAL)
    named = edge.peer.kind == PeerKind.EXTERNAL or edge.peer.workload is not None
    return edge.peer.kind in kinds and named


def _small_services(
    records: Iterable[dict[tuple[Party, _Port], _Use]],
) -> frozenset[_Port]:
    """Ports whose callers that come back all say as little as a probe does."""
    regular: defaultdict[_Port, list[bool]] = defaultdict(list)
    for record in records:
        for (_, port), use in record.items():
            if use.returns or not use.small:
                regular[port].append(use.small)
    return frozenset(port for port, small in regular.items() if all(small))
