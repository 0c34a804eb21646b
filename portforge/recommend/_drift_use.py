"""How the rules of one policy were used: which edges each allowed, and what to do with it. Pure.

A rule counts as unused only where that can be known: its workload was seen, and capture and
approval are as old as the days asked for. What was tried, what may have been meant, and DNS over
TCP beside DNS over UDP keep a rule from being called unused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from portforge.capture import Window
from portforge.policy import Mode, PeerSelector, PortPolicy, Rule, judge
from portforge.policy._judge import _selects
from portforge.recommend._decisions import Decision, Verb
from portforge.recommend._edges import Edge
from portforge.recommend._hours import all_hours
from portforge.schema import Direction, Protocol, Verdict, Workload

__all__ = ["Known", "Use", "days_of", "enforced", "latest", "rule_at", "uses"]

_NO_USE = frozenset({"scan", "never", "port_zero", "own_node"})
"""Findings about edges that a rule let in and nobody needs it for."""
_TRIED = frozenset({Verdict.REFUSED, Verdict.FAILED, Verdict.DENIED})
_DNS = 53


@dataclass(frozen=True)
class Known:
    """The question: until when is known what, and how long is long.

    ``now`` is what expiries are held against, ``window.end`` what uses are.
    """

    window: Window
    now: datetime
    unused: timedelta
    kinds: Mapping[Edge, str]
    """Why an edge is kept out of learning."""
    decisions: Sequence[Decision] = ()

    def old(self, moment: datetime | None) -> bool:
        """Whether nothing was seen from ``moment`` on for as long as was asked."""
        return moment is None or self.window.end - moment >= self.unused


@dataclass
class Use:
    """One rule, the edges it allowed (``edges``), and those that say it may be needed."""

    workload: Workload
    direction: Direction
    rule: Rule
    edges: list[Edge] = field(default_factory=list)
    probes: list[Edge] = field(default_factory=list)
    tried: list[Edge] = field(default_factory=list)
    uncertain: list[Edge] = field(default_factory=list)
    dns: list[Edge] = field(default_factory=list)
    listening: bool = False
    state: str = ""
    why: str = ""
    unused_peers: tuple[PeerSelector, ...] = ()

    @property
    def last_seen(self) -> datetime | None:
        """When it last allowed something that counts."""
        return latest(self.edges)

    def allows(self, edge: Edge) -> bool:
        """Whether the edge is of this rule's direction and ports, whoever the peer."""
        return edge.direction == self.direction and _covers(self.rule, edge.protocol, edge.port)


def latest(edges: Iterable[Edge]) -> datetime | None:
    """When the last of them was last seen."""
    return max((edge.last_seen for edge in edges), default=None)


def days_of(edges: Iterable[Edge]) -> int:
    """On how many distinct days (UTC) they were seen."""
    return all_hours(edge.hours for edge in edges).days


def enforced(policy: PortPolicy) -> PortPolicy:
    """The policy as if it denied, and had not expired as a whole."""
    return policy.model_copy(update={"mode": Mode.ENFORCE, "expires_at": None})


def rule_at(
    policy: PortPolicy, direction: str, protocol: str, port: int, now: datetime | None = None
) -> Rule | None:
    """The policy's rule for a port; with ``now`` only where it has not expired."""
    for rule in policy.rules(direction) or ():
        gone = now is not None and rule.expires_at is not None and rule.expires_at <= now
        if _covers(rule, protocol, port) and not gone:
            return rule
    return None


def uses(policy: PortPolicy, edges: Sequence[Edge], known: Known) -> list[Use]:
    """One for each rule, in the policy's order. ``edges``: all of its workload."""
    found = {
        (direction, rule.id): Use(policy.workload, direction, rule)
        for direction in Direction
        for rule in policy.rules(direction) or ()
    }
    by_service: dict[tuple[object, ...], Use | None] = {}
    judged = enforced(policy)
    for edge in edges:
        service = (edge.direction, edge.protocol, edge.port)
        if service not in by_service:
            by_service[service] = next((one for one in found.values() if one.allows(edge)), None)
        use = by_service[service]
        if use is not None:
            _place(use, edge, judged, known)
    _long_answers(found.values())
    since = known.window.start
    if policy.approval is not None:
        since = max(since, min(policy.approval.at, known.window.end))
    idle = known.old(latest(edges))
    for use in found.values():
        _state(use, since, known, idle=idle)
        if use.state in ("used", "standby") and known.old(since):
            use.unused_peers = _unused_peers(use, known)
        _forbid(use, known.decisions)
    return list(found.values())


def _covers(rule: Rule, protocol: str, port: int) -> bool:
    return rule.protocol == protocol and rule.port <= port <= rule.last_port


def _place(use: Use, edge: Edge, policy: PortPolicy, known: Known) -> None:
    if edge.verdict == Verdict.LISTENING:
        use.listening = True
        return
    # Not own_node: here is asked what the rule does, and the own node is allowed without one.
    said = judge(policy, edge.direction, edge.protocol, edge.port, edge.peer, None)
    if said.verdict == "uncertain":
        use.uncertain.append(edge)
    elif said.rule == use.rule.id:
        kind = known.kinds.get(edge, "")
        if kind == "one_sided" or (edge.verdict in _TRIED and kind not in _NO_USE):
            use.tried.append(edge)
        elif kind == "own_node":
            use.probes.append(edge)
        elif edge.answered and kind not in _NO_USE:
            use.edges.append(edge)


def _long_answers(every: Iterable[Use]) -> None:
    """TCP 53 is needed where UDP 53 is: answers too long for UDP come over TCP."""
    known = list(every)
    for use in known:
        if _covers(use.rule, Protocol.TCP, _DNS):
            use.dns = [
                edge
                for other in known
                if other.direction == use.direction and _covers(other.rule, Protocol.UDP, _DNS)
                for edge in other.edges
                if edge.port == _DNS
            ]


def _state(use: Use, since: datetime, known: Known, *, idle: bool) -> None:
    last, days = use.last_seen, known.unused.days
    expires = use.rule.expires_at
    decided = [one for one in known.decisions if one.decision == Verb.LEARN and _about(one, use)]
    if expires is not None and expires <= known.now:
        use.state, use.why = "expired", f"expired at {expires:%Y-%m-%d %H:%M}Z"
    elif last is not None and not known.old(last):
        use.state = "used"
    elif not known.old(latest(use.dns)):
        use.state, use.why = "standby", "DNS answers too long for UDP come over TCP"
    elif not known.old(latest(use.tried)):
        use.state, use.why = "tried", "tried, and answered with next to nothing, if at all"
    elif not known.old(latest(use.uncertain)):
        use.state, use.why = "uncertain", "the record lost who the peer was"
    elif decided:
        use.state, use.why = "kept", f"decided to {decided[0]}"
    elif idle:
        use.state, use.why = "unknown", f"the workload was not seen for {days} days"
    elif known.old(max(since, last) if last else since):
        told = "never" if last is None else f"last on {last:%Y-%m-%d}"
        use.state, use.why = "unused", f"not used for {days} days ({told})"
        if use.probes:
            use.why += "; only by probes of its own node, which need no rule"
        if use.listening:
            use.why += "; the port still listens"
    else:
        known_for = (known.window.end - since) / timedelta(days=1)
        use.state = "unknown"
        use.why = f"not used, but capture and approval tell of {known_for:.1f} days only"


def _unused_peers(use: Use, known: Known) -> tuple[PeerSelector, ...]:
    """Selectors nobody matched. None where the peer of some connection is not known."""
    if not known.old(latest(use.uncertain)):
        return ()
    edges = [*use.edges, *use.tried, *use.dns]
    came = {edge.peer for edge in edges if not known.old(edge.last_seen)}
    return tuple(
        selector
        for selector in use.rule.peers or ()
        if not any(_selects(selector, peer) for peer in came)
        and not any(
            one.decision == Verb.LEARN and _about(one, use) and one.peer in (None, selector)
            for one in known.decisions
        )
    )


def _about(decision: Decision, use: Use) -> bool:
    return (
        decision.workload == use.workload
        and decision.direction == use.direction
        and decision.protocol is not None
        and decision.port is not None
        and _covers(use.rule, decision.protocol, decision.port)
    )


def _in_namespace(peer: PeerSelector, wide: PeerSelector | None) -> bool:
    """Whether the peer is a workload of the namespace that ``wide`` names."""
    return (
        wide is not None
        and peer.workload is not None
        and (peer.workload.namespace == wide.namespace)
    )


def _forbid(use: Use, decisions: Iterable[Decision]) -> None:
    """What may never be is to be removed, used or not."""
    for one in decisions:
        if one.decision != Verb.NEVER or not _about(one, use):
            continue
        peers = use.rule.peers or ()
        gone = [peer for peer in peers if peer == one.peer or _in_namespace(peer, one.peer)]
        if one.peer is None or (gone and len(gone) == len(peers)):
            use.state, use.why, use.unused_peers = "never", str(one), ()
        elif gone:
            use.unused_peers = tuple(
                sorted({*use.unused_peers, *gone}, key=lambda peer: peer.sort_key)
            )
        elif not use.why:
            use.why = f"wider than decided: {one.peer}: {one}"
