"""Sort edges into what may be learned and what is left out, with the reason. Writes no rules.

Only what came about is learned: a TCP handshake completed, a UDP packet delivered to a socket
(ingress) or answered (egress). An edge that was there before the recorder has no connections but
bytes, and is learned as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from portforge.recommend._beacons import Beacon
from portforge.recommend._edges import Edge, Party, party
from portforge.recommend._findings import KINDS, ONLY_INSIDE, Left
from portforge.recommend._first_time import find_first_time
from portforge.recommend._options import Options
from portforge.recommend._scans import Scans, find_scans
from portforge.schema import Direction, PeerKind, Protocol, Verdict

__all__ = ["sort_edges"]

_BY_VERDICT = {
    Verdict.DENIED: "denied",
    Verdict.REFUSED: "refused",
    Verdict.FAILED: "failed",
}
_JUDGED = (Protocol.TCP, Protocol.UDP)
_NONE: Mapping[Edge, Beacon] = MappingProxyType({})


def sort_edges(
    edges: list[Edge], options: Options, beacons: Mapping[Edge, Beacon] = _NONE
) -> tuple[list[Edge], list[Left]]:
    """The edges that may become rules, and those left out.

    Parameters
    ----------
    edges: all edges of the window, also those of workloads nobody asked about: whether a UDP
        packet arrived, and who scans, is known from the other end's record too.
    beacons: those found among them; see ``_beacons``.
    """
    scans = find_scans(edges, options)
    silent = _Silent(edges)
    learned: list[Edge] = []
    left: list[Left] = []
    for edge in edges:
        found = _why_not(edge, scans, silent)
        if found is None:
            learned.append(edge)
        elif found[0] != "listening":
            left.append(Left(edge, *found))
    regular = {edge: beacons[edge].reason for edge in learned if _strong(beacons.get(edge))}
    left += [Left(edge, "beacon", reason) for edge, reason in regular.items()]
    learned = [edge for edge in learned if edge not in regular]
    first = find_first_time(learned, options)
    left += [Left(edge, "first_time", reason) for edge, reason in first.items()]
    learned = [edge for edge in learned if edge not in first]
    return learned, left + _listeners(edges, learned, options)


def _strong(beacon: Beacon | None) -> bool:
    return beacon is not None and beacon.strong


def _why_not(edge: Edge, scans: Scans, silent: _Silent) -> tuple[str, str] | None:
    """Kind of finding and reason; None where the edge may be learned."""
    kind: str | None = None
    if edge.workload is None:
        kind = "unattributed"
    elif edge.workload.kind == "Node":
        kind = "host_network"
    elif edge.peer.kind == PeerKind.LOOPBACK:
        kind = "loopback"
    elif edge.protocol not in _JUDGED:
        kind = "unjudged_protocol"
    elif edge.verdict == Verdict.LISTENING:
        kind = "listening"
    if kind is not None:
        return kind, KINDS.get(kind, "")
    if scan := scans.why(edge):
        return "scan", scan
    if scans.one_sided_answer(edge):
        return "one_sided", (
            "answered with next to nothing, seldom, and nothing else came of it; decide learn if "
            "it is a call that is needed"
        )
    if edge.verdict in _BY_VERDICT:
        kind = _BY_VERDICT[edge.verdict]
    elif edge.port == 0:
        kind = "port_zero"
    elif edge.own_node and edge.direction == Direction.INGRESS:
        kind = "own_node"
    elif silent.includes(edge):
        return "unanswered", (
            "UDP sent, nothing came back in the whole window; add a rule by hand if the peer "
            "only listens (syslog, statsd)"
        )
    return None if kind is None else (kind, KINDS[kind])


class _Silent:
    """UDP egress that nothing ever answered, and that the peer's own record does not show."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._received: defaultdict[tuple[object, ...], int] = defaultdict(int)
        self._delivered: set[tuple[Party, int, Party | None]] = set()
        for edge in edges:
            if edge.protocol != Protocol.UDP or not edge.answered or edge.workload is None:
                continue
            if edge.direction == Direction.EGRESS:
                self._received[self._key(edge)] += edge.bytes_received
            else:
                source = party(edge.peer)
                known = source if source is not None and len(source) == 3 else None
                self._delivered.add((tuple(edge.workload), edge.port, known))

    @staticmethod
    def _key(edge: Edge) -> tuple[object, ...]:
        return (edge.workload, edge.port, party(edge.peer))

    def includes(self, edge: Edge) -> bool:
        if edge.protocol != Protocol.UDP or edge.direction != Direction.EGRESS:
            return False
        if self._received[self._key(edge)] > 0:
            return False
        target = party(edge.peer)
        if target is None or edge.workload is None:
            return True
        ports = {edge.port, edge.target_port} - {None}
        sources: tuple[Party | None, ...] = (tuple(edge.workload), None)
        return not any((target, p, s) in self._delivered for p in ports for s in sources)


def _listeners(edges: list[Edge], learned: list[Edge], options: Options) -> list[Left]:
    """Listeners that no answered connection used. Probes of the own node are no use."""
    used = {(e.workload, e.protocol, e.port) for e in learned if e.direction == Direction.INGRESS}
    probed = {(e.workload, e.protocol, e.port) for e in edges if e.own_node and e.answered}
    local = {
        (e.workload, e.protocol, e.port)
        for e in edges
        if e.peer.kind == PeerKind.LOOPBACK and e.answered
    }
    found = []
    for edge in edges:
        key = (edge.workload, edge.protocol, edge.port)
        if (
            edge.verdict != Verdict.LISTENING
            or edge.workload is None
            or edge.workload.kind == "Node"
            or edge.peer.kind == PeerKind.LOOPBACK
            or edge.protocol not in _JUDGED
            or key in used
        ):
            continue
        if edge.protocol == Protocol.UDP and edge.port >= options.ephemeral_port:
            found.append(Left(edge, "ephemeral_socket", KINDS["ephemeral_socket"]))
        elif key in probed:
            found.append(Left(edge, "unused_listener", "only the pod's own node used it (probes)"))
        elif key in local:
            found.append(Left(edge, "unused_listener", ONLY_INSIDE))
        else:
            found.append(Left(edge, "unused_listener", KINDS["unused_listener"]))
    return found
