"""Whether hours of use come back with a period, and which. Pure; the definitions: ``_phases``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from portforge.recommend._hours import Hours

__all__ = ["CHANCE", "Life", "Phase", "hour_of", "periodic", "rhythm_of_job"]

_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_DAY, _WEEK = 24, 168
_NAMES = {1: "hourly", _DAY: "daily", _WEEK: "weekly"}
CHANCE = 1 / 50
"""A phase is named only where random hours would look like it at most so often."""


class Phase(NamedTuple):
    """``period``: of a periodic one, such as ``daily``, else empty."""

    name: str
    reason: str
    period: str = ""


class Life(NamedTuple):
    """A pod on a node, from its first to its last record."""

    pod: str
    first_seen: datetime
    last_seen: datetime


def hour_of(instant: datetime) -> int:
    """The hour since the epoch."""
    return int(instant.timestamp()) // 3600


def rhythm_of_job(pods: Sequence[Life], hours: Hours) -> Phase | None:
    """The rhythm of a job's runs, where the hours of a rule follow it."""
    runs = _runs(pods)
    if len(runs) == 1:
        return Phase("unclear", "one run of the job was seen: its rhythm is not known")
    taking = sum(
        any(hour in hours for hour in range(hour_of(r.first_seen), hour_of(r.last_seen) + 1))
        for r in runs
    )
    if 2 * taking < len(runs):
        return None
    gaps = [(b.first_seen - a.first_seen) / _HOUR for a, b in itertools.pairwise(runs)]
    middle = sorted(gaps)[len(gaps) // 2]
    period = _name(round(middle) or middle)
    return Phase("periodic", f"the job's own rhythm: used in {taking} of {len(runs)} runs", period)


def _runs(lives: Iterable[Life]) -> list[Life]:
    """The runs of a job: pods that start within a minute of each other, or overlap, are one."""
    runs: list[Life] = []
    for life in sorted(lives, key=lambda one: (one.first_seen, one.pod)):
        if runs and life.first_seen <= max(runs[-1].last_seen, runs[-1].first_seen + _MINUTE):
            runs[-1] = runs[-1]._replace(last_seen=max(runs[-1].last_seen, life.last_seen))
        else:
            runs.append(life)
    return runs


def _name(period: float) -> str:
    """A period in hours in words.

    >>> _name(24), _name(6), _name(0.25)
    ('daily', 'every 6 h', 'every 15 min')
    """
    near = next((p for p in (_DAY, _WEEK) if abs(period - p) <= 1), period)
    if near in _NAMES:
        return _NAMES[int(near)]
    return f"every {near:g} h" if near >= 1 else f"every {near * 60:.0f} min"


def periodic(opened: int, hours: Hours, last: int) -> Phase | None:
    """The period of a rule.

    Parameters
    ----------
    opened: its connections.
    hours: those in which it was used; ``last`` is the last of the window.
    """
    times = hours.runs()
    span = hours.last - hours.first + 1
    # At random, one call in an hour on average leaves a third of the hours without any.
    often = 0.75 * len(hours) <= opened < 1.5 * len(hours)
    if span >= _DAY and 10 * len(hours) >= 9 * span and often:
        reason = f"{opened} connections in {len(hours)} of {span} hours"
        return Phase("periodic", reason, _NAMES[1])
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(times)]
    if not gaps:
        return None
    for period in dict.fromkeys((_WEEK, _DAY, min(gaps))):
        if period < 3 or max(end - start for start, end in times) + 1 > max(period / 4, 2):
            continue
        turns = [round((start - times[0][0]) / period) for start, _ in times]
        off = [
            start - times[0][0] - turn * period
            for (start, _), turn in zip(times, turns, strict=True)
        ]
        width = max(off) - min(off) + 1
        expected = (last - times[0][0]) // period + 1
        if width > 2 or len(set(turns)) < len(turns) or 2 * len(turns) < expected:
            continue
        # That so many random hours fall into two adjacent ones of the period. A period that was
        # taken from the gaps themselves has used up one of them.
        free = len(turns) - (period not in _NAMES)
        if (2**free - 1) / period ** (free - 1) <= CHANCE:
            reason = (
                f"{len(times)} times, {_hours(period)} apart, at about {times[0][0] % 24:02}:00Z"
            )
            return Phase("periodic", reason, _name(period))
    return None


def _hours(period: int) -> str:
    return {_DAY: "a day", _WEEK: "a week"}.get(period, f"{period} h")
