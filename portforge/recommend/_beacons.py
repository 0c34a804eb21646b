"""Find beacons: a workload that calls one outside peer at a regular rhythm, saying nearly nothing.

So do clocks, metrics and licence checks. A rhythm is a finding; it is kept out of learning only
where it began in the middle of its pods' lives and two more signs speak against it. What a pod
does over one kept connection shows no rhythm here. Asks the capture for the rows of those peers
only that may be regular; most captures are not asked at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from portforge.capture import Capture
from portforge.recommend._edges import Edge
from portforge.recommend._hours import all_hours
from portforge.recommend._lifecycle import JOBS
from portforge.schema import Direction, PeerKind, Workload

__all__ = ["Beacon", "find_beacons", "looked_at"]

_TOLERANCE = 0.4
"""An interval of the rhythm differs by at most so much from the median one.

Waits drawn evenly from the period ± 30 % all do; two random moments each 30 % off their beat do in
nine of ten cases; of a Poisson process 28 % of the intervals do."""

_SHARE = 0.8
"""So many of the intervals, and of the payloads, are alike. The rest is room for lost records,
orders that came, and calls that failed; 10 of 12 random intervals do not agree once in 10,000."""

_EVENTS, _HOURS = 13, 4
"""Fewer calls, or calls in fewer hours, are no rhythm that lasts."""

_SLOWEST = timedelta(hours=6)
"""Slower than that is a schedule; a window of days cannot tell it from chance."""

_PAYLOAD = 16 * 1024
"""Bytes of a connection, both ways: a TLS handshake with certificates, a request, an answer."""

_ROWS = 2_000_000
"""Rows whose times are looked at: some seconds, however large the capture."""

_SETTLED = timedelta(hours=1)
"""What a pod first does so long after its start does not belong to its start."""

_Destination = tuple[Workload, str, int, str]
"""Who calls, protocol, port, and the peer's one name, else its address."""


@dataclass(frozen=True)
class Beacon:
    """What is said of it; ``strong``: it is kept out of learning."""

    reason: str
    strong: bool


def find_beacons(
    capture: Capture,
    edges: Sequence[Edge],
    since: str | datetime | None = None,
    until: str | datetime | None = None,
) -> dict[Edge, Beacon]:
    """The edges that are the regular calls of some pod.

    Parameters
    ----------
    edges: all of the window, as ``capture.aggregated(since, until)`` gives them.
    """
    outside = _outside(edges)
    asked, _ = _asked(edges, outside)
    if not asked:
        return {}
    rows = [
        (*destination[0], destination[1], destination[2], edge.peer.ip, number)
        for number, (destination, some) in enumerate(asked.items())
        for edge in some
    ]
    names = ("namespace", "workload_kind", "workload", "protocol", "port", "peer_ip", "destination")
    table = pd.DataFrame(rows, columns=list(names)).drop_duplicates()
    found = capture.rhythms(table, _TOLERANCE, since, until)
    regular = found[
        (found["events"] >= _EVENTS)
        & (found["hours"] >= _HOURS)
        & (found["steady"] >= _SHARE)
        & (found["even"] >= _SHARE)
        & (found["sent"] + found["received"] <= _PAYLOAD)
        & (found["period"] > 0)
        & (found["period"] <= _SLOWEST.total_seconds())
    ]
    if regular.empty:
        return {}
    pods = capture.pods(since, until)
    callers: defaultdict[str, set[Workload]] = defaultdict(set)
    for workload, _, _, peer in outside:
        callers[peer].add(workload)
    named = any(edge.peer_names for some in outside.values() for edge in some)
    beacons: dict[Edge, Beacon] = {}
    for number, (destination, some) in enumerate(asked.items()):
        own = regular[regular["destination"] == number]
        if own.empty:
            continue
        every = found[found["destination"] == number]
        there = _lives(pods, destination[0])
        signs = [
            *_few(own, every, there),
            *(["no DNS name"] if named and not any(e.peer_names for e in some) else []),
            *(["no other workload calls it"] if len(callers[destination[3]]) == 1 else []),
        ]
        late = _late(own, there)
        beacons.update(dict.fromkeys(some, _judged(own, every, late, signs)))
    return beacons


def looked_at(edges: Sequence[Edge]) -> dict[str, int]:
    """How many outside peers' rhythms are looked at, and how many are not: for the report."""
    asked, rest = _asked(edges, _outside(edges))
    return {"peers": len(asked), "not_looked_at": rest}


def _asked(
    edges: Sequence[Edge], outside: dict[_Destination, list[Edge]]
) -> tuple[dict[_Destination, list[Edge]], int]:
    """Those that may be regular, as far as ``_ROWS`` go; and the number of the rest.

    Peers that were met late come first, then those with the fewest rows: a beacon says little.
    """
    start: dict[Workload, datetime] = {}
    for edge in edges:
        if edge.workload is not None:
            known = start.get(edge.workload, edge.first_seen)
            start[edge.workload] = min(edge.first_seen, known)

    def place(destination: _Destination) -> tuple[bool, int, _Destination]:
        some = outside[destination]
        first = min(edge.first_seen for edge in some)
        early = first <= start[destination[0]] + _SETTLED
        return early, sum(edge.rows for edge in some), destination

    order = sorted(place(d) for d, some in outside.items() if _may_be(some))
    total, asked = 0, {}
    for _, rows, destination in order:
        total += rows
        if total > _ROWS:
            break
        asked[destination] = outside[destination]
    return asked, len(order) - len(asked)


def _outside(edges: Sequence[Edge]) -> dict[_Destination, list[Edge]]:
    """Answered calls to addresses outside, by who is called."""
    found: defaultdict[_Destination, list[Edge]] = defaultdict(list)
    for edge in edges:
        ip = edge.peer.ip
        if (
            edge.direction != Direction.EGRESS
            or not edge.answered
            or edge.peer.kind != PeerKind.EXTERNAL
            or ip is None
            or edge.workload is None
            or edge.workload.kind in (*JOBS, "Node")
        ):
            continue
        peer = edge.peer_names[0] if len(edge.peer_names) == 1 else ip
        found[edge.workload, str(edge.protocol), edge.port, peer].append(edge)
    return dict(found)


def _may_be(edges: Sequence[Edge]) -> bool:
    """Whether the sums allow for a rhythm; spares the rows of all the others."""
    connections = sum(edge.connections for edge in edges)
    hours = all_hours(edge.hours for edge in edges)
    size = sum(edge.bytes for edge in edges)
    # The sum may hold one large answer among many small ones.
    many = connections >= _EVENTS and sum(edge.rows for edge in edges) >= _EVENTS
    return many and len(hours) >= _HOURS and size <= 4 * _PAYLOAD * connections


def _lives(pods: pd.DataFrame, workload: Workload) -> pd.DataFrame:
    """First and last record of each pod of the workload, whatever node it was on."""
    own = pods[
        (pods["namespace"] == workload.namespace)
        & (pods["workload_kind"] == workload.kind)
        & (pods["workload"] == workload.name)
    ]
    return own.groupby("pod").agg(first_seen=("first_seen", "min"), last_seen=("last_seen", "max"))


def _late(own: pd.DataFrame, there: pd.DataFrame) -> bool:
    """Whether each of the pods had been there for long when it first called."""
    waited = own["first_seen"] - own["pod"].map(there["first_seen"])
    least = (3 * own["period"]).clip(lower=_SETTLED.total_seconds())
    return bool((waited.dt.total_seconds() > least).all())


def _few(own: pd.DataFrame, every: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """Only some of the pods that were there for at least half of the time call it at all."""
    first, last = own["first_seen"].min(), own["last_seen"].max()
    shared = there["last_seen"].clip(upper=last) - there["first_seen"].clip(lower=first)
    beside = set(there.index[shared >= (last - first) / 2]) | set(own["pod"])
    calling = beside & set(every["pod"])
    if len(beside) > 1 and 2 * len(calling) <= len(beside):
        return [f"only {len(calling)} of {len(beside)} pods"]
    return []


def _judged(own: pd.DataFrame, every: pd.DataFrame, late: bool, signs: Sequence[str]) -> Beacon:
    most: dict[Any, Any] = own.sort_values("connections", kind="stable").iloc[-1].to_dict()
    began = "began in the middle of its pods' lives" if late else "since its pods' start"
    strong = late and len(signs) > 1
    said = "; ".join([began, *signs])
    kept = "kept out; decide learn if it is needed" if strong else "learned all the same"
    pods = f"{len(own)}" if len(own) == len(every) else f"{len(own)} of {len(every)}"
    pods += " pod" if len(every) == 1 else " pods"
    return Beacon(
        f"calls every {_span(most['period'])} (jitter {most['jitter']:.0%}) for "
        f"{_span((own['last_seen'].max() - own['first_seen'].min()).total_seconds())}: "
        f"{int(own['connections'].sum())} connections of {most['sent']:.0f} bytes sent and "
        f"{most['received']:.0f} received, by {pods}; {said}; {kept}",
        strong,
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
