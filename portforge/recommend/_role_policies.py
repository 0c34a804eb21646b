"""One set of rules for all members of a role: what any of them needs, for each of them. Pure.

Contract 2 has one workload per policy, so each member gets its own. It is never let in, or out,
where the analyst said never, or where it would cross what is marked sensitive: there a member
keeps its own rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from portforge.policy import PeerSelector, PortPolicy, Rule
from portforge.policy._model import MOST_PEERS, MOST_RULES
from portforge.recommend._decisions import Decision, Verb
from portforge.recommend._marks import Marks, names_meet
from portforge.recommend._price import unobserved
from portforge.schema import Direction, Workload

__all__ = ["Needed", "Shared", "needed", "shared_policy"]

Needed = Mapping[Direction, Sequence[Rule]]


@dataclass(frozen=True)
class Shared:
    """``over_grant``: port-peers that it admits and the member's own policy does not."""

    policy: PortPolicy
    over_grant: int
    note: str = ""


def needed(policies: Iterable[PortPolicy]) -> Needed:
    """What any of the policies allows, with the peers of all on the same ports together.

    Any peer means that the recorder lost them: it is no need of another member.
    """
    found: dict[tuple[Direction, str, int, int], tuple[Rule, set[PeerSelector]]] = {}
    for policy in policies:
        for direction in Direction:
            for rule in policy.rules(direction) or ():
                if rule.peers is not None:
                    key = (direction, str(rule.protocol), rule.port, rule.last_port)
                    found.setdefault(key, (rule, set()))[1].update(rule.peers)
    made: dict[Direction, list[Rule]] = {direction: [] for direction in Direction}
    for (direction, _, first, last), (rule, peers) in found.items():
        made[direction].append(_rule(direction, rule, (first, last), peers))
    return made


def shared_policy(
    own: PortPolicy,
    wanted: Needed,
    decisions: Sequence[Decision],
    inside: Collection[str] = frozenset(),
    workloads: Mapping[str, Collection[Workload]] | None = None,
) -> Shared:
    """The policy of one member with what its role needs: see :func:`needed`.

    Parameters
    ----------
    inside: addresses of the cluster that belong to no known workload: see :class:`Marks`.
    workloads: those that are known, by namespace: what a namespace counts as.
    """
    held = _Held(own, decisions, inside)
    made: dict[str, tuple[Rule, ...]] = {}
    for direction in Direction:
        mine = own.rules(direction) or ()
        rules = tuple(_union(direction, mine, wanted[direction], held))
        longest = max((len(rule.peers or ()) for rule in rules), default=0)
        if len(rules) > MOST_RULES or longest > MOST_PEERS:
            note = f"keeps its own rules: no policy has room for {len(rules)} {direction} rules"
            if longest > MOST_PEERS:
                note = f"keeps its own rules: no rule has room for {longest} peers"
            return Shared(own, 0, note)
        made[str(direction)] = rules
    note = f"without what would cross {', '.join(sorted(held.by))}" if held.by else ""
    policy = PortPolicy.model_validate(dict(own) | made)
    return Shared(policy, _admitted(policy, workloads) - _admitted(own, workloads), note)


def _admitted(policy: PortPolicy, known: Mapping[str, Collection[Workload]] | None) -> int:
    every = (rule for direction in Direction for rule in policy.rules(direction) or ())
    return sum(unobserved(rule, (), 1, known) for rule in every)


class _Held:
    """What may not be added to one workload, and by which decision (``by``)."""

    def __init__(
        self, own: PortPolicy, decisions: Sequence[Decision], inside: Collection[str]
    ) -> None:
        self._workload = own.workload
        self._marks = Marks(decisions, inside)
        self._never = [
            one
            for one in decisions
            if one.decision == Verb.NEVER and one.workload == own.workload and one.door
        ]
        self.by: set[str] = set()

    def back(self, direction: Direction, rule: Rule, peers: Iterable[PeerSelector]) -> bool:
        """Whether the peers may not be added on the rule's ports."""
        span, chosen = (rule.port, rule.last_port), list(peers)
        found = self._marks.crossed(self._workload, str(rule.protocol), span, chosen)
        for one in self._never:
            assert one.door is not None  # noqa: S101  filtered above
            side, protocol, port = one.door
            if (side, protocol) == (direction, rule.protocol) and span[0] <= port <= span[1]:
                wide = any(_meets(one.peer, peer) for peer in chosen)
                found = found or (one if wide else None)
        if found is not None:
            self.by.add(str(found))
        return found is not None


def _meets(never: PeerSelector | None, peer: PeerSelector) -> bool:
    if never is None or peer.entity is not None or never.entity is not None:
        return True
    if never.cidr is not None and peer.cidr is not None:
        return ip_network(never.cidr).overlaps(ip_network(peer.cidr))
    return names_meet(never, peer)


def _union(
    direction: Direction, mine: Sequence[Rule], more: Sequence[Rule], held: _Held
) -> list[Rule]:
    """Rules of one direction: ports that overlap are one rule, with the peers of all."""
    made: list[Rule] = []
    theirs = {id(rule) for rule in mine}
    for group in _overlapping([*mine, *more]):
        own = [rule for rule in group if id(rule) in theirs]
        if len({(rule.port, rule.last_port) for rule in group}) == 1:
            rule = _same_ports(direction, group, own, held)
            made += [rule] if rule else []
            continue
        peers = {peer for rule in group for peer in rule.peers or ()}
        span = (min(rule.port for rule in group), max(rule.last_port for rule in group))
        wide = _rule(direction, group[0], span, peers)
        keep = any(rule.peers is None for rule in own) or held.back(direction, wide, peers)
        made += own if keep else [wide]
    return made


def _same_ports(
    direction: Direction, group: list[Rule], own: list[Rule], held: _Held
) -> Rule | None:
    """The own peers, and of the others' those that may be added."""
    if own and own[0].peers is None:
        return own[0]
    first = group[0]
    known = {peer for rule in own for peer in rule.peers or ()}
    fresh = {peer for rule in group for peer in rule.peers or ()} - known
    kept = known | {peer for peer in fresh if not held.back(direction, first, [peer])}
    return _rule(direction, first, (first.port, first.last_port), kept) if kept else None


def _rule(
    direction: Direction, like: Rule, span: tuple[int, int], peers: set[PeerSelector]
) -> Rule:
    """Not validated: the caller sees to the number of peers."""
    first, last = span
    ports = f"{first}-{last}" if last > first else str(first)
    side = "in" if direction == Direction.INGRESS else "out"
    return like.model_copy(
        update={
            "id": f"{side}-{like.protocol.lower()}-{ports}",
            "port": first,
            "end_port": last if last > first else None,
            "peers": tuple(sorted(peers, key=lambda peer: peer.sort_key)),
        }
    )


def _overlapping(rules: Iterable[Rule]) -> list[list[Rule]]:
    """Rules of one protocol whose ports overlap, together."""
    groups: list[list[Rule]] = []
    end = 0
    for rule in sorted(rules, key=lambda r: (r.protocol, r.port, r.last_port, r.id)):
        if groups and groups[-1][0].protocol == rule.protocol and rule.port <= end:
            groups[-1].append(rule)
            end = max(end, rule.last_port)
        else:
            groups.append([rule])
            end = rule.last_port
    return groups
