"""Build captures from a few words per row. For tests only; the recorder has its own writer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from portforge.schema import FLOW_SCHEMA, LOSS_PREFIX, LOSS_SCHEMA

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
"""A Monday morning: the ``at=0`` of every row."""

Row = dict[str, Any]


def row(
    workload: str | None, direction: str, protocol: str, port: int, peer: str | None, **other: Any
) -> Row:
    """One flow record.

    Parameters
    ----------
    workload: name of a Deployment in ``shop``, or None where it is not known.
    peer: a name (a Deployment in ``shop``), an address (external), or None (lost).
    other: columns to overwrite; ``at`` hours after START; ``lasts`` seconds.
    """
    first = START + timedelta(hours=other.pop("at", 0))
    base: Row = {
        "first_seen": first,
        "last_seen": first + timedelta(seconds=other.pop("lasts", 5)),
        "node": "node-a",
        "namespace": workload and "shop",
        "workload_kind": workload and "Deployment",
        "workload": workload,
        "pod": workload and f"{workload}-1",
        "direction": direction,
        "protocol": protocol,
        "port": port,
        "target_port": None,
        "peer_name": None,
        "verdict": "allowed",
        "connections": 10,
        "bytes_sent": 1000,
        "bytes_received": 1000,
        "rtt_us": None,
        "retransmits": 0,
        "rule": None,
        **_peer(peer),
    }
    assert set(other) <= set(base), set(other) - set(base)
    return base | other


def loss(reason: str, count: int, at: float = 0, node: str = "node-a") -> Row:
    """One loss record."""
    begin = START + timedelta(hours=at)
    end = begin + timedelta(seconds=10)
    return {
        "node": node,
        "interval_start": begin,
        "interval_end": end,
        "reason": reason,
        "count": count,
    }


def write_capture(
    folder: Path, rows: Iterable[Row], losses: Iterable[Row] = (), cluster: str = "demo"
) -> Path:
    """Write rows and losses below ``folder`` in the contract's layout; returns ``folder``."""
    days: dict[str, list[Row]] = defaultdict(list)
    for one in rows:
        days[one["first_seen"].date().isoformat()].append(one)
    for day, some in days.items():
        write_file(folder, "node-a-20260302T080000Z-0.parquet", some, day=day, cluster=cluster)
    lost = list(losses)
    if lost:
        name = f"{LOSS_PREFIX}node-a-20260302T080000Z-0.parquet"
        write_file(folder, name, lost, schema=LOSS_SCHEMA, cluster=cluster)
    return folder


def write_file(
    folder: Path,
    name: str,
    rows: list[Row],
    *,
    schema: pa.Schema = FLOW_SCHEMA,
    day: str = "2026-03-02",
    cluster: str = "demo",
) -> Path:
    """Write one Parquet file at its place in the layout; returns its path."""
    place = folder / "v1" / f"cluster={cluster}" / f"date={day}"
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), place / name, compression="zstd")
    return place / name


def _peer(peer: str | None) -> Row:
    none = {"peer_namespace": None, "peer_workload_kind": None, "peer_workload": None}
    if peer is None:
        return {"peer_ip": None, "peer_kind": "unknown", **none}
    if peer[0].isdigit() or ":" in peer:
        return {"peer_ip": peer, "peer_kind": "external", **none}
    if peer.startswith("node-"):
        return {
            "peer_ip": "10.77.0.1" if peer == "node-a" else "10.77.0.2",
            "peer_kind": "node",
            "peer_namespace": None,
            "peer_workload_kind": "Node",
            "peer_workload": peer,
        }
    return {
        "peer_ip": f"10.77.1.{sum(peer.encode()) % 250 + 1}",
        "peer_kind": "workload",
        "peer_namespace": "shop",
        "peer_workload_kind": "Deployment",
        "peer_workload": peer,
    }
