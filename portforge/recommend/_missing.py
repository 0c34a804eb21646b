"""What is missing yet until a workload's rules may be trusted, each with a sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from portforge.capture import Window
from portforge.recommend._coverage import Completeness, Coverage
from portforge.recommend._draws import few_draws
from portforge.recommend._edges import peer_text
from portforge.recommend._findings import ONLY_INSIDE
from portforge.recommend._lifecycle import JOBS, Item
from portforge.recommend._options import Options
from portforge.recommend._seen import WITH, Items, Seen
from portforge.schema import Direction

__all__ = ["Missing", "missing_of"]

_WEEK = timedelta(days=7)
_SHOWN = 3


class Missing(NamedTuple):
    """One thing missing: its name, the sentence, and when it may be there at the earliest."""

    name: str
    text: str
    until: datetime | None = None


def missing_of(
    seen: Seen,
    items: Mapping[Direction, tuple[Items, Items]],
    covered: Mapping[str, Completeness],
    lifecycle: Mapping[str, Item],
    window: Window,
    options: Options,
) -> list[Missing]:
    """Everything, in the order in which it is told.

    Parameters
    ----------
    items: by direction, the ports and the peers that were seen.
    covered: by direction, how complete they are.
    """
    return [
        *(
            Missing(name, item.missing, item.until)
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


def _lost_peers(seen: Seen) -> Iterable[Missing]:
    lost = sum(e.connections for r in seen.rules for e in r.edges if e.peer.ip is None)
    lost += sum(
        one.edge.connections for one in seen.left if one.kind == "lost_peer" and not one.learned
    )
    if lost:
        yield Missing("lost_peers", f"the peers of {lost} connections were lost")
    for rule in seen.rules:
        if rule.unlisted:
            text = f"{rule.rule.id} has no room for {rule.unlisted} peers that were seen"
            yield Missing("unlisted_peers", text)


def _uncovered(
    items: Mapping[Direction, tuple[Items, Items]],
    covered: Mapping[str, Completeness],
    options: Options,
) -> Iterable[Missing]:
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
        once = {name: f for name, f in (peers or ports).items() if f.hours.days == 1}
        text = (
            f"{direction} coverage: {', '.join(short)}; {options.enough_coverage:g} is wanted "
            "(optimistic estimates)"
        )
        until = None
        if once:
            # What came on one day only may come weekly: a second week shows it.
            until = max(f.first_seen for f in once.values()) + _WEEK
            text += f"; seen on one day only, a weekly job needs two weeks: {_some(once)}"
        yield Missing(f"{direction} coverage", text, until)


def _drawn(seen: Seen, options: Options) -> Iterable[Missing]:
    few = few_draws(seen.rules, seen.decided, options.enough_draws)
    if few:
        rules = ", ".join(f"{rule} {draws}" for rule, draws in few)
        yield Missing(
            "outside addresses",
            f"outside addresses of which few were drawn ({rules}; {options.enough_draws} are "
            "wanted): the name may answer with others",
        )


def _unused(seen: Seen) -> Iterable[Missing]:
    """A listener nobody used, but for probes, may be used rarely; the pod itself explains one."""
    unused = {
        f"{one.edge.protocol} {one.edge.port}"
        for one in seen.left
        if one.kind == "unused_listener" and one.reason != ONLY_INSIDE and one.decision is None
    }
    if unused:
        yield Missing(
            "use of listeners",
            f"it listens where nobody connected yet ({_some(unused)}): close it, wait, or decide "
            "never",
        )


def _kept_out(seen: Seen) -> Iterable[Missing]:
    """What was kept out may have been an attack, or a need: nobody knows yet."""
    for kind, (name, what) in _UNDECIDED.items():
        found = {
            f"{edge.protocol} {edge.port} {WITH[edge.direction]} {peer_text(edge.peer)}"
            for edge in (
                one.edge
                for one in seen.left
                if one.kind == kind and one.decision is None and not one.learned
            )
        }
        if found:
            yield Missing(name, f"kept out, {what} ({_some(found)}): decide learn or never")


_UNDECIDED = {
    "one_sided": ("one-sided answers", "answered with next to nothing and seldom"),
    "beacon": ("regular calls", "at a rhythm that began late and has other odd signs"),
    "first_time": ("first contacts", "late and on one day only, on a sensitive port"),
}
"""What ``ready`` waits for a decision on: the name of what is missing, and how it was seen."""


def _callers(seen: Seen, peers: Items) -> Iterable[Missing]:
    """Who is called now and then may be called at start-up, also by what did not start yet."""
    rare = [
        name
        for name, found in peers.items()
        if not any(f"/{kind}/" in name for kind in JOBS)
        and 2 * found.hours.days < seen.life.hours.since(found.hours.first // 24 * 24).days
    ]
    calling = {name.partition(" from ")[2] for name in peers}
    quiet = [name for name in seen.unrestarted if name not in calling]
    if rare and quiet:
        yield Missing(
            "restarts of others",
            f"it is called now and then ({_some(rare)}), perhaps at start-up, and no restart was "
            f"seen of {_some(quiet)}",
        )


def _estimate(found: Coverage) -> str:
    return "unknown" if found.coverage is None else f"{found.coverage:.4f}"


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _new(items: Mapping[Direction, tuple[Items, Items]], window: Window) -> Iterable[Missing]:
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
        yield Missing("nothing new", text, until)
