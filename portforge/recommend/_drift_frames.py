"""The rows and frames of a drift. Says what was found; finds nothing itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pandas as pd

from portforge.policy import PeerSelector, PortPolicy, Rule
from portforge.policy._approval import digest
from portforge.policy._yaml import _rule as _plain
from portforge.recommend._drift_missing import Missing, New
from portforge.recommend._drift_use import Known, Use, days_of, latest
from portforge.recommend._edges import Edge, peer_text
from portforge.recommend._hours import all_hours
from portforge.recommend._options import Options
from portforge.recommend._rules import learn_rules, peers_seen
from portforge.schema import Verdict

__all__ = [
    "COLUMNS",
    "REMOVE",
    "denied_of",
    "denied_row",
    "expiry_rows",
    "frame",
    "missing_row",
    "new_row",
    "rule_row",
    "workload_row",
]

REMOVE = ("unused", "never")
"""The states of rules to remove."""

_LISTED = 10
_T = "datetime64[us, UTC]"
_OWNER = dict.fromkeys(["namespace", "workload_kind", "workload", "policy"], "str")
_RULE = {**_OWNER, "direction": "str", "rule": "str", "protocol": "str", "ports": "str"}
_SEEN = {
    "connections": "int64",
    "bytes": "int64",
    "hours": "int64",
    "days": "int64",
    "pods": "int64",
    "first_seen": _T,
    "last_seen": _T,
}
_EDGE = {
    **_OWNER,
    "direction": "str",
    "protocol": "str",
    "port": "int64",
    "peer": "str",
    **_SEEN,
}
COLUMNS: dict[str, dict[str, str]] = {
    "rules": {
        **_RULE,
        "peers": "str",
        "state": "str",
        "why": "str",
        **_SEEN,
        "uncertain": "int64",
        "unused_peers": "str",
        "narrower": "str",
        "expires_at": _T,
        "proposed_expires_at": _T,
    },
    "missing": {
        **_RULE,
        "what": "str",
        "peers": "str",
        "seen_peers": "str",
        **_SEEN,
        "over_grant": "str",
        "reason": "str",
        "since_approval": "bool",
        "add": "str",
    },
    "expiry": {
        **_OWNER,
        "direction": "str",
        "rule": "str",
        "expires_at": _T,
        "state": "str",
        "last_seen": _T,
        "proposal": "str",
    },
    "since_approval": {
        **_EDGE,
        "decision": "str",
        "rule": "str",
    },
    "denied": _EDGE,
    "workloads": {
        **_OWNER,
        "mode": "str",
        "approval": "str",
        "approved_at": _T,
        "last_seen": _T,
        **dict.fromkeys(
            ["rules", "used", "add", "remove", "narrow", "expiry", "since_approval", "denied"],
            "int64",
        ),
    },
}
"""The frames of a drift, their columns and types."""


def frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows under one name in the frame's columns and types."""
    types = COLUMNS[name]
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def rule_row(
    policy: PortPolicy, use: Use, known: Known, soon: timedelta, options: Options
) -> dict[str, Any]:
    """One rule and what became of it."""
    rule = use.rule
    proposed = None
    if use.state == "unused":
        later = known.now + soon + timedelta(days=1)
        proposed = later.replace(hour=0, minute=0, second=0, microsecond=0)
        if rule.expires_at is not None and rule.expires_at <= proposed:
            proposed = None
    return {
        **_owner(policy),
        **_rule(str(use.direction), rule),
        "peers": "any peer" if rule.peers is None else ", ".join(map(str, rule.peers)),
        "state": use.state,
        "why": use.why,
        **_seen(use.edges),
        "uncertain": sum(edge.connections for edge in use.uncertain),
        "unused_peers": ", ".join(map(str, use.unused_peers)),
        "narrower": _narrower(use, options),
        "expires_at": rule.expires_at,
        "proposed_expires_at": proposed,
    }


def missing_row(one: Missing) -> dict[str, Any]:
    """One rule to add, or one to add peers to."""
    edges, approval = one.learned.edges, one.policy.approval
    add = json.dumps(_plain(one.rule), sort_keys=True)
    return {
        **_owner(one.policy),
        **_rule(str(one.learned.direction), one.rule),
        "what": one.what,
        "peers": "any peer" if one.peers is None else ", ".join(map(str, one.peers)),
        "seen_peers": peers_seen(one.learned),
        **_seen(edges),
        "over_grant": "; ".join(one.learned.over_grant),
        "reason": "; ".join(one.learned.reasons),
        "since_approval": bool(edges)
        and approval is not None
        and min(edge.first_seen for edge in edges) > approval.at,
        "add": add,
    }


def expiry_rows(
    policy: PortPolicy, used: Iterable[Use], known: Known, soon: timedelta
) -> list[dict[str, Any]]:
    """The policy and its rules that have expired, or will within ``soon``."""
    rows = []

    def add(use: Use | None, at: datetime | None, needed: bool, then: str) -> None:
        if at is None or at > known.now + soon:
            return
        rows.append(
            {
                **_owner(policy),
                "direction": None if use is None else str(use.direction),
                "rule": None if use is None else use.rule.id,
                "expires_at": at,
                "state": "expired" if at <= known.now else "expiring",
                "last_seen": None if use is None else use.last_seen,
                "proposal": f"renew: {then}" if needed else "let it go: not needed",
            }
        )

    add(None, policy.expires_at, True, "from then on it restricts nothing")
    for use in used:
        recent = [*use.edges, *use.tried, *use.uncertain, *use.dns]
        needed = use.state != "never" and not known.old(latest(recent))
        add(use, use.rule.expires_at, needed, "it is used")
    return rows


def new_row(policy: PortPolicy, one: New) -> dict[str, Any]:
    """One port and peer first seen after the approval."""
    return {
        **_owner(policy),
        **_service(one.edges[0]),
        **_seen(one.edges),
        "decision": one.decision,
        "rule": one.rule,
    }


def denied_of(edges: Iterable[Edge], needed: Collection[Edge]) -> list[Edge]:
    """What was denied when it was recorded, but what a decision learns."""
    return [edge for edge in edges if edge.verdict == Verdict.DENIED and edge not in needed]


def denied_row(policy: PortPolicy, edge: Edge) -> dict[str, Any]:
    """One port and peer that was denied."""
    return {**_owner(policy), **_service(edge), **_seen([edge])}


def workload_row(
    policy: PortPolicy, edges: list[Edge], parts: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """One policy in numbers. ``approval``: approved, changed (since), or none."""
    approval = policy.approval
    state = "none"
    if approval is not None:
        state = "approved" if approval.digest == digest(policy) else "changed"
    rules = parts["rules"]
    return {
        **_owner(policy),
        "mode": str(policy.mode),
        "approval": state,
        "approved_at": None if approval is None else approval.at,
        "last_seen": latest(edges),
        "rules": len(rules),
        "used": sum(row["state"] == "used" for row in rules),
        "add": len(parts["missing"]),
        "remove": sum(row["state"] in REMOVE for row in rules),
        "narrow": sum(row["unused_peers"] != "" for row in rules),
        **{name: len(parts[name]) for name in ("expiry", "since_approval", "denied")},
    }


def _narrower(use: Use, options: Options) -> str:
    """What a rule open to a class of peers, or to a range of ports, was used for."""
    peers = use.rule.peers
    wide = peers is None or any(map(_is_wide, peers))
    edges = [*use.edges, *use.tried, *use.dns]
    if not edges or use.uncertain or use.state in REMOVE:
        return ""
    told = []
    if wide:
        made = learn_rules(edges, frozenset(), options)
        seen = {peer for one in made if one.edges for peer in one.rule.peers or ()}
        known = all(one.rule.peers for one in made if one.edges)
        if known and not (peers is not None and seen >= set(peers)):
            names = sorted(seen, key=lambda peer: peer.sort_key)
            told.append("peers: " + ", ".join(map(str, names)))
    ports = sorted({edge.port for edge in edges})
    width = use.rule.last_port - use.rule.port + 1
    if len(ports) < width and not use.dns:
        some = f"{len(ports)} of {width}, {ports[0]} to {ports[-1]}"
        told.append("ports: " + (", ".join(map(str, ports)) if len(ports) <= _LISTED else some))
    return "; ".join(told)


def _is_wide(peer: PeerSelector) -> bool:
    if peer.cidr is not None:
        return ip_network(peer.cidr).num_addresses > 1
    return peer.workload is None


def _owner(policy: PortPolicy) -> dict[str, Any]:
    return dict(zip(_OWNER, (*policy.workload, policy.name), strict=True))


def _rule(direction: str, rule: Rule) -> dict[str, Any]:
    return {
        "direction": direction,
        "rule": rule.id,
        "protocol": str(rule.protocol),
        "ports": rule.ports,
    }


def _service(edge: Edge) -> dict[str, Any]:
    return {
        "direction": str(edge.direction),
        "protocol": str(edge.protocol),
        "port": edge.port,
        "peer": peer_text(edge.peer, edge.peer_names),
    }


def _seen(edges: Sequence[Edge]) -> dict[str, Any]:
    return {
        "connections": sum(edge.connections for edge in edges),
        "bytes": sum(edge.bytes for edge in edges),
        "hours": len(all_hours(edge.hours for edge in edges)),
        "days": days_of(edges),
        "pods": len({pod for edge in edges for pod in edge.pods}),
        "first_seen": min((edge.first_seen for edge in edges), default=None),
        "last_seen": latest(edges),
    }
