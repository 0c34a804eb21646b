"""How much of what a workload does was seen: estimates from ports seen once and twice. Pure.

Read them with the warning of our own measurements: they are optimistic (2–4 times on ports, more
on edges), because what happens in one hour is likely to happen in the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

__all__ = ["Coverage", "coverage"]


class Coverage(NamedTuple):
    """``units`` hours observed, ``seen`` items; the estimates are None where there is no basis."""

    units: int
    seen: int
    coverage: float | None
    richness: float | None


def coverage(units: int, incidences: Iterable[tuple[Hashable, int]]) -> Coverage:
    """Sample coverage and richness by incidence in hours.

    Parameters
    ----------
    units: T, the number of hours in which the workload was observed.
    incidences: pairs of item (a port) and hour in which it was seen.

    Notes
    -----
    Coverage: Chao & Jost, Ecology 93 (2012), 2533–2547. Richness: Chao2, a lower bound
    (Chao, Biometrics 43 (1987), 783–791). Q1, Q2: items seen in exactly one, two hours.

    >>> coverage(4, [("TCP 80", 1), ("TCP 80", 2), ("TCP 80", 3), ("TCP 22", 1)])
    Coverage(units=4, seen=2, coverage=0.75, richness=2.0)
    >>> coverage(1, [("TCP 80", 1)]).coverage is None
    True
    """
    hours = Counter(item for item, _ in set(incidences))
    total, seen = sum(hours.values()), len(hours)
    if units < 2 or total == 0:
        return Coverage(units, seen, None, None)
    once = sum(1 for n in hours.values() if n == 1)
    twice = sum(1 for n in hours.values() if n == 2)
    missing = 0.0
    if once:
        weight = (units - 1) * once
        missing = once / total * (weight / (weight + 2 * twice))
    unseen = once * once / (2 * twice) if twice else once * (once - 1) / 2
    richness = seen + (units - 1) / units * unseen
    return Coverage(units, seen, round(1 - missing, 6), round(richness, 3))
