"""A policy in sentences, with the evidence for each rule where there is some. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Real

import pandas as pd

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
    Established.REJUDGE: "when the policy changes, open connections are judged again, maybe cut",
    Established.KEEP: "when the policy changes, open connections are kept",
}
_ENTITY = {
    Entity.NODE: "any node of the cluster",
    Entity.CLUSTER: "anything inside the cluster",
    Entity.WORLD: "anything outside the cluster",
}
_RULE_COLUMNS = ("rule", "rule_id")
_OWNER_COLUMNS: dict[str, Callable[[PortPolicy], str]] = {
    "namespace": lambda p: p.namespace,
    "policy": lambda p: p.name,
    "name": lambda p: p.name,
    "workload_kind": lambda p: p.workload.kind,
    "workload": lambda p: p.workload.name,
}
_TOLD_BY_THE_RULE = {"direction", "protocol", "port", "end_port", "cluster"}


def _peer(selector: PeerSelector) -> str:
    if selector.workload is not None:
        namespace, kind, name = selector.workload
        return f"{kind} {name} in {namespace}"
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


def _evidence(rows: pd.DataFrame) -> Iterator[str]:
    skip = {*_RULE_COLUMNS, *_OWNER_COLUMNS, *_TOLD_BY_THE_RULE}
    for record in rows.to_dict("records"):
        told = ((str(name), _told(value)) for name, value in record.items() if name not in skip)
        facts = [f"{name.replace('_', ' ')} {text}" for name, text in told if text is not None]
        if facts:
            yield "    seen: " + "; ".join(facts)


def _of(policy: PortPolicy, evidence: pd.DataFrame) -> pd.DataFrame:
    mine = pd.Series(True, index=evidence.index)
    for column, value in _OWNER_COLUMNS.items():
        if column in evidence.columns:
            mine &= evidence[column].astype(object) == value(policy)
    return evidence.loc[mine]


def explain(policy: PortPolicy, evidence: pd.DataFrame | None = None) -> str:
    """What ``policy`` does, in sentences; ``evidence`` is that of ``recommend``, by rule id.

    >>> from portforge.schema import Workload
    >>> print(explain(PortPolicy(namespace="shop", name="deployment-web",
    ...     workload=Workload("shop", "Deployment", "web"), mode=Mode.ENFORCE,
    ...     ingress=[Rule(id="in-tcp-80", protocol="TCP", port=80)])).splitlines()[3])
      in-tcp-80: any peer may connect to TCP port 80
    """
    mine = None if evidence is None else _of(policy, evidence)
    column = next((c for c in _RULE_COLUMNS if mine is not None and c in mine.columns), None)
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
            if mine is not None and column is not None:
                rows = mine.loc[mine[column].astype(object) == rule.id]
                lines += list(_evidence(rows)) or ["    seen: no evidence for this rule"]
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
