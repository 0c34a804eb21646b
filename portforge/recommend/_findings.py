"""Findings: everything seen that is not a rule, each kind with the reason. Learns nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from portforge.capture import Window
from portforge.recommend._edges import Edge, Party, peer_text
from portforge.recommend._one_sided import ends
from portforge.recommend._severity import Level, facts_of, severity
from portforge.schema import Workload

__all__ = ["FINDINGS", "KINDS", "ONLY_INSIDE", "Left", "findings_frame"]

KINDS: dict[str, str] = {
    "scan": "a scanner's connections, kept out of every rule",
    "beacon": "regular calls of next to no payload to one peer outside; odd ones are kept out",
    "first_time": "a first contact with a sensitive port, late and on one day; kept out",
    "one_sided": "a few answers of next to no payload, as a short scan gets; kept out",
    "outlier": "learned, and unlike all other connections: look at it",
    "never": "the analyst decided that it is never learned",
    "denied": "refused by a policy",
    "refused": "nobody listened",
    "failed": "opened, never answered",
    "unanswered": "UDP sent, nothing came back",
    "unused_listener": "a listener that nothing used",
    "dynamic_ports": "ports that change; no rule can list them",
    "unknown_peer": "an address of the cluster that belongs to no known workload",
    "lost_peer": "counted without the peer: the recorder's map was full",
    "unattributed": "rows that belong to no known pod",
    "host_network": "pods on the node's own network; no policy can be written for them",
    "own_node": "from the pod's own node (kubelet probes): always allowed, needs no rule",
    "loopback": "inside the pod: never judged",
    "unjudged_protocol": "ICMP and SCTP pass unjudged",
    "ephemeral_socket": "UDP sockets on ephemeral ports: the local end of a client",
    "port_zero": "port 0 is no service",
}
"""Every kind of finding and what it means; the most urgent first."""

ONLY_INSIDE = "used only from inside the pod"
"""Why a listener is no rule, and need not become one."""

_WHOLE = frozenset({"loopback", "host_network", "unjudged_protocol", "ephemeral_socket"})
_PORTLESS = _WHOLE | {"scan", "dynamic_ports", "unattributed"}
_PEERLESS = _WHOLE | {"unattributed", "dynamic_ports", "unused_listener"}

_instant = pa.timestamp("us", tz="UTC")
FINDINGS = pa.schema(
    [
        ("severity", pa.string()),
        ("kind", pa.string()),
        ("namespace", pa.string()),
        ("workload_kind", pa.string()),
        ("workload", pa.string()),
        ("direction", pa.string()),
        ("protocol", pa.string()),
        ("port", pa.int32()),
        ("peer", pa.string()),
        ("ports", pa.int32()),
        ("connections", pa.int64()),
        ("bytes", pa.int64()),
        ("first_seen", _instant),
        ("last_seen", _instant),
        ("reason", pa.string()),
        ("decision", pa.string()),
    ]
)
"""Columns of findings.parquet. ``port`` and ``peer`` are null where a finding covers many;
``decision`` where the analyst has not decided. The most urgent ``severity`` first."""


@dataclass(frozen=True, slots=True)
class Left:
    """One edge that is (also) a finding.

    ``learned``: it is part of a rule all the same. ``decision``: what the analyst said about it.
    """

    edge: Edge
    kind: str
    reason: str
    learned: bool = False
    decision: str | None = None


def findings_frame(left: Iterable[Left], window: Window) -> pd.DataFrame:
    """One row per finding: edges of one kind, workload, port and peer are summed."""
    left = list(left)
    groups: defaultdict[tuple[Any, ...], list[Left]] = defaultdict(list)
    for one in left:
        groups[_key(one)].append(one)
    touched = _touched(left)
    recent = window.end - (window.end - window.start) / 10
    rows = [
        {"severity": _severity(some, touched, recent)} | _row(key, [one.edge for one in some])
        for key, some in groups.items()
    ]
    order = {kind: place for place, kind in enumerate(KINDS)}
    levels = list(Level)
    rows.sort(
        key=lambda r: (
            levels.index(Level(r["severity"])),
            order[r["kind"]],
            *(str(r[n]) for n in FINDINGS.names[2:7]),
            r["port"] or 0,
            str(r["peer"]),
            r["reason"],
            r["decision"] or "",
        )
    )
    return _frame(rows)


_Touched = dict[tuple[str, Party], set[Party]]


def _touched(left: Iterable[Left]) -> _Touched:
    """The targets of each source, by kind of finding."""
    found: _Touched = {}
    for one in left:
        if both := ends(one.edge):
            found.setdefault((one.kind, both[0]), set()).add(both[1])
    return found


def _severity(some: list[Left], touched: _Touched, recent: datetime) -> str:
    kind = some[0].kind
    pairs = [both for one in some if (both := ends(one.edge))]
    targets = max((len(touched[kind, source]) for source, _ in pairs), default=0)
    learned = all(one.learned for one in some)
    facts = facts_of([one.edge for one in some], targets, recent, learned)
    return str(severity(kind, facts, to_learn=learned and some[0].decision is not None))


def _key(one: Left) -> tuple[Any, ...]:
    edge, kind = one.edge, one.kind
    subject = edge.workload if edge.workload and kind != "unattributed" else None
    port = None if kind in _PORTLESS else edge.port
    peer = None if kind in _PEERLESS else peer_text(edge.peer, edge.peer_names)
    protocol = (
        None
        if kind in {"loopback", "host_network", "unattributed", "scan"}
        else (str(edge.protocol))
    )
    return (kind, subject, str(edge.direction), protocol, port, peer, one.reason, one.decision)


def _row(key: tuple[Any, ...], edges: list[Edge]) -> dict[str, Any]:
    kind, subject, direction, protocol, port, peer, reason, decision = key
    namespace, workload_kind, workload = subject or Workload(None, None, None)  # type: ignore[arg-type]
    first: datetime = min(edge.first_seen for edge in edges)
    return {
        "kind": kind,
        "namespace": namespace,
        "workload_kind": workload_kind,
        "workload": workload,
        "direction": direction,
        "protocol": protocol,
        "port": port,
        "peer": peer,
        "ports": len({(edge.protocol, edge.port) for edge in edges}),
        "connections": sum(edge.connections for edge in edges),
        "bytes": sum(edge.bytes for edge in edges),
        "first_seen": first,
        "last_seen": max(edge.last_seen for edge in edges),
        "reason": reason,
        "decision": decision,
    }


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame: pd.DataFrame = pa.Table.from_pylist(rows, schema=FINDINGS).to_pandas()
    ports = [row["port"] for row in rows]
    frame["port"] = pd.array(ports, dtype=pd.Int32Dtype())
    return frame
