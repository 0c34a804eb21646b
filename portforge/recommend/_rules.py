"""From the learned edges of one workload to its rules, one per direction, protocol and port.

Each rule comes with its evidence: what was seen, what the rule grants beyond it, and why it has
the shape it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from portforge.policy import PeerSelector, Rule
from portforge.policy._model import MOST_PEERS
from portforge.recommend._decisions import Decision
from portforge.recommend._edges import Edge, peer_text
from portforge.recommend._findings import Left
from portforge.recommend._marks import Around
from portforge.recommend._options import Options
from portforge.recommend._peers import named, select_peers
from portforge.schema import Direction, Protocol, Verdict

__all__ = [
    "Learned",
    "any_peer_crosses",
    "learn_range",
    "learn_rules",
    "ordered",
    "peers_seen",
    "withheld",
]

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
    unlisted: int = 0
    """Peers that were seen and that the rule has no room for."""


def learn_rules(
    edges: Iterable[Edge],
    listeners: frozenset[tuple[str, int]],
    options: Options,
    around: Around | None = None,
) -> list[Learned]:
    """The rules of one workload, sorted.

    An edge has no rule where its peers were lost and a mark forbids to admit any peer.

    Parameters
    ----------
    edges: its learned edges.
    listeners: (protocol, port) on which it listens.
    """
    around = around or Around()
    groups: defaultdict[tuple[Direction, Protocol, int], list[Edge]] = defaultdict(list)
    for edge in edges:
        groups[edge.direction, edge.protocol, edge.port].append(edge)
    made = {key: _rule(key, group, options, around) for key, group in groups.items()}
    rules = {key: rule for key, rule in made.items() if rule is not None}
    for direction in Direction:
        if extra := _dns_over_tcp(direction, rules, listeners, options, around):
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
    around: Around,
) -> Learned | None:
    """One rule over ``first`` to ``last`` for edges of one direction and protocol.

    The last entry of its ``over_grant`` compares the ports admitted with those seen.
    """
    direction, protocol = edges[0].direction, edges[0].protocol
    made = _rule((direction, protocol, first), edges, options, around)
    if made is None:
        return None
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
    around: Around,
) -> Learned | None:
    direction, protocol, port = key
    peers = select_peers(edges, options, around)
    lost = [edge for edge in edges if edge.peer.ip is None and not named(edge)]
    if not peers.selectors:
        lost = edges
    if lost:
        count = sum(edge.connections for edge in lost)
        if peers.selectors:
            peers.reasons.append(f"the peer of {count} connections was lost: peers may be missing")
        elif any_peer_crosses(edges[0], around):
            return None
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
        unlisted=peers.unlisted,
    )


def any_peer_crosses(edge: Edge, around: Around) -> Decision | None:
    """The mark that forbids a rule for any peer, where the edge's own was lost."""
    assert edge.workload is not None  # noqa: S101  rules are made of workloads' edges
    return around.marks.crossed(edge.workload, edge.protocol, (edge.port, edge.port), None)


def _rule_id(direction: Direction, protocol: str, port: int) -> str:
    return f"{'in' if direction == Direction.INGRESS else 'out'}-{protocol.lower()}-{port}"


def _dns_over_tcp(
    direction: Direction,
    rules: dict[tuple[Direction, Protocol, int], Learned],
    listeners: frozenset[tuple[str, int]],
    options: Options,
    around: Around,
) -> Learned | None:
    """TCP 53 beside UDP 53: an answer too long for UDP is asked for again over TCP (RFC 7766)."""
    over_udp = rules.get((direction, Protocol.UDP, _DNS))
    if over_udp is None or not options.price:
        return None
    over_udp = _unmarked(over_udp, around)
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


def _unmarked(over_udp: Learned, around: Around) -> Learned | None:
    """With the peers that may be admitted over TCP, too; None where none is left."""
    workload, peers = over_udp.edges[0].workload, over_udp.rule.peers
    assert workload is not None  # noqa: S101  rules are made of workloads' edges

    def crossed(some: Iterable[PeerSelector] | None) -> bool:
        mark = around.marks.crossed(workload, Protocol.TCP, (_DNS, _DNS), some)
        return mark is not None

    if peers is None:
        return None if crossed(None) else over_udp
    kept = tuple(peer for peer in peers if not crossed([peer]))
    rule = over_udp.rule.model_copy(update={"peers": kept})
    return replace(over_udp, rule=rule) if kept else None


def _with_peers_of(over_udp: Learned, over_tcp: Learned) -> Learned:
    """TCP 53 as seen, and for everybody who asks over UDP: nobody knows whose answer is long."""
    asked, seen = over_udp.rule.peers, over_tcp.rule.peers
    if seen is None or asked is None or set(asked) <= set(seen):
        return over_tcp
    more = len(set(asked) - set(seen))
    if len(seen) + more > MOST_PEERS:
        return over_tcp
    return replace(
        over_tcp,
        rule=over_tcp.rule.model_copy(
            update={"peers": tuple(sorted({*seen, *asked}, key=lambda peer: peer.sort_key))}
        ),
        reasons=(*over_tcp.reasons, "with the peers of UDP 53: long DNS answers come over TCP"),
        over_grant=(*over_tcp.over_grant, f"TCP 53 with {more} peers of UDP 53, unseen"),
    )


def withheld(left: list[Left], rules: Iterable[Learned], around: Around) -> list[Left]:
    """``left``, with the lost peers for which a mark forbade a rule no longer called learned."""
    if not any(one.kind == "lost_peer" for one in left):
        return left
    written = {edge for rule in rules for edge in rule.edges}
    made = []
    for one in left:
        lost = one.kind == "lost_peer" and one.learned and one.edge not in written
        mark = any_peer_crosses(one.edge, around) if lost else None
        reason = f"the peer was lost, and any peer is not let in: {mark}"
        made.append(one if mark is None else replace(one, reason=reason, learned=False))
    return made


def peers_seen(learned: Learned) -> str:
    """The peers behind a rule in one line; of a rule nobody used, the peers it names."""
    if not learned.edges:
        return ", ".join(map(str, learned.rule.peers or ()))
    texts = sorted({peer_text(edge.peer, edge.peer_names) for edge in learned.edges})
    more = len(texts) - _SHOWN_PEERS
    return ", ".join(texts[:_SHOWN_PEERS]) + (f" and {more} more" if more > 0 else "")
