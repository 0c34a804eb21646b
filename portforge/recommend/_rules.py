"""From the learned edges of one workload to its rules, one per direction, protocol and port.

Each rule comes with its evidence: what was seen, what the rule grants beyond it, and why it has
the shape it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address

from portforge.errors import CaptureError
from portforge.policy import Entity, PeerSelector, Rule
from portforge.recommend._blocks import covering
from portforge.recommend._edges import Edge, peer_text
from portforge.recommend._options import Options
from portforge.schema import Direction, PeerKind, Protocol, Verdict, Workload

__all__ = ["Learned", "learn_range", "learn_rules", "ordered", "peers_seen"]

_DNS = 53
_SHOWN_PEERS = 20


@dataclass(frozen=True)
class Learned:
    """A rule, the edges behind it, and what to say about it."""

    direction: Direction
    rule: Rule
    edges: tuple[Edge, ...]
    reasons: tuple[str, ...] = ()
    over_grant: tuple[str, ...] = ()
    assumed: bool = False
    """Not seen in this shape: added by knowledge, or open to any peer since none was kept."""


@dataclass
class _Peers:
    """The selectors of one rule, collected."""

    selectors: set[PeerSelector] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    over_grant: list[str] = field(default_factory=list)


def learn_rules(
    edges: Iterable[Edge],
    listeners: frozenset[tuple[str, int]],
    options: Options,
    inside: frozenset[str] = frozenset(),
) -> list[Learned]:
    """The rules of one workload, sorted.

    Parameters
    ----------
    edges: its learned edges.
    listeners: (protocol, port) on which it listens.
    inside: the cluster's own addresses; no block of addresses outside may hold one.
    """
    groups: defaultdict[tuple[Direction, Protocol, int], list[Edge]] = defaultdict(list)
    for edge in edges:
        groups[edge.direction, edge.protocol, edge.port].append(edge)
    rules = {key: _rule(key, group, options, inside) for key, group in groups.items()}
    for direction in Direction:
        if extra := _dns_over_tcp(direction, rules, listeners):
            rules[direction, Protocol.TCP, _DNS] = extra
    return ordered(rules.values())


def ordered(rules: Iterable[Learned]) -> list[Learned]:
    """By direction, protocol and port."""
    order = list(Direction)
    return sorted(rules, key=lambda r: (order.index(r.direction), r.rule.protocol, r.rule.port))


def learn_range(
    first: int,
    last: int,
    edges: list[Edge],
    options: Options,
    inside: frozenset[str] = frozenset(),
) -> Learned:
    """One rule over ``first`` to ``last`` for edges of one direction and protocol.

    The last entry of its ``over_grant`` compares the ports admitted with those seen.
    """
    direction, protocol = edges[0].direction, edges[0].protocol
    made = _rule((direction, protocol, first), edges, options, inside)
    name = f"{_rule_id(direction, protocol, first)}-{last}"
    seen, admitted = len({edge.port for edge in edges}), last - first + 1
    return replace(
        made,
        rule=made.rule.model_copy(update={"id": name, "end_port": last}),
        reasons=("a proposed range for ports that change from session to session", *made.reasons),
        over_grant=(*made.over_grant, f"{admitted} ports admitted, {seen} seen"),
    )


def _rule(
    key: tuple[Direction, Protocol, int],
    edges: list[Edge],
    options: Options,
    inside: frozenset[str],
) -> Learned:
    direction, protocol, port = key
    peers = _select(edges, options, inside)
    lost = [edge for edge in edges if edge.peer.ip is None and not _named(edge)]
    if lost:
        count = sum(edge.connections for edge in lost)
        if peers.selectors:
            peers.reasons.append(f"the peer of {count} connections was lost: peers may be missing")
        else:
            peers.reasons.append(f"the peers of all {count} connections were lost: any peer")
            peers.over_grant.append("any peer, none is known")
    targets = sorted({e.target_port for e in edges if e.target_port not in (None, e.port)})
    if targets:
        peers.reasons.append(f"the Service sends it on to port {', '.join(map(str, targets))}")
    if not sum(edge.connections for edge in edges):
        peers.reasons.append("open since before the recorder started")
    if any(edge.verdict == Verdict.AUDITED for edge in edges):
        peers.reasons.append("the policy of then would have denied it")
    rule = Rule(
        id=_rule_id(direction, protocol, port),
        protocol=protocol,
        port=port,
        peers=tuple(peers.selectors) or None,
    )
    return Learned(
        direction,
        rule,
        tuple(edges),
        tuple(peers.reasons),
        tuple(peers.over_grant),
        assumed=not peers.selectors,
    )


def _rule_id(direction: Direction, protocol: str, port: int) -> str:
    return f"{'in' if direction == Direction.INGRESS else 'out'}-{protocol.lower()}-{port}"


def _named(edge: Edge) -> bool:
    peer = edge.peer
    return peer.kind == PeerKind.NODE or (
        peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE)
        and None not in (peer.namespace, peer.workload_kind, peer.workload)
    )


def _select(edges: list[Edge], options: Options, inside: frozenset[str]) -> _Peers:
    peers = _Peers()
    external: dict[str, datetime] = {}
    nodes: set[str] = set()
    unknown: set[str] = set()
    for edge in edges:
        ip, kind, namespace, owner, name = edge.peer
        if kind == PeerKind.NODE:
            nodes.add(name or ip or "")
        elif _named(edge) and namespace and owner and name:
            peers.selectors.add(PeerSelector(workload=Workload(namespace, owner, name)))
        elif ip is None:
            continue
        elif kind == PeerKind.EXTERNAL:
            external[ip] = min(edge.first_seen, external.get(ip, edge.first_seen))
        elif kind == PeerKind.SERVICE:
            peers.selectors.add(_address(ip))
            peers.reasons.append(f"{ip} is a Service without one known workload behind it")
        else:
            unknown.add(ip)
    if nodes:
        peers.selectors.add(PeerSelector(entity=Entity.NODE))
        peers.over_grant.append(f"every node; seen: {', '.join(sorted(nodes))}")
    if unknown:
        peers.selectors.add(PeerSelector(entity=Entity.CLUSTER))
        peers.reasons.append(f"{_count(unknown)} of the cluster belong to no known workload")
        peers.over_grant.append(f"the whole cluster for {_count(unknown)}")
    if len(external) > options.max_addresses:
        _outside(peers, external, options, inside)
    else:
        peers.selectors.update(_address(ip) for ip in external)
    return peers


def _outside(
    peers: _Peers, external: dict[str, datetime], options: Options, inside: frozenset[str]
) -> None:
    """Too many addresses to list, with the time each was met first: blocks, or all the world."""
    for ip in external:
        _address(ip)
    met = sorted(external, key=lambda ip: (external[ip], ip))
    blocks = covering(met, options.max_addresses, options.address_price, inside)
    count = f"{_count(external)} outside the cluster: too many to list"
    if blocks is None:
        peers.selectors.add(PeerSelector(entity=Entity.WORLD))
        peers.reasons.append(count)
        peers.over_grant.append(f"any external address for {_count(external)} seen")
        return
    peers.selectors.update(PeerSelector(cidr=cidr) for cidr in blocks.cidrs)
    peers.reasons.append(f"{count}, and they lie in {', '.join(blocks.cidrs)}")
    unit = "addresses (of IPv6: /64)" if any(":" in cidr for cidr in blocks.cidrs) else "addresses"
    peers.over_grant.append(f"{blocks.admitted} {unit} admitted, {blocks.seen} seen")


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


def _dns_over_tcp(
    direction: Direction,
    rules: dict[tuple[Direction, Protocol, int], Learned],
    listeners: frozenset[tuple[str, int]],
) -> Learned | None:
    """TCP 53 beside UDP 53: an answer too long for UDP is asked for again over TCP (RFC 7766)."""
    over_udp = rules.get((direction, Protocol.UDP, _DNS))
    if over_udp is None:
        return None
    if over_tcp := rules.get((direction, Protocol.TCP, _DNS)):
        return _with_peers_of(over_udp, over_tcp)
    if direction == Direction.INGRESS and (Protocol.TCP, _DNS) not in listeners:
        return None
    peers = over_udp.rule.peers
    who = "any peer" if peers is None else f"{len(peers)} peer" + ("s" if len(peers) != 1 else "")
    return Learned(
        direction,
        Rule(
            id=_rule_id(direction, Protocol.TCP, _DNS),
            protocol=Protocol.TCP,
            port=_DNS,
            peers=peers,
        ),
        (),
        ("not seen; added because DNS answers too long for UDP come over TCP",),
        (f"TCP 53 with {who}, unseen",),
        assumed=True,
    )


def _with_peers_of(over_udp: Learned, over_tcp: Learned) -> Learned:
    """TCP 53 as seen, and for everybody who asks over UDP: nobody knows whose answer is long."""
    asked, seen = over_udp.rule.peers, over_tcp.rule.peers
    if seen is None or asked is None or set(asked) <= set(seen):
        return over_tcp
    more = len(set(asked) - set(seen))
    return replace(
        over_tcp,
        rule=over_tcp.rule.model_copy(
            update={"peers": tuple(sorted({*seen, *asked}, key=lambda peer: peer.sort_key))}
        ),
        reasons=(*over_tcp.reasons, "with the peers of UDP 53: long DNS answers come over TCP"),
        over_grant=(*over_tcp.over_grant, f"TCP 53 with {more} peers of UDP 53, unseen"),
    )


def peers_seen(learned: Learned) -> str:
    """The peers behind a rule in one line; of a rule nobody used, the peers it names."""
    if not learned.edges:
        return ", ".join(map(str, learned.rule.peers or ()))
    texts = sorted({peer_text(edge.peer, edge.peer_names) for edge in learned.edges})
    more = len(texts) - _SHOWN_PEERS
    return ", ".join(texts[:_SHOWN_PEERS]) + (f" and {more} more" if more > 0 else "")
