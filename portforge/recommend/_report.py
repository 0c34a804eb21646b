"""The parts of report.json: what is said of a workload, of findings and of losses. Pure."""

from __future__ import annotations

from typing import Any

import pandas as pd

from portforge.capture._times import iso
from portforge.recommend._findings import KINDS
from portforge.recommend._rules import Learned
from portforge.recommend._severity import Level
from portforge.recommend._status import Status
from portforge.schema import Workload

__all__ = ["finding_counts", "losses_of", "workload_report"]


def workload_report(
    workload: Workload, rules: list[Learned], status: Status, pods: int
) -> dict[str, Any]:
    """Status, reasons, checklist and coverage of one workload."""
    return {
        "namespace": workload.namespace,
        "workload_kind": workload.kind,
        "workload": workload.name,
        "policy": workload.slug,
        "status": status.status,
        "reasons": list(status.reasons),
        "notes": list(status.notes),
        "rules": len(rules),
        "pods": pods,
        "until": None if status.until is None else iso(status.until),
        "lifecycle": {
            name: {"answer": item.answer, "missing": item.missing}
            for name, item in status.lifecycle.items()
        },
        "coverage": {d: found.report() for d, found in status.coverage.items()},
    }


def finding_counts(findings: pd.DataFrame) -> dict[str, Any]:
    """How many findings and connections of each kind, and how urgent they are."""
    sums = findings.groupby("kind")["connections"].agg(["size", "sum"])
    levels = findings.groupby(["kind", "severity"]).size()
    return {
        kind: {
            "count": int(sums.loc[kind, "size"]),  # type: ignore[arg-type]
            "connections": int(sums.loc[kind, "sum"]),  # type: ignore[arg-type]
            "meaning": meaning,
            "severity": {str(v): int(levels[kind, v]) for v in Level if (kind, v) in levels.index},
        }
        for kind, meaning in KINDS.items()
        if kind in sums.index
    }


def losses_of(losses: pd.DataFrame) -> dict[str, Any]:
    """What was lost, by reason."""
    sums = losses.groupby("reason")["count"].sum().sort_index()
    return {
        "total": int(losses["count"].sum()),
        "by_reason": {str(reason): int(count) for reason, count in sums.items()},
    }
