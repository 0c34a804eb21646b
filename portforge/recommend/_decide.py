"""Apply the analyst's decisions: to what was sorted, and to the rules made of it. Pure.

``learn`` overrules what was kept out because it was scanned, a regular call, a first contact,
answered one-sidedly, refused, failed, denied, unanswered or on a port that changes. ``never``
removes; where both match, ``never`` wins. ``sensitive`` is only counted: see ``_marks``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from portforge.capture._times import iso
from portforge.policy import PeerSelector
from portforge.recommend._decisions import Decision, Verb
from portforge.recommend._edges import Edge
from portforge.recommend._findings import KINDS, Left
from portforge.recommend._marks import names_meet
from portforge.recommend._rules import Learned

__all__ = ["Decided", "decide", "decide_rules"]

_LEARNABLE = frozenset(
    {"scan", "beacon", "first_time", "one_sided", "denied", "refused", "failed", "unanswered"}
)


@dataclass(frozen=True)
class Decided:
    """What is learned and left after the decisions, and what each of them matched.

    ``edges``: those that ``learn`` is about, with the decision's words; also where they would
    have been learned anyway.
    """

    learned: list[Edge]
    left: list[Left]
    edges: dict[Edge, str]
    matched: dict[Decision, int]

    def report(self) -> list[dict[str, Any]]:
        """One entry for each decision; ``edges`` 0: it was about nothing in the window."""
        return [
            {
                "namespace": one.workload.namespace if one.workload else one.namespace,
                "workload_kind": one.workload.kind if one.workload else None,
                "workload": one.workload.name if one.workload else None,
                "direction": None if one.direction is None else str(one.direction),
                "protocol": None if one.protocol is None else str(one.protocol),
                "port": one.port,
                "peer": None if one.peer is None else str(one.peer),
                "decision": str(one.decision),
                "by": one.by,
                "reason": one.reason,
                "at": iso(one.at),
                "edges": count,
            }
            for one, count in self.matched.items()
        ]


def decide(learned: list[Edge], left: list[Left], decisions: Sequence[Decision]) -> Decided:
    """The sorted edges, with the decisions applied."""
    matched = dict.fromkeys(decisions, 0)
    if not decisions:
        return Decided(learned, left, {}, matched)

    def ruling(edge: Edge) -> Decision | None:
        found = [one for one in decisions if one.matches(edge)]
        for one in found:
            matched[one] += 1
        found = [one for one in found if one.decision != Verb.SENSITIVE]
        return min(found, key=lambda one: one.decision == Verb.LEARN, default=None)

    kept: list[Edge] = []
    out: list[Left] = []
    edges: dict[Edge, str] = {}
    for edge in learned:
        said = ruling(edge)
        if said is not None and said.decision == Verb.NEVER:
            out.append(Left(edge, "never", KINDS["never"], decision=str(said)))
            continue
        kept.append(edge)
        if said is not None:
            edges[edge] = str(said)
    for one in left:
        listens = one.kind == "unused_listener"
        said = ruling(one.edge) if listens or one.kind in _LEARNABLE else None
        if said is None or (listens and said.decision == Verb.LEARN):
            out.append(one)
            continue
        learns = said.decision == Verb.LEARN
        out.append(replace(one, learned=learns, decision=str(said)))
        if learns:
            kept.append(one.edge)
            edges[one.edge] = str(said)
    return Decided(kept, out, edges, matched)


def decide_rules(
    rules: Iterable[Learned], decided: Decided, decisions: Sequence[Decision]
) -> list[Learned]:
    """The rules of one workload, saying which decisions are in them.

    A rule that knowledge added (DNS over TCP) goes, or loses the peer, where it may never be. A
    rule that is wider than what was seen may still let in a peer that never shall: it says so.

    Parameters
    ----------
    decisions: those about the workload.
    """
    made = []
    for rule in rules:
        never = [
            one
            for one in decisions
            if one.decision == Verb.NEVER
            and (one.direction, one.protocol, one.port)
            == (rule.direction, rule.rule.protocol, rule.rule.port)
        ]
        if not rule.edges and never:
            kept = _without(rule, never)
            if kept is None:
                continue
            rule = kept
        said = sorted({decided.edges[edge] for edge in rule.edges if edge in decided.edges})
        wide = [str(p) for p in rule.rule.peers or () if p.entity is not None]
        wide += ["any peer"] if rule.rule.peers is None else []
        over = [f"{one.peer} may never be let in, but {w} is" for one in never for w in wide]
        over += [
            f"{one.peer} may never be let in, but {peer} overlaps it"
            for one in never
            for peer in rule.rule.peers or ()
            if rule.edges and one.peer is not None and _overlap(one.peer, peer)
        ]
        made.append(
            replace(
                rule,
                reasons=(*rule.reasons, *(f"decided to {text}" for text in said)),
                over_grant=(*rule.over_grant, *over),
            )
        )
    return made


def _overlap(one: PeerSelector, other: PeerSelector) -> bool:
    return names_meet(one, other) or (
        one.cidr is not None
        and other.cidr is not None
        and ip_network(one.cidr).overlaps(ip_network(other.cidr))
    )


def _without(rule: Learned, never: Sequence[Decision]) -> Learned | None:
    """A rule nobody used, without the peers that may never be; None where nothing is left."""
    gone = {one.peer for one in never}
    if None in gone:
        return None
    if rule.rule.peers is None:
        return rule
    peers = tuple(
        peer
        for peer in rule.rule.peers
        if peer not in gone and not any(one and names_meet(one, peer) for one in gone)
    )
    return replace(rule, rule=rule.rule.model_copy(update={"peers": peers})) if peers else None
