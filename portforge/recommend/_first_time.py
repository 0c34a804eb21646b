"""Find first contacts on sensitive ports: late, on one day, where others are long known. Pure.

An intruder who opens a database is answered as its clients are; what gives him away is that he
was never there before. So is a new client on its first day: both are kept out until they come
back on another day, or the analyst decides. A job is not: somebody wrote its schedule, and its
first run may come late in the window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from portforge.recommend._edges import Edge, Party
from portforge.recommend._hours import Hours
from portforge.recommend._lifecycle import JOBS
from portforge.recommend._one_sided import ends
from portforge.recommend._options import Options
from portforge.recommend._price import most_listed
from portforge.recommend._sensitive import sensitive_name
from portforge.schema import Direction, PeerKind

__all__ = ["find_first_time"]

_KNOWN = timedelta(days=2)
"""A peer, or a workload, is long known when it was there so much earlier: two daily cycles."""

_MANY_HOURS = 6
"""Who is there in so many hours is in use, not a visit: ``high`` confidence in the evidence."""

_Door = tuple[Party, str, str, int]
"""The workload a port belongs to, ``in`` or ``out``, protocol, port: what peers are compared at.

Of a target inside, its port, whoever comes; of targets outside, the workload's way out."""

_INSIDE = (PeerKind.WORKLOAD, PeerKind.SERVICE)


@dataclass
class _Use:
    """What one peer did at a door, by the records of both ends."""

    edges: list[Edge] = field(default_factory=list)
    hours: Hours = field(default_factory=Hours)
    names: set[str] = field(default_factory=set)

    def add(self, edge: Edge) -> None:
        self.edges.append(edge)
        self.hours |= edge.hours
        self.names.update(edge.peer_names)

    @property
    def first_seen(self) -> datetime:
        return min(edge.first_seen for edge in self.edges)

    @property
    def days(self) -> int:
        return self.hours.days

    @property
    def outside(self) -> bool:
        return any(edge.peer.kind == PeerKind.EXTERNAL for edge in self.edges)

    @property
    def opened(self) -> bool:
        """Within the window; a connection that is older is nothing new."""
        return any(edge.connections for edge in self.edges)


def find_first_time(edges: Iterable[Edge], options: Options) -> dict[Edge, str]:
    """The edges that are a first contact, each with the reason.

    Parameters
    ----------
    edges: what would be learned otherwise, of all workloads: each end's record tells of both.
    """
    doors: defaultdict[_Door, defaultdict[Party, _Use]] = defaultdict(lambda: defaultdict(_Use))
    since: dict[Party, datetime] = {}
    for edge in edges:
        both = ends(edge)
        if both is None:
            continue
        for one in both:
            since[one] = min(edge.first_seen, since.get(one, edge.first_seen))
        if edge.peer.kind not in (*_INSIDE, PeerKind.EXTERNAL):
            continue
        door, peer = _at(edge, both)
        if sensitive_name(edge.protocol, edge.port, edge.target_port):
            doors[door][peer].add(edge)
    found: dict[Edge, str] = {}
    for door, uses in doors.items():
        for peer in uses:
            reason = _why(door, peer, uses, since[door[0]], options)
            if reason is not None:
                found.update(dict.fromkeys(uses[peer].edges, reason))
    return found


def _at(edge: Edge, both: tuple[Party, Party]) -> tuple[_Door, Party]:
    """The door and who is the peer at it."""
    source, target = both
    if edge.direction == Direction.EGRESS and edge.peer.kind == PeerKind.EXTERNAL:
        return (source, "out", str(edge.protocol), edge.port), target
    egress = edge.direction == Direction.EGRESS
    port = (egress and edge.target_port) or edge.port
    return (target, "in", str(edge.protocol), port), source


def _why(
    door: _Door, peer: Party, uses: dict[Party, _Use], since: datetime, options: Options
) -> str | None:
    use = uses[peer]
    source = door[0] if door[1] == "out" else peer
    job = len(source) == 3 and source[1] in JOBS
    if use.days > 1 or len(use.hours) >= _MANY_HOURS or not use.opened or job:
        return None
    first = use.first_seen
    others = [one for who, one in uses.items() if who != peer and one.first_seen <= first - _KNOWN]
    if use.outside and _same_name_or_open(use, others, options):
        return None
    known = [one for one in others if one.days > 1]
    if known:
        oldest = min(one.first_seen for one in known)
        text = f"{len(known)} other {_plural('peer', known)} known there since {oldest:%Y-%m-%d}"
    elif not others and since <= first - _KNOWN:
        text = f"the port had no use since {since:%Y-%m-%d}"
    else:
        return None
    edge = use.edges[0]
    name = sensitive_name(edge.protocol, edge.port, edge.target_port)
    return (
        f"first contact, on {first:%Y-%m-%d} only, with a sensitive port ({name}); {text}; "
        "it is learned when it comes back on another day, or decide learn"
    )


def _same_name_or_open(use: _Use, others: Sequence[_Use], options: Options) -> bool:
    """A known name at another address, or a port that serves the internet anyway."""
    outside = [one for one in others if one.outside]
    named = any(use.names & one.names for one in outside)
    return named or len(outside) > most_listed(options.price)


def _plural(word: str, some: Sequence[object]) -> str:
    return word if len(some) == 1 else f"{word}s"
