"""Evidence: the row that stands beside each rule. Its ``confidence`` only counts hours and days."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import pyarrow as pa

from portforge.capture import Window
from portforge.recommend._hours import all_hours
from portforge.recommend._marks import Around
from portforge.recommend._options import Options
from portforge.recommend._phases import Lives, phase_of
from portforge.recommend._price import unobserved
from portforge.recommend._rules import Learned, peers_seen
from portforge.schema import Workload

__all__ = ["EVIDENCE", "evidence_frame", "evidence_row"]

_instant = pa.timestamp("us", tz="UTC")
EVIDENCE = pa.schema(
    [
        ("namespace", pa.string()),
        ("policy", pa.string()),
        ("rule", pa.string()),
        ("workload_kind", pa.string()),
        ("workload", pa.string()),
        ("direction", pa.string()),
        ("protocol", pa.string()),
        ("port", pa.int32()),
        ("target_ports", pa.string()),
        ("peers", pa.string()),
        ("connections", pa.int64()),
        ("bytes", pa.int64()),
        ("hours", pa.int32()),
        ("days", pa.int32()),
        ("pods", pa.int32()),
        ("pods_total", pa.int32()),
        ("first_seen", _instant),
        ("last_seen", _instant),
        ("confidence", pa.string()),
        ("phase", pa.string()),
        ("period", pa.string()),
        ("phase_reason", pa.string()),
        ("unobserved_port_peers", pa.int64()),
        ("over_grant", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Columns of evidence.parquet: keyed by namespace, policy and rule."""


def evidence_row(
    workload: Workload,
    learned: Learned,
    pods_total: int,
    window: Window,
    options: Options,
    lives: Lives,
    around: Around,
) -> dict[str, Any]:
    """What was seen of one rule; ``lives``: all workloads' pods."""
    edges = learned.edges
    seen = all_hours(edge.hours for edge in edges)
    hours, days = len(seen), seen.days
    targets = sorted({edge.target_port for edge in edges if edge.target_port is not None})
    phase = phase_of(workload, learned, lives, window, options.enough_hours)
    return {
        "namespace": workload.namespace,
        "policy": workload.slug,
        "rule": learned.rule.id,
        "workload_kind": workload.kind,
        "workload": workload.name,
        "direction": str(learned.direction),
        "protocol": str(learned.rule.protocol),
        "port": learned.rule.port,
        "target_ports": ", ".join(map(str, targets)),
        "peers": peers_seen(learned),
        "connections": sum(edge.connections for edge in edges),
        "bytes": sum(edge.bytes for edge in edges),
        "hours": hours,
        "days": days,
        "pods": len({pod for edge in edges for pod in edge.pods}),
        "pods_total": pods_total,
        "first_seen": min((edge.first_seen for edge in edges), default=None),
        "last_seen": max((edge.last_seen for edge in edges), default=None),
        "confidence": _confidence(learned, hours, days, window, options),
        "phase": phase.name,
        "period": phase.period or None,
        "phase_reason": phase.reason,
        "unobserved_port_peers": unobserved(learned.rule, edges, around.nodes, around.workloads),
        "over_grant": "; ".join(learned.over_grant),
        "reason": "; ".join(learned.reasons),
    }


def _confidence(learned: Learned, hours: int, days: int, window: Window, options: Options) -> str:
    """``high``: six hours on two days; ``medium``: three hours, or two days; else ``low``."""
    if window.hours < options.enough_hours:
        return "insufficient"
    if learned.assumed:
        return "low"
    if hours >= 6 and days >= 2:
        return "high"
    return "medium" if hours >= 3 or days >= 2 else "low"


def evidence_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a DataFrame with the columns of ``EVIDENCE``."""
    frame: pd.DataFrame = pa.Table.from_pylist(list(rows), schema=EVIDENCE).to_pandas()
    return frame
