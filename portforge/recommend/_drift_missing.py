"""What policies in force lack: the rules to add, with evidence, and what is new since. Pure.

Proposes in the shape ``recommend`` gives rules; changes no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from portforge.capture import Window
from portforge.policy import PeerSelector, PortPolicy, Rule, judge
from portforge.recommend._drift_use import enforced, rule_at
from portforge.recommend._edges import Edge, party
from portforge.recommend._marks import Around
from portforge.recommend._options import Options
from portforge.recommend._rules import Learned, learn_rules
from portforge.schema import PeerKind

__all__ = ["Missing", "New", "missing", "new_since"]


@dataclass(frozen=True)
class Missing:
    """A rule to add, or one that lacks ``peers``. ``learned`` is of what is not allowed only."""

    policy: PortPolicy
    what: str
    rule: Rule
    """The whole rule as it should be: the one in force with the peers added, or the new one."""
    peers: tuple[PeerSelector, ...] | None
    """Those to add; None: any."""
    learned: Learned


@dataclass(frozen=True)
class New:
    """Edges of one peer and port first seen after the approval, and what decides them now."""

    edges: tuple[Edge, ...]
    rule: str | None
    decision: str


def missing(
    policy: PortPolicy, needed: Sequence[Edge], now: datetime, options: Options, around: Around
) -> list[Missing]:
    """What the policy would deny of ``needed``, its workload's, at ``now``."""
    judged = enforced(policy)
    denied = [edge for edge in needed if _judge(judged, edge, now)[0] == "denied"]
    found = []
    for learned in learn_rules(denied, frozenset(), options, around):
        if policy.rules(learned.direction) is None:
            continue
        rule = learned.rule
        here = rule_at(policy, learned.direction, rule.protocol, rule.port, now)
        gone = rule_at(policy, learned.direction, rule.protocol, rule.port)
        if here is not None:
            if here.peers is None:
                continue
            fresh = tuple(peer for peer in rule.peers or () if peer not in here.peers)
            if rule.peers is not None and not fresh:
                continue
            peers = None if rule.peers is None else fresh
            whole = here.model_copy(update={"peers": _joined(here.peers, rule.peers)})
            found.append(Missing(policy, "add peers", whole, peers, learned))
        elif gone is not None:
            renewed = rule.model_copy(update={"id": gone.id})
            found.append(Missing(policy, "renew rule", renewed, rule.peers, learned))
        else:
            found.append(Missing(policy, "add rule", rule, rule.peers, learned))
    return found


def new_since(
    policy: PortPolicy, needed: Sequence[Edge], window: Window, now: datetime
) -> list[New]:
    """What was needed after the approval and not before; nothing where no before was recorded."""
    if policy.approval is None or not window.start < policy.approval.at < window.end:
        return []
    judged = enforced(policy)
    groups: dict[tuple[object, ...], list[Edge]] = {}
    for edge in needed:
        groups.setdefault((edge.direction, edge.protocol, edge.port, _who(edge)), []).append(edge)
    found = []
    for edges in groups.values():
        if min(edge.first_seen for edge in edges) > policy.approval.at:
            decision, rule = _judge(judged, edges[0], now)
            found.append(New(tuple(edges), rule, decision))
    return found


def _judge(policy: PortPolicy, edge: Edge, now: datetime | None) -> tuple[str, str | None]:
    said = judge(policy, edge.direction, edge.protocol, edge.port, edge.peer, None, now=now)
    return said.verdict, said.rule


def _joined(
    one: tuple[PeerSelector, ...], other: tuple[PeerSelector, ...] | None
) -> tuple[PeerSelector, ...] | None:
    if other is None:
        return None
    return tuple(sorted({*one, *other}, key=lambda peer: peer.sort_key))


def _who(edge: Edge) -> object:
    """Nodes, and addresses of the cluster that nobody knows, are one peer each: they change."""
    if edge.peer.kind in (PeerKind.NODE, PeerKind.UNKNOWN):
        return str(edge.peer.kind)
    return party(edge.peer)
