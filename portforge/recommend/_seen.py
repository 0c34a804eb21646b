"""What is known of one workload in the window: which ports and peers of its rules were seen, and
when. Judges nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network

from portforge.policy import Entity
from portforge.recommend._edges import Edge, party, workload_of
from portforge.recommend._findings import Left
from portforge.recommend._hours import Hours
from portforge.recommend._lifecycle import Life
from portforge.recommend._rules import Learned
from portforge.schema import Direction, PeerKind, Protocol

__all__ = ["WITH", "Found", "Items", "Seen", "items_of"]


@dataclass(frozen=True)
class Seen:
    """All that is known of one workload in the window."""

    rules: Sequence[Learned]
    left: Sequence[Left]
    life: Life
    decided: frozenset[Edge] = frozenset()
    """Learned because the analyst said so: no estimate rests on them."""
    unrestarted: Sequence[str] = ()
    """The other workloads of its namespace that no restart was seen of."""


@dataclass
class Found:
    """One port or one peer of a port: the hours it was seen in, and since when."""

    hours: Hours
    first_seen: datetime


Items = dict[str, Found]


def items_of(seen: Seen, direction: Direction) -> tuple[Items, Items]:
    """The ports, and the peers on them, that were seen and that one direction's rules grant."""
    ports: Items = {}
    peers: Items = {}
    # DNS over TCP is granted with DNS over UDP: the day a long answer comes, it is nothing new.
    asks = any(r.direction == direction and _is_dns(r) for r in seen.rules)
    for learned in seen.rules:
        if learned.direction != direction:
            continue
        port = f"{learned.rule.protocol} {learned.rule.ports}"
        if learned.rule.port == _DNS and asks:
            port = f"{Protocol.UDP} {_DNS}"
        for edge in learned.edges:
            if edge in seen.decided:
                continue
            _add(ports, port, edge)
            if (peer := _granted(learned, edge)) is not None:
                _add(peers, f"{port} {WITH[direction]} {peer}", edge)
    return ports, peers


def _is_dns(learned: Learned) -> bool:
    return learned.rule.protocol == Protocol.UDP and learned.rule.port == _DNS


_DNS = 53
WITH = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def _add(items: Items, name: str, edge: Edge) -> None:
    found = items.setdefault(name, Found(Hours(), edge.first_seen))
    found.hours |= edge.hours
    found.first_seen = min(found.first_seen, edge.first_seen)


def _granted(learned: Learned, edge: Edge) -> str | None:
    """What of the rule lets this edge's peer in: another one of that is no news."""
    entities = {peer.entity for peer in learned.rule.peers or ()}
    kinds = {
        PeerKind.NODE: Entity.NODE,
        PeerKind.UNKNOWN: Entity.CLUSTER,
        PeerKind.EXTERNAL: Entity.WORLD,
    }
    entity = kinds.get(edge.peer.kind)
    if entity is not None and entity in entities:
        return str(entity)
    if edge.peer.kind == PeerKind.EXTERNAL and edge.peer.ip:
        address = ip_address(edge.peer.ip)
        for block in (ip_network(p.cidr) for p in learned.rule.peers or () if p.cidr is not None):
            if address in block and block.num_addresses > 1:
                return str(block)
    owner = workload_of(edge.peer)
    for peer in learned.rule.peers or ():
        if owner is not None and peer.namespace == owner.namespace:
            return str(peer)
    who = party(edge.peer)
    return None if who is None else "/".join(who)
