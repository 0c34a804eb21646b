"""How much of what a workload does was seen: estimates from what was seen once and twice. Pure.

Read them with the warning of our own measurements: they are optimistic (2–4 times on ports, more
on peers), because what happens in one hour is likely to happen in the next. So they stand here
twice, by hours and by days, and beside them stands the backtest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from portforge.recommend._hours import Hours

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
    hours: Hours,
    ports: Sequence[Hours],
    peers: Sequence[Hours],
) -> Completeness:
    """The four estimates; a day is a day of UTC.

    Parameters
    ----------
    hours: those in which the workload was observed.
    ports, peers: for each, the hours in which it was seen. A peer is one on a port.
    """
    return Completeness(
        coverage(len(hours), (len(port) for port in ports)),
        coverage(hours.days, (port.days for port in ports)),
        coverage(len(hours), (len(peer) for peer in peers)),
        coverage(hours.days, (peer.days for peer in peers)),
    )


def coverage(units: int, incidences: Iterable[int]) -> Coverage:
    """Sample coverage and richness by incidence in units of time.

    Parameters
    ----------
    units: T, the number of units (hours, days) in which the workload was observed.
    incidences: for each item (a port, a peer) that was seen, in how many units.

    Notes
    -----
    Coverage: Chao & Jost, Ecology 93 (2012), 2533–2547. Richness: Chao2, a lower bound
    (Chao, Biometrics 43 (1987), 783–791). Q1, Q2: items seen in exactly one, two units.

    >>> coverage(4, [3, 1])
    Coverage(units=4, seen=2, coverage=0.75, richness=2.0)
    >>> coverage(1, [1]).coverage is None
    True
    """
    times = list(incidences)
    total, seen = sum(times), len(times)
    if units < 2 or total == 0:
        return Coverage(units, seen, None, None)
    once, twice = times.count(1), times.count(2)
    missing = 0.0
    if once:
        weight = (units - 1) * once
        missing = once / total * (weight / (weight + 2 * twice))
    unseen = once * once / (2 * twice) if twice else once * (once - 1) / 2
    richness = seen + (units - 1) / units * unseen
    return Coverage(units, seen, round(1 - missing, 6), round(richness, 3))
