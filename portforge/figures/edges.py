"""Flows to the edges of the workload map: who opened connections to whom. No drawing here."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from portforge.figures.style import plain, workload_names
from portforge.schema import Direction, PeerKind, Verdict

OUTSIDE = "outside the cluster"
UNKNOWN = "unknown, in the cluster"
LOST = "peers not recorded"


class Edge(NamedTuple):
    """Connections from one point to another. ``ports`` reads ``TCP 80`` or ``TCP ×990``."""

    source: str
    target: str
    ports: str
    verdict: str
    connections: int


def edges(flows: pd.DataFrame, *, most_ports: int = 4) -> list[Edge]:
    """One edge for each pair, port and verdict, in a fixed order.

    Traffic between two recorded pods is seen twice, at each end; the larger count is taken, never
    the sum. The port is the backend's (``target_port``) where a Service stood between, so that
    both ends agree. More than ``most_ports`` ports of one pair and verdict become one edge.
    """
    rows = plain(flows)
    real = (rows["peer_kind"] != PeerKind.LOOPBACK) & (rows["verdict"] != Verdict.LISTENING)
    rows = rows[real & (rows["connections"] > 0)].reset_index(drop=True)
    if rows.empty:
        return []
    here = workload_names(rows)
    there = _peer_names(rows)
    out = rows["direction"] == Direction.EGRESS
    port = rows["target_port"].where(out & rows["target_port"].notna(), rows["port"])
    rows = pd.DataFrame(
        {
            "source": here.where(out, there),
            "target": there.where(out, here),
            "protocol": rows["protocol"],
            "port": port.astype("int64"),
            "verdict": rows["verdict"],
            "direction": rows["direction"],
            "connections": rows["connections"],
        }
    )
    key = ["source", "target", "protocol", "port", "verdict"]
    seen = rows.groupby([*key, "direction"])["connections"].sum()
    once = seen.groupby(level=key).max().reset_index()
    found: list[Edge] = []
    for (source, target, verdict), group in once.groupby(["source", "target", "verdict"]):
        ends = (str(source), str(target))
        if len(group) > most_ports:
            text = "/".join(sorted(group["protocol"].unique())) + f" ×{len(group):,}"
            found.append(Edge(*ends, text, str(verdict), int(group["connections"].sum())))
            continue
        for protocol, number, count in zip(
            group["protocol"], group["port"], group["connections"], strict=True
        ):
            text = f"{protocol} {number}" if number else str(protocol)
            found.append(Edge(*ends, text, str(verdict), int(count)))
    return found


def _peer_names(rows: pd.DataFrame) -> pd.Series[str]:
    peers = rows.assign(
        namespace=rows["peer_namespace"],
        workload_kind=rows["peer_workload_kind"],
        workload=rows["peer_workload"],
    )
    names = workload_names(peers)
    fixed = {PeerKind.EXTERNAL: OUTSIDE, PeerKind.UNKNOWN: UNKNOWN}
    for kind, label in fixed.items():
        names = names.where(rows["peer_kind"] != kind, label)
    nameless = rows["peer_workload"].isna()
    names = names.where(~(nameless & rows["peer_kind"].isin(["workload", "service"])), UNKNOWN)
    names = names.where(~(nameless & (rows["peer_kind"] == PeerKind.NODE)), "node")
    return names.where(rows["peer_ip"].notna(), LOST)
