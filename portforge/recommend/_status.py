"""How far one workload's rules may be trusted: a status, and every reason for it. Pure.

``dynamic``: its ports change, no list of ports fits. ``insufficient``: too short, or nothing to
learn from. ``learning``: something speaks against it yet. ``ready``: nothing known does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from portforge.capture import Window
from portforge.recommend._coverage import Coverage, coverage
from portforge.recommend._edges import Edge
from portforge.recommend._findings import Left
from portforge.recommend._options import Options
from portforge.recommend._rules import Learned
from portforge.schema import Direction

__all__ = ["Seen", "Status", "duration", "status_of"]


@dataclass(frozen=True)
class Seen:
    """All that is known of one workload in the window."""

    edges: Sequence[Edge]
    rules: Sequence[Learned]
    left: Sequence[Left]
    losses: dict[str, int]
    """Events lost on its nodes, by reason; without what is only a gap of the recorder."""
    pod_starts: Sequence[datetime]
    """When each of its pods was first seen."""


@dataclass(frozen=True)
class Status:
    """``reasons`` speak against trusting the rules; ``notes`` are to be known."""

    status: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    coverage: dict[str, Coverage]


def status_of(seen: Seen, window: Window, options: Options) -> Status:
    """The status of one workload."""
    covered = {str(d): _coverage(seen, d) for d in Direction}
    dynamic = [*dict.fromkeys(one.reason for one in seen.left if one.kind == "dynamic_ports")]
    insufficient = list(_insufficient(seen, window, options))
    learning = list(_learning(seen, window, covered, options))
    every = (*dynamic, *insufficient, *learning)
    status = (
        "dynamic"
        if dynamic
        else "insufficient"
        if insufficient
        else "learning"
        if learning
        else "ready"
    )
    reasons = every or ("nothing known speaks against it",)
    return Status(status, reasons, tuple(_notes(seen, window)), covered)


def _coverage(seen: Seen, direction: Direction) -> Coverage:
    hours = {hour for edge in seen.edges for hour in edge.hours}
    ports = [
        ((rule.rule.protocol, rule.rule.port), hour)
        for rule in seen.rules
        if rule.direction == direction
        for edge in rule.edges
        for hour in edge.hours
    ]
    return coverage(len(hours), ports)


def _insufficient(seen: Seen, window: Window, options: Options) -> Iterable[str]:
    least = f"{options.enough_hours:g} h"
    first = min(edge.first_seen for edge in seen.edges)
    last = max(edge.last_seen for edge in seen.edges)
    if window.hours < options.enough_hours:
        yield f"the window is {duration(window)}: under {least} no estimate can be trusted"
    elif Window(first, last).hours < options.enough_hours:
        yield f"seen only for {duration(Window(first, last))}; {least} are the least"
    if not any(rule.edges for rule in seen.rules):
        yield "no answered traffic to learn from"


def _learning(
    seen: Seen, window: Window, covered: dict[str, Coverage], options: Options
) -> Iterable[str]:
    if seen.losses:
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(seen.losses.items()))
        yield f"the recorder lost events on its nodes: {lost}"
    lost_peers = sum(e.connections for r in seen.rules for e in r.edges if e.peer.ip is None)
    if lost_peers:
        yield f"the peers of {lost_peers} connections were lost"
    for direction, found in covered.items():
        if found.coverage is not None and found.coverage < options.enough_coverage:
            yield (
                f"{direction} coverage is {found.coverage:.4f}, {options.enough_coverage:g} is "
                f"wanted (an optimistic estimate, from {found.units} hours)"
            )
    late = window.start + (window.end - window.start) * 0.75
    new = [
        rule.rule.id
        for rule in seen.rules
        if rule.edges and min(edge.first_seen for edge in rule.edges) > late
    ]
    if new:
        yield f"new in the last quarter of the window: {', '.join(new)}"


def _notes(seen: Seen, window: Window) -> Iterable[str]:
    starts = seen.pod_starts
    if starts and max(starts) - window.start < min(
        timedelta(hours=1), (window.end - window.start) / 4
    ):
        yield "no pod was seen to start: what is needed only at start-up may be missing"
    probes = sum(one.edge.connections for one in seen.left if one.kind == "own_node")
    if probes:
        yield f"{probes} connections from the pod's own node (probes) need no rule and have none"
    kept_out = [one.edge for one in seen.left if one.kind == "scan" and one.edge.answered]
    if kept_out:
        count = sum(edge.connections for edge in kept_out)
        ports = ", ".join(f"{p} {n}" for p, n in sorted({(e.protocol, e.port) for e in kept_out}))
        yield f"answered connections of a scanner were kept out ({count}): {ports}"
    for rule in seen.rules:
        if not rule.edges:
            yield f"{rule.rule.id}: {rule.reasons[0]}"


def duration(window: Window) -> str:
    """The window's length for people.

    >>> from datetime import UTC
    >>> duration(Window(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, tzinfo=UTC)))
    '60 s'
    """
    seconds = (window.end - window.start).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
