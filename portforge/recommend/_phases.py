"""When in a workload's life a rule is used: its phase, and a short reason. Pure; judges no trust.

The first of these that holds, hours and days being UTC:

- ``unclear``: nobody used it, or the window is shorter than a day.
- ``periodic``, a job's own rhythm: the rule of a job, used in half of its runs at least.
- ``start-up``: used in no hour but those within one hour after a pod of the side that opens it
  started (egress: the workload's own; ingress: its callers'), or one of its own.
- ``after a rollout``: used only by pods of later generations than the workload's first.
- ``periodic``: it begins at distances that are whole numbers of periods, in one hour or the next,
  in half of all periods at least, and lasts for a quarter of a period at most. Hourly: about one
  connection in each of nine in ten hours.
- ``steady``: in six hours at least, on half of the days since it was first seen.
- ``unclear``: seen too seldom.

What could as well be chance is not named: the chance that calls at random hours look like this
must be 1 in 50 at most. So two Sundays at the same hour are weekly, two days are not yet daily.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import pandas as pd

from portforge.capture import Window
from portforge.recommend._edges import Edge, peer_text
from portforge.recommend._hours import Hours, all_hours
from portforge.recommend._lifecycle import JOBS
from portforge.recommend._periods import (
    CHANCE,
    Life,
    Phase,
    hour_of,
    periodic,
    rhythm_of_job,
)
from portforge.recommend._rules import Learned
from portforge.schema import Direction, PeerKind, Workload

__all__ = ["Life", "Lives", "Phase", "lives_of", "phase_of"]

_HOUR, _DAY = timedelta(hours=1), 24
_MANY = 6
"""Hours that make a rule steady, as they make its confidence high."""
_SHOWN = 3


Lives = Mapping[Workload, Sequence[Life]]


def lives_of(pods: pd.DataFrame) -> dict[Workload, list[Life]]:
    """``Capture.pods()`` by workload. A pod that came back on another node started there anew."""
    found: dict[Workload, list[Life]] = {}
    for row in pods.to_dict("records"):
        owner = Workload(row["namespace"], row["workload_kind"], row["workload"])
        first, last = row["first_seen"].to_pydatetime(), row["last_seen"].to_pydatetime()
        found.setdefault(owner, []).append(Life(row["pod"], first, last))
    return found


def phase_of(
    workload: Workload, learned: Learned, lives: Lives, window: Window, least_hours: float
) -> Phase:
    """The phase of one rule, and in its reason the peers that are in another.

    Parameters
    ----------
    lives: pods of all workloads: of callers, too, it matters when they started.
    least_hours: in a shorter window nothing is said.
    """
    if not learned.edges:
        return Phase("unclear", "not seen")
    if window.hours < least_hours:
        return Phase("unclear", f"the window is shorter than {least_hours:g} h")
    whole = _phase(workload, learned.edges, lives, window)
    by_peer: dict[str, list[Edge]] = {}
    for edge in learned.edges:
        outside = edge.peer.kind == PeerKind.EXTERNAL
        by_peer.setdefault("outside" if outside else peer_text(edge.peer), []).append(edge)
    if len(by_peer) == 1:
        return whole
    others = []
    for name, edges in sorted(by_peer.items()):
        part = _phase(workload, edges, lives, window)
        if part.name != "unclear" and (part.name, part.period) != (whole.name, whole.period):
            others.append(f"{name} {_text(part)}")
    if not others:
        return whole
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return whole._replace(reason=f"{whole.reason}; but {', '.join(others[:_SHOWN])}{more}")


def _text(phase: Phase) -> str:
    return f"{phase.name} ({phase.period})" if phase.period else phase.name


def _phase(workload: Workload, edges: Sequence[Edge], lives: Lives, window: Window) -> Phase:
    hours = all_hours(edge.hours for edge in edges)
    pods = lives.get(workload, ())
    first, last = hour_of(window.start), hour_of(window.end)
    return (
        (rhythm_of_job(pods, hours) if pods and workload.kind in JOBS else None)
        or _start_up(workload, edges, hours, lives, window)
        or _after_rollout(workload, edges, hours, lives, window)
        or periodic(sum(edge.connections for edge in edges), hours, last)
        or _steady(hours, max(first, hours.first), last)
    )


def _start_up(
    workload: Workload,
    edges: Sequence[Edge],
    hours: Hours,
    lives: Lives,
    window: Window,
) -> Phase | None:
    callers = {edge.peer for edge in edges if edge.direction == Direction.INGRESS}
    if callers:
        owners = [
            Workload(peer.namespace or "", peer.workload_kind or "", peer.workload or "")
            for peer in callers
        ]
        # A job's pods do all they do after their start.
        known = [w for w in owners if w in lives and w.kind not in JOBS]
        if len(known) == len(owners) and (
            found := _after_starts([one for w in known for one in lives[w]], hours, window)
        ):
            return Phase("start-up", f"{found} of its callers started")
    if workload.kind not in JOBS:
        found = _after_starts(lives.get(workload, ()), hours, window)
        if found:
            return Phase("start-up", f"{found} of the workload started")
    return None


def _after_starts(lives: Iterable[Life], hours: Hours, window: Window) -> str | None:
    # A pod that was there in the first hour may be older than the recording.
    starts = [life.first_seen for life in lives if life.first_seen > window.start + _HOUR]
    allowed = Hours(hour for t in starts for hour in range(hour_of(t), hour_of(t + _HOUR) + 1))
    if not starts or allowed | hours != allowed:
        return None
    times = hours.runs()
    share = len(allowed) / max(hour_of(window.end) - hour_of(window.start) + 1, 1)
    if share ** len(times) > CHANCE:
        return None
    return f"{len(times)} times, always within an hour after pods"


_TEMPLATE = re.compile(r"-([a-z0-9]{6,10})-[a-z0-9]{5}$")


def _generations(workload: Workload, lives: Sequence[Life]) -> tuple[set[str], datetime] | None:
    """The pods of later generations than the first, and when the second began.

    By the hash of the pod template in the name, where all have one. Else a generation ends where
    no pod was seen both before the next began and an hour after that.
    """
    pods = sorted(lives, key=lambda life: (life.first_seen, life.pod))
    rest = [life.pod.removeprefix(workload.name) for life in pods]
    hashes = [found.group(1) for text in rest if (found := _TEMPLATE.fullmatch(text))]
    if pods and len(hashes) == len(pods):
        later = [p for p, h in zip(pods, hashes, strict=True) if h != hashes[0]]
    else:
        cut = next(
            (
                n
                for n in range(1, len(pods))
                if all(p.last_seen <= pods[n].first_seen + _HOUR for p in pods[:n])
            ),
            len(pods),
        )
        later = pods[cut:]
    names = {life.pod for life in later} - {life.pod for life in pods if life not in later}
    return (names, later[0].first_seen) if names else None


def _after_rollout(
    workload: Workload,
    edges: Sequence[Edge],
    hours: Hours,
    lives: Lives,
    window: Window,
) -> Phase | None:
    if workload.kind in JOBS:
        return None
    found = _generations(workload, lives.get(workload, ()))
    used_by = {pod for edge in edges for pod in edge.pods}
    if found is None or not used_by or not used_by <= found[0]:
        return None
    began = found[1]
    share = (window.end - began) / (window.end - window.start)
    if share ** len(hours) > CHANCE:
        return None
    return Phase(
        "after a rollout",
        f"only by pods newer than the first generation, which ended about {began:%Y-%m-%d %H:%MZ}",
    )


def _steady(hours: Hours, first: int, last: int) -> Phase:
    days = hours.days
    since = last // _DAY - first // _DAY + 1
    text = f"in {len(hours)} hours, on {days} of {since} days since first seen"
    if len(hours) >= _MANY and days >= 2 and 2 * days >= since:
        return Phase("steady", text)
    return Phase("unclear", f"too seldom for a pattern: {text}")
