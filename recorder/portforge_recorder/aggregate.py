"""From the nodes' reports to the status of each policy. Pure: objects and a clock in, status out.

The report of one node is :mod:`portforge_recorder.report`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["SILENT", "aggregate"]

SILENT = timedelta(seconds=60)
"""A report that is older is of a node that is silent."""

Object = dict[str, Any]
_REASONS = ("Invalid", "Unapproved", "RolledBack", "BreakGlass", "Expired")
"""States that are not what was asked for, the gravest first."""


@dataclass(frozen=True)
class _Said:
    node: str
    fresh: bool
    entry: Object

    @property
    def state(self) -> str:
        return str(self.entry.get("state", ""))

    @property
    def pods(self) -> int:
        return int(self.entry.get("pods", 0))

    def applies(self, generation: int, mode: str) -> bool:
        return (
            self.entry.get("generation") == generation
            and self.entry.get("mode") == mode
            and self.state in ("Active", "OnTrial")
            and not self.entry.get("problem")
        )


def aggregate(
    policies: Iterable[Mapping[str, Any]], reports: Iterable[Mapping[str, Any]], now: datetime
) -> dict[str, Object]:
    """The status of every policy, by ``namespace/name``.

    Parameters
    ----------
    policies, reports: PortPolicies and NodeReports as the API server has them.
    now: with time zone; stands in conditions that changed, and tells who is silent.
    """
    said: dict[str, list[_Said]] = {}
    fresh_nodes: set[str] = set()
    for report in sorted(reports, key=lambda r: str(r["metadata"]["name"])):
        status, node = report.get("status") or {}, str(report["metadata"]["name"])
        fresh = _fresh(status.get("heartbeat"), now)
        if fresh:
            fresh_nodes.add(node)
        for entry in status.get("policies") or ():
            key = f"{entry.get('namespace')}/{entry.get('name')}"
            said.setdefault(key, []).append(_Said(node, fresh, entry))
    found = {}
    for policy in policies:
        meta = policy["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        found[key] = _status(policy, said.get(key, []), fresh_nodes, now)
    return found


def _fresh(heartbeat: object, now: datetime) -> bool:
    try:
        at = datetime.fromisoformat(str(heartbeat))
    except ValueError:
        return False
    return at.tzinfo is not None and now - at <= SILENT


def _status(
    policy: Mapping[str, Any], said: list[_Said], fresh_nodes: set[str], now: datetime
) -> Object:
    generation = int(policy["metadata"].get("generation", 0))
    mode = str((policy.get("spec") or {}).get("mode", "Audit"))
    with_pods = [s for s in said if s.pods]
    applied = [s for s in with_pods if s.fresh and s.applies(generation, mode)]
    fresh = [s for s in said if s.fresh]
    # A node without pods of it must know it too: a pod may come there at any moment.
    ready = bool(fresh_nodes) and {s.node for s in fresh if s.applies(generation, mode)} == (
        fresh_nodes
    )
    silent = sorted({s.node for s in with_pods if not s.fresh})
    counts = f"{len(applied)} of {len(with_pods)} nodes"
    if ready:
        reason, message = "Applied", f"in force as asked on {counts} with pods of it"
    elif not fresh_nodes:
        reason, message = "NoReports", "no node has reported within a minute"
    else:
        late = sorted(fresh_nodes - {s.node for s in fresh if s.applies(generation, mode)})
        reason, message = "Waiting", f"not in force as asked on {_names(late)}"
    degraded = _degraded(fresh, generation, silent)
    # Of the other conditions the summary must say why.
    if not ready and degraded[0] and degraded[1] != "NodesSilent":
        reason, message = degraded[1], degraded[2]
    enforced = ready and mode == "Enforce"
    conditions = [
        ("Ready", ready, reason, message),
        (
            "Enforced",
            enforced,
            "Enforced" if enforced else (f"Mode{mode}" if mode != "Enforce" else reason),
            f"denied is what no rule allows, on {counts}"
            if enforced
            else (f"the policy asks for {mode}" if mode != "Enforce" else message),
        ),
        ("Degraded", *degraded),
    ]
    before = {c.get("type"): c for c in (policy.get("status") or {}).get("conditions") or ()}
    return {
        "observedGeneration": generation,
        "nodes": len(with_pods),
        "appliedNodes": len(applied),
        "denied": sum(int(s.entry.get("denied", 0)) for s in said),
        "audited": sum(int(s.entry.get("audited", 0)) for s in said),
        "conditions": [
            _condition(*c, generation=generation, before=before.get(c[0]), now=now)
            for c in conditions
        ],
    }


def _degraded(fresh: list[_Said], generation: int, silent: list[str]) -> tuple[bool, str, str]:
    current = [s for s in fresh if s.entry.get("generation") == generation]
    for reason in _REASONS:
        those = [s for s in current if s.state == reason]
        if those:
            why = those[0].entry.get("problem") or reason
            return True, reason, f"{_names([s.node for s in those])}: {why}"
    failed = [s for s in current if s.entry.get("problem")]
    if failed:
        why = failed[0].entry["problem"]
        return True, "NotApplied", f"{_names([s.node for s in failed])}: {why}"
    if silent:
        return True, "NodesSilent", f"no word within a minute from {_names(silent)}"
    return False, "AsAsked", "every node that reports does what the policy asks"


def _names(nodes: list[str]) -> str:
    """
    >>> _names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(nodes) - 3} more" if len(nodes) > 3 else ""
    return ", ".join(nodes[:3]) + more


def _condition(
    kind: str,
    value: bool,
    reason: str,
    message: str,
    *,
    generation: int,
    before: Mapping[str, Any] | None,
    now: datetime,
) -> Object:
    status = "True" if value else "False"
    since = (before or {}).get("lastTransitionTime")
    if before is None or before.get("status") != status or not since:
        since = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": kind,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message[:32768],
    }
