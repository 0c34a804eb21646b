"""From frames of pods and losses to one workload's life, for the lifecycle checklist. Pure."""

from __future__ import annotations

from typing import cast

import pandas as pd

from portforge.capture import Window
from portforge.recommend._edges import Edge
from portforge.recommend._hours import all_hours
from portforge.recommend._lifecycle import JOBS, Life, Pod, restart
from portforge.recommend._report import losses_of
from portforge.recommend._rules import Learned
from portforge.schema import LossReason, Workload

__all__ = ["life_of", "unrestarted"]

# The kernel goes on counting without a recorder; an attempt on a closed port is never learned.
_HARMLESS = frozenset({LossReason.RECORDER_DOWN, LossReason.UNPLACED})


def unrestarted(pods: pd.DataFrame, window: Window) -> list[Workload]:
    """The workloads, but jobs, that no restart was seen of in the window."""
    found = []
    for owner, own in pods.groupby(["namespace", "workload_kind", "workload"], sort=True):
        workload = Workload(*map(str, cast(tuple[str, ...], owner)))
        known = _pods(own, set())
        if workload.kind not in JOBS and not restart(workload.kind, known, window).holds:
            found.append(workload)
    return found


def life_of(
    workload: Workload,
    edges: list[Edge],
    rules: list[Learned],
    pods: pd.DataFrame,
    losses: pd.DataFrame,
) -> Life:
    """What the checklist is read from; ``pods`` are its own, ``losses`` all of the window."""
    took_part = {pod for rule in rules for edge in rule.edges for pod in edge.pods}
    lost = losses[losses["node"].isin(pods["node"]) | pods.empty]
    lost = lost[~lost["reason"].isin(_HARMLESS)]
    return Life(
        kind=workload.kind,
        first_seen=min(edge.first_seen for edge in edges),
        last_seen=max(edge.last_seen for edge in edges),
        hours=all_hours(edge.hours for edge in edges),
        pods=_pods(pods, took_part),
        losses=losses_of(lost)["by_reason"],
        last_loss=None if lost.empty else lost["interval_end"].max().to_pydatetime(),
    )


def _pods(pods: pd.DataFrame, took_part: set[str]) -> list[Pod]:
    return [
        Pod(
            row["pod"],
            row["node"],
            row["first_seen"].to_pydatetime(),
            row["last_seen"].to_pydatetime(),
            row["pod"] in took_part,
        )
        for row in pods.to_dict("records")
    ]
