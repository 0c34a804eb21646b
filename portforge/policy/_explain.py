"""A policy in sentences, with the evidence for each rule where there is some. Decides nothing."""

from __future__ import annotations

from numbers import Real
from typing import Any

import pandas as pd

from portforge.errors import CaptureError
from portforge.policy._approval import digest
from portforge.policy._model import Entity, Established, Mode, PeerSelector, PortPolicy, Rule
from portforge.policy._yaml import instant_text
from portforge.schema import Direction

__all__ = ["explain"]

_MODE = {
    Mode.RECORD: "nothing is judged, traffic is only recorded",
    Mode.AUDIT: "traffic that no rule allows passes and is recorded as audited",
    Mode.ENFORCE: "traffic that no rule allows is denied",
}
_ESTABLISHED = {
    Established.REJUDGE: "When the policy changes, open connections are judged again, maybe cut",
    Established.KEEP: "When the policy changes, open connections are kept",
}
_ENTITY = {
    Entity.NODE: "any node of the cluster",
    Entity.CLUSTER: "anything inside the cluster",
    Entity.WORLD: "anything outside the cluster",
}
_TOLD_ALREADY = frozenset(
    [
        "namespace",
        "policy",
        "rule",
        "workload_kind",
        "workload",
        "direction",
        "protocol",
        "port",
        "connections",
        "bytes",
        "hours",
        "days",
        "pods",
        "pods_total",
    ]
)


def _peer(selector: PeerSelector) -> str:
    if selector.workload is not None:
        namespace, kind, name = selector.workload
        return f"{kind} {name} in {namespace}"
    if selector.namespace is not None:
        return f"anything in namespace {selector.namespace}"
    if selector.cidr is not None:
        return f"addresses in {selector.cidr}"
    return _ENTITY[selector.entity or Entity.CLUSTER]


def _rule(rule: Rule, direction: str) -> str:
    who = "any peer" if rule.peers is None else " or ".join(map(_peer, rule.peers))
    ports = f"ports {rule.port} to {rule.end_port}" if rule.end_port else f"port {rule.port}"
    verb = "may connect to" if direction == Direction.INGRESS else "may be reached on"
    until = f", until {instant_text(rule.expires_at)}" if rule.expires_at else ""
    return f"  {rule.id}: {who} {verb} {rule.protocol} {ports}{until}"


def _told(value: object) -> str | None:
    """A cell as text; None where it says nothing."""
    if isinstance(value, pd.Timestamp):
        return None if pd.isna(value) else value.strftime("%Y-%m-%d %H:%M:%SZ")
    if hasattr(value, "__iter__") and not isinstance(value, str):
        return ", ".join(map(str, value)) or None
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        return f"{int(number):,}" if number == int(number) else f"{number:.4g}"
    return str(value) or None


def _evidence(record: dict[str, Any]) -> str:
    """One row of evidence.parquet in a sentence; columns it may gain are told by their name."""
    counts = (
        f"{_told(record['connections'])} connections, {_told(record['bytes'])} bytes, in "
        f"{_told(record['hours'])} hours of {_told(record['days'])} days, in "
        f"{_told(record['pods'])} of {_told(record['pods_total'])} pods"
    )
    told = ((str(name), _told(v)) for name, v in record.items() if name not in _TOLD_ALREADY)
    return "; ".join([counts, *(f"{n.replace('_', ' ')} {v}" for n, v in told if v is not None)])


def _by_rule(policy: PortPolicy, evidence: pd.DataFrame | None) -> dict[str, str] | None:
    """What was seen, by rule id; None where no evidence was given."""
    if evidence is None:
        return None
    missing = sorted(_TOLD_ALREADY - set(evidence.columns))
    if missing:
        raise CaptureError(
            f"evidence lacks the columns {', '.join(missing)}",
            remedy="give the evidence.parquet that portforge recommend wrote",
        )
    owner = ["namespace", "workload_kind", "workload"]
    mine = (evidence[owner].astype(object) == list(policy.workload)).all(axis=1)
    rows = evidence.loc[mine].astype(object).to_dict("records")
    return {str(row["rule"]): _evidence({str(k): v for k, v in row.items()}) for row in rows}


def explain(policy: PortPolicy, evidence: pd.DataFrame | None = None) -> str:
    """What ``policy`` does, in sentences, with what ``evidence`` says of each rule.

    Raises
    ------
    CaptureError: ``evidence`` is not that of ``recommend``.

    >>> from portforge.schema import Workload
    >>> print(explain(PortPolicy(namespace="shop", name="deployment-web",
    ...     workload=Workload("shop", "Deployment", "web"), mode=Mode.ENFORCE,
    ...     ingress=[Rule(id="in-tcp-80", protocol="TCP", port=80)])).splitlines()[3])
      in-tcp-80: any peer may connect to TCP port 80
    """
    seen = _by_rule(policy, evidence)
    namespace, kind, name = policy.workload
    lines = [f"{kind} {name} in {namespace} ({policy.mode}: {_MODE[policy.mode]})"]
    lines.append(f"{_ESTABLISHED[policy.established]}.")
    for direction in Direction:
        rules = policy.rules(direction)
        if rules is None:
            lines.append(f"{direction}: not restricted.")
            continue
        own = " (and its own node, for probes)" if direction == Direction.INGRESS else ""
        lines.append(
            f"{direction}: only what follows{own}." if rules else f"{direction}: nothing{own}."
        )
        for rule in rules:
            lines.append(_rule(rule, direction))
            if seen is not None:
                lines.append(f"    seen: {seen.get(rule.id, 'no evidence for this rule')}")
    if policy.expires_at is not None:
        lines.append(f"From {instant_text(policy.expires_at)} it restricts nothing.")
    lines.append(_approval(policy))
    return "\n".join(lines)


def _approval(policy: PortPolicy) -> str:
    if policy.approval is None:
        return "Not approved."
    told = f"approved by {policy.approval.by} at {instant_text(policy.approval.at)}"
    if policy.approval.digest != digest(policy):
        return f"Was {told}, but changed since: it needs approval again."
    return told[0].upper() + told[1:] + "."
