"""How far one workload's rules may be trusted: a status, and every reason for it. Pure.

``dynamic``: its ports change, no list of ports fits. ``insufficient``: too short, or nothing to
learn from. ``learning``: something is missing yet; the first reason says what, and how long it
takes at least. ``ready``: coverage of ports and peers is at its target by hours and by days,
nothing is new in the last quarter of the window, and every item of the lifecycle checklist holds.
What happens less often than weekly is promised by no status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from portforge.capture import Window
from portforge.policy import Entity
from portforge.recommend._coverage import Completeness, Coverage, completeness
from portforge.recommend._draws import few_draws
from portforge.recommend._edges import Edge, party, peer_text
from portforge.recommend._findings import ONLY_INSIDE, Left
from portforge.recommend._lifecycle import JOBS, Item, Life, checklist
from portforge.recommend._options import Options
from portforge.recommend._rules import Learned
from portforge.schema import Direction, PeerKind, Protocol

__all__ = ["Seen", "Status", "duration", "status_of"]

_WEEK = timedelta(days=7)
_SHOWN = 3


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


class _Missing(NamedTuple):
    """One thing missing: its name, the sentence, and when it may be there at the earliest."""

    name: str
    text: str
    until: datetime | None = None


@dataclass
class _Found:
    """One port or one peer of a port: the hours it was seen in, and since when."""

    hours: set[int]
    first_seen: datetime


_Items = dict[str, _Found]


def status_of(seen: Seen, window: Window, options: Options) -> Status:
    """The status of one workload."""
    items = {d: _items(seen, d) for d in Direction}
    covered = {
        str(d): completeness(seen.life.hours, _pairs(ports), _pairs(peers))
        for d, (ports, peers) in items.items()
    }
    lifecycle = checklist(seen.life, window, options)
    dynamic = [*dict.fromkeys(one.reason for one in seen.left if one.kind == "dynamic_ports")]
    insufficient = list(_insufficient(seen, window, options))
    missing = [
        *(
            _Missing(name, item.missing, item.until)
            for name, item in lifecycle.items()
            if not item.holds
        ),
        *_lost_peers(seen),
        *_uncovered(items, covered, options),
        *_new(items, window),
        *_drawn(seen, options),
        *_unused(seen),
        *_kept_out(seen),
        *_callers(seen, items[Direction.INGRESS][1]),
    ]
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


def _items(seen: Seen, direction: Direction) -> tuple[_Items, _Items]:
    """The ports, and the peers on them, that were seen and that one direction's rules grant."""
    ports: _Items = {}
    peers: _Items = {}
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
                _add(peers, f"{port} {_WITH[direction]} {peer}", edge)
    return ports, peers


def _is_dns(learned: Learned) -> bool:
    return learned.rule.protocol == Protocol.UDP and learned.rule.port == _DNS


_DNS = 53
_WITH = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def _add(items: _Items, name: str, edge: Edge) -> None:
    found = items.setdefault(name, _Found(set(), edge.first_seen))
    found.hours.update(edge.hours)
    found.first_seen = min(found.first_seen, edge.first_seen)


def _granted(learned: Learned, edge: Edge) -> str | None:
    """What of the rule lets this edge's peer in: one more of ``World`` or a block is no news."""
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
    who = party(edge.peer)
    return None if who is None else "/".join(who)


def _pairs(items: _Items) -> list[tuple[str, int]]:
    return [(name, hour) for name, found in items.items() for hour in found.hours]


def _insufficient(seen: Seen, window: Window, options: Options) -> Iterable[str]:
    least = f"{options.enough_hours:g} h"
    present = Window(seen.life.first_seen, seen.life.last_seen)
    if window.hours < options.enough_hours:
        yield f"the window is {duration(window)}: under {least} no estimate can be trusted"
    elif present.hours < options.enough_hours:
        yield f"seen only for {duration(present)}; {least} are the least"
    if not any(rule.edges for rule in seen.rules):
        yield "no answered traffic to learn from"


def _lost_peers(seen: Seen) -> Iterable[_Missing]:
    lost = sum(e.connections for r in seen.rules for e in r.edges if e.peer.ip is None)
    lost += sum(
        one.edge.connections for one in seen.left if one.kind == "lost_peer" and not one.learned
    )
    if lost:
        yield _Missing("lost_peers", f"the peers of {lost} connections were lost")
    for rule in seen.rules:
        if rule.unlisted:
            text = f"{rule.rule.id} has no room for {rule.unlisted} peers that were seen"
            yield _Missing("unlisted_peers", text)


def _uncovered(
    items: Mapping[Direction, tuple[_Items, _Items]],
    covered: Mapping[str, Completeness],
    options: Options,
) -> Iterable[_Missing]:
    for direction, (ports, peers) in items.items():
        found = covered[str(direction)]
        short = [
            f"{what} {_estimate(one)}"
            for what, one in (
                ("ports by hours", found.ports_by_hours),
                ("ports by days", found.ports_by_days),
                ("peers by hours", found.peers_by_hours),
                ("peers by days", found.peers_by_days),
            )
            if one.seen and (one.coverage is None or one.coverage < options.enough_coverage)
        ]
        if not short:
            continue
        once = {name: f for name, f in (peers or ports).items() if _days(f) == 1}
        text = (
            f"{direction} coverage: {', '.join(short)}; {options.enough_coverage:g} is wanted "
            "(optimistic estimates)"
        )
        until = None
        if once:
            # What came on one day only may come weekly: a second week shows it.
            until = max(f.first_seen for f in once.values()) + _WEEK
            text += f"; seen on one day only, a weekly job needs two weeks: {_some(once)}"
        yield _Missing(f"{direction} coverage", text, until)


def _drawn(seen: Seen, options: Options) -> Iterable[_Missing]:
    few = few_draws(seen.rules, seen.decided, options.enough_draws)
    if few:
        rules = ", ".join(f"{rule} {draws}" for rule, draws in few)
        yield _Missing(
            "outside addresses",
            f"outside addresses of which few were drawn ({rules}; {options.enough_draws} are "
            "wanted): the name may answer with others",
        )


def _unused(seen: Seen) -> Iterable[_Missing]:
    """A listener nobody used, but for probes, may be used rarely; the pod itself explains one."""
    unused = {
        f"{one.edge.protocol} {one.edge.port}"
        for one in seen.left
        if one.kind == "unused_listener" and one.reason != ONLY_INSIDE and one.decision is None
    }
    if unused:
        yield _Missing(
            "use of listeners",
            f"it listens where nobody connected yet ({_some(unused)}): close it, wait, or decide "
            "never",
        )


def _kept_out(seen: Seen) -> Iterable[_Missing]:
    """What was kept out may have been an attack, or a need: nobody knows yet."""
    for kind, (name, what) in _UNDECIDED.items():
        found = {
            f"{edge.protocol} {edge.port} {_WITH[edge.direction]} {peer_text(edge.peer)}"
            for edge in (
                one.edge
                for one in seen.left
                if one.kind == kind and one.decision is None and not one.learned
            )
        }
        if found:
            yield _Missing(name, f"kept out, {what} ({_some(found)}): decide learn or never")


_UNDECIDED = {
    "one_sided": ("one-sided answers", "answered with next to nothing and seldom"),
    "beacon": ("regular calls", "at a rhythm that began late and has other odd signs"),
    "first_time": ("first contacts", "late and on one day only, on a sensitive port"),
}
"""What ``ready`` waits for a decision on: the name of what is missing, and how it was seen."""


def _callers(seen: Seen, peers: _Items) -> Iterable[_Missing]:
    """Who is called now and then may be called at start-up, also by what did not start yet."""
    days = {hour // 24 for hour in seen.life.hours}
    rare = [
        name
        for name, found in peers.items()
        if not any(f"/{kind}/" in name for kind in JOBS)
        and 2 * _days(found) < len({day for day in days if day >= min(found.hours) // 24})
    ]
    calling = {name.partition(" from ")[2] for name in peers}
    quiet = [name for name in seen.unrestarted if name not in calling]
    if rare and quiet:
        yield _Missing(
            "restarts of others",
            f"it is called now and then ({_some(rare)}), perhaps at start-up, and no restart was "
            f"seen of {_some(quiet)}",
        )


def _estimate(found: Coverage) -> str:
    return "unknown" if found.coverage is None else f"{found.coverage:.4f}"


def _days(found: _Found) -> int:
    return len({hour // 24 for hour in found.hours})


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _new(items: Mapping[Direction, tuple[_Items, _Items]], window: Window) -> Iterable[_Missing]:
    late = window.start + (window.end - window.start) * 0.75
    new: dict[str, datetime] = {}
    for direction, parts in items.items():
        ports, peers = parts
        for name, found in (peers or ports).items():
            if found.first_seen > late:
                new[f"{direction} {name}"] = found.first_seen
    if new:
        until = window.start + (max(new.values()) - window.start) / 0.75
        text = f"new in the last quarter of the window: {_some(new)}"
        yield _Missing("nothing new", text, until)


def _outlook(missing: Sequence[_Missing], until: datetime | None, window: Window) -> str:
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
