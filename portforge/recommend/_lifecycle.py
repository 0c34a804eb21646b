"""The lifecycle checklist: what a workload must have gone through before its rules are trusted.

Each item says yes, no or unknown, and what is missing. Looks at times and pods only, at no port.
Pure. Times are UTC: a weekend is Saturday and Sunday of UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from portforge.capture import Window
from portforge.recommend._hours import Hours
from portforge.recommend._options import Options

__all__ = ["JOBS", "Item", "Life", "Pod", "checklist", "restart"]

JOBS = frozenset({"CronJob", "Job"})
"""Kinds whose pods run and end: each run is a pod of its own."""

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_SATURDAY = 5


class Pod(NamedTuple):
    """A pod on a node, from its first to its last record. ``learned``: it took part in a rule."""

    name: str
    node: str
    first_seen: datetime
    last_seen: datetime
    learned: bool


@dataclass(frozen=True)
class Life:
    """What is known of one workload's life in the window."""

    kind: str
    first_seen: datetime
    last_seen: datetime
    hours: Hours
    pods: Sequence[Pod]
    losses: Mapping[str, int]
    """Events lost on its nodes, by reason; without what is only a gap of the recorder."""
    last_loss: datetime | None = None


@dataclass(frozen=True)
class Item:
    """One line of the checklist; ``until``: when it holds at the earliest, where that is known."""

    answer: str
    missing: str = ""
    until: datetime | None = None

    @property
    def holds(self) -> bool:
        """Whether the answer is yes."""
        return self.answer == "yes"


_YES = Item("yes")


def checklist(life: Life, window: Window, options: Options) -> dict[str, Item]:
    """The items, by name, always in this order.

    ``cron_cycle`` is there for jobs only, ``daily_cycle`` for all others.
    """
    items = {"restart": restart(life.kind, life.pods, window)}
    if life.kind in JOBS:
        items["cron_cycle"] = _cron_cycle(life)
    else:
        items["daily_cycle"] = _daily_cycle(life)
    return items | {
        "weekend": _weekend(life, window),
        "weekly_cycle": _weekly_cycle(life, window, options),
        "losses": _losses(life),
        "replicas": _replicas(life),
    }


def restart(kind: str, pods: Sequence[Pod], window: Window) -> Item:
    """A new pod beside one that is gone, all pods new, or a pod that came back elsewhere."""
    if not pods:
        return Item("unknown", "the capture names no pod of it: a restart cannot be seen")
    edge = min(_HOUR, (window.end - window.start) / 4)
    new = {p.name for p in pods if p.first_seen > window.start + edge}
    names = {p.name for p in pods}
    gone = {p.name for p in pods if p.last_seen < window.end - edge} & names
    moved = len({(p.name, p.node) for p in pods}) > len(names)
    replaced = any(n != g for n in new for g in gone) or new == names
    if moved or replaced:
        return _YES
    if kind == "StatefulSet":
        return Item(
            "unknown",
            "a restart: its pods keep their names, one is seen only when a pod changes its node",
        )
    return Item("no", "a restart: what is needed only at start-up may be missing")


def _daily_cycle(life: Life) -> Item:
    hours, days = len(life.hours), life.hours.days
    if hours >= 24 and days >= 2:
        return _YES
    missing = f"a full daily cycle: seen in {hours} hours on {days} days, 24 on 2 are wanted"
    return Item("no", missing, life.last_seen + max(24 - hours, 1) * _HOUR)


def _cron_cycle(life: Life) -> Item:
    """Runs are pods that do not overlap; a second one shows that it comes back, and when."""
    if not life.pods:
        return Item("unknown", "the capture names no pod of it: its runs cannot be told apart")
    runs: list[Pod] = []
    for pod in sorted(life.pods, key=lambda p: (p.last_seen, p.first_seen, p.name)):
        if not runs or pod.first_seen > runs[-1].last_seen:
            runs.append(pod)
    if len(runs) >= 2:
        return _YES
    return Item(
        "no",
        "a second run: one was seen; a daily job needs two days, a weekly one two weeks",
        runs[0].first_seen + _DAY,
    )


def _weekend(life: Life, window: Window) -> Item:
    """Saturday and Sunday as a whole, but for an hour at either end, while it was there."""
    first = max(window.start, life.first_seen)
    last = min(window.end, life.last_seen)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    saturday = midnight + (_SATURDAY - midnight.weekday()) % 7 * _DAY
    if first > saturday + _HOUR:
        saturday += timedelta(days=7)
    end = saturday + 2 * _DAY - _HOUR
    if last >= end:
        return _YES
    return Item("no", "a weekend (Saturday and Sunday, UTC)", end)


def _weekly_cycle(life: Life, window: Window, options: Options) -> Item:
    """As long as a week: what comes weekly must have had the time to come."""
    span = Window(max(window.start, life.first_seen), min(window.end, life.last_seen))
    # An hour less: hourly traffic of seven days ends short of the last hour.
    if span.hours >= options.ready_hours - 1:
        return _YES
    wanted = timedelta(hours=options.ready_hours - 1)
    missing = f"{options.ready_hours:g} h with it in view ({span.hours:.0f} h were)"
    return Item("no", missing, span.start + wanted)


def _losses(life: Life) -> Item:
    if not life.losses:
        return _YES
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(life.losses.items()))
    since = "" if life.last_loss is None else f"; the last at {life.last_loss:%Y-%m-%dT%H:%MZ}"
    return Item(
        "no", f"a window without losses: the recorder lost events on its nodes ({lost}{since})"
    )


def _replicas(life: Life) -> Item:
    """Every pod that was there for an hour took part in what was learned. A run of a job counts."""
    if not life.pods:
        return Item("unknown", "the capture names no pod of it: replicas cannot be told apart")
    learned: dict[str, bool] = {}
    for pod in life.pods:
        if pod.learned or pod.last_seen - pod.first_seen >= _HOUR:
            learned[pod.name] = learned.get(pod.name, False) or pod.learned
    idle = sorted(name for name, took_part in learned.items() if not took_part)
    if learned and not idle:
        return _YES
    seen = f"{len(learned) - len(idle)} of {len(learned)} pods"
    return Item("no", f"all replicas: {seen} had answered traffic; not {', '.join(idle[:3])}")
