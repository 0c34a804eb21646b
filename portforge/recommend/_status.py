"""How far one workload's rules may be trusted: a status, and every reason for it. Pure.

``dynamic``: its ports change, no list of ports fits. ``insufficient``: too short, or nothing to
learn from. ``learning``: something is missing yet; the first reason says what, and how long it
takes at least. ``ready``: coverage of ports and peers is at its target by hours and by days,
nothing is new in the last quarter of the window, and every item of the lifecycle checklist holds.
What happens less often than weekly is promised by no status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from portforge.capture import Window
from portforge.recommend._coverage import Completeness, completeness
from portforge.recommend._lifecycle import Item, checklist
from portforge.recommend._missing import Missing, missing_of
from portforge.recommend._options import Options
from portforge.recommend._seen import Seen, items_of
from portforge.schema import Direction

__all__ = ["Status", "duration", "status_of"]


@dataclass(frozen=True)
class Status:
    """``reasons`` speak against trusting the rules; ``notes`` are to be known."""

    status: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    coverage: dict[str, Completeness]
    lifecycle: dict[str, Item]
    until: datetime | None
    """While learning: ready at the earliest then, as far as time alone decides it."""


def status_of(seen: Seen, window: Window, options: Options) -> Status:
    """The status of one workload."""
    items = {d: items_of(seen, d) for d in Direction}
    covered = {
        str(d): completeness(
            seen.life.hours, *([one.hours for one in part.values()] for part in (ports, peers))
        )
        for d, (ports, peers) in items.items()
    }
    lifecycle = checklist(seen.life, window, options)
    dynamic = [*dict.fromkeys(one.reason for one in seen.left if one.kind == "dynamic_ports")]
    insufficient = list(_insufficient(seen, window, options))
    missing = missing_of(seen, items, covered, lifecycle, window, options)
    until = max((m.until for m in missing if m.until and m.until > window.end), default=None)
    every = [*dynamic, *insufficient]
    if dynamic or insufficient:
        status = "dynamic" if dynamic else "insufficient"
        every += [m.text for m in missing if m.name in ("losses", "lost_peers", "unlisted_peers")]
    elif missing:
        status = "learning"
        every += [_outlook(missing, until, window), *(m.text for m in missing)]
    else:
        status = "ready"
        every.append("nothing known speaks against it")
    return Status(
        status,
        tuple(every),
        tuple(_notes(seen)),
        covered,
        lifecycle,
        until if status == "learning" else None,
    )


def _insufficient(seen: Seen, window: Window, options: Options) -> Iterable[str]:
    least = f"{options.enough_hours:g} h"
    present = Window(seen.life.first_seen, seen.life.last_seen)
    if window.hours < options.enough_hours:
        yield f"the window is {duration(window)}: under {least} no estimate can be trusted"
    elif present.hours < options.enough_hours:
        yield f"seen only for {duration(present)}; {least} are the least"
    if not any(rule.edges for rule in seen.rules):
        yield "no answered traffic to learn from"


def _outlook(missing: Sequence[Missing], until: datetime | None, window: Window) -> str:
    """How much longer, and what is missing, in one sentence."""
    names = ", ".join(dict.fromkeys(m.name.replace("_", " ") for m in missing))
    if until is None:
        return f"still learning, and time alone may not do; missing: {names}"
    rest = duration(Window(window.end, until))
    moment = until.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()
    return f"still learning, for at least {rest} more (until {moment}Z); missing: {names}"


def _notes(seen: Seen) -> Iterable[str]:
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
