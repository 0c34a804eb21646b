"""How much of what a workload does was seen: estimates from what was seen once and twice. Pure.

Read them with the warning of our own measurements: they are optimistic (2–4 times on ports, more
on peers), because what happens in one hour is likely to happen in the next. So they stand here
twice, by hours and by days, and beside them stands the backtest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

__all__ = ["Completeness", "Coverage", "completeness", "coverage"]


class Coverage(NamedTuple):
    """``units`` observed, ``seen`` items; the estimates are None where there is no basis."""

    units: int
    seen: int
    coverage: float | None
    richness: float | None


class Completeness(NamedTuple):
    """The four estimates of one direction of one workload: ports and peers, by hours and days."""

    ports_by_hours: Coverage
    ports_by_days: Coverage
    peers_by_hours: Coverage
    peers_by_days: Coverage

    def report(self) -> dict[str, int | float | None]:
        """Flat, as it stands in ``report.json``. ``sample_coverage`` is ports by hours."""
        ports, ports_days, peers, peers_days = self
        return {
            "hours": ports.units,
            "days": ports_days.units,
            "ports": ports.seen,
            "sample_coverage": ports.coverage,
            "sample_coverage_days": ports_days.coverage,
            "chao2_ports": ports.richness,
            "chao2_ports_days": ports_days.richness,
            "peers": peers.seen,
            "peer_coverage": peers.coverage,
            "peer_coverage_days": peers_days.coverage,
            "chao2_peers": peers.richness,
            "chao2_peers_days": peers_days.richness,
        }


def completeness(
    hours: Iterable[int],
    ports: Iterable[tuple[Hashable, int]],
    peers: Iterable[tuple[Hashable, int]],
) -> Completeness:
    """The four estimates; a day is a day of UTC.

    Parameters
    ----------
    hours: hours since the epoch in which the workload was observed.
    ports, peers: pairs of item and hour in which it was seen. A peer is one on a port.
    """
    observed = set(hours)
    days = {hour // 24 for hour in observed}
    by_hours = [set(items) for items in (ports, peers)]
    by_days = [{(item, hour // 24) for item, hour in items} for items in by_hours]
    return Completeness(
        coverage(len(observed), by_hours[0]),
        coverage(len(days), by_days[0]),
        coverage(len(observed), by_hours[1]),
        coverage(len(days), by_days[1]),
    )


def coverage(units: int, incidences: Iterable[tuple[Hashable, int]]) -> Coverage:
    """Sample coverage and richness by incidence in units of time.

    Parameters
    ----------
    units: T, the number of units (hours, days) in which the workload was observed.
    incidences: pairs of item (a port, a peer) and unit in which it was seen.

    Notes
    -----
    Coverage: Chao & Jost, Ecology 93 (2012), 2533–2547. Richness: Chao2, a lower bound
    (Chao, Biometrics 43 (1987), 783–791). Q1, Q2: items seen in exactly one, two units.

    >>> coverage(4, [("TCP 80", 1), ("TCP 80", 2), ("TCP 80", 3), ("TCP 22", 1)])
    Coverage(units=4, seen=2, coverage=0.75, richness=2.0)
    >>> coverage(1, [("TCP 80", 1)]).coverage is None
    True
    """
    times = Counter(item for item, _ in set(incidences))
    total, seen = sum(times.values()), len(times)
    if units < 2 or total == 0:
        return Coverage(units, seen, None, None)
    once = sum(1 for n in times.values() if n == 1)
    twice = sum(1 for n in times.values() if n == 2)
    missing = 0.0
    if once:
        weight = (units - 1) * once
        missing = once / total * (weight / (weight + 2 * twice))
    unseen = once * once / (2 * twice) if twice else once * (once - 1) / 2
    richness = seen + (units - 1) / units * unseen
    return Coverage(units, seen, round(1 - missing, 6), round(richness, 3))
