"""Edges: who did what with whom on which port, summed over the window. Decides nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from portforge.recommend._hours import Hours
from portforge.schema import Direction, Peer, PeerKind, Protocol, Verdict, Workload

__all__ = ["Edge", "Party", "edges_of", "party", "peer_text", "workload_of"]

Party = tuple[str, ...]
"""Who stands at one end: a workload, else an address."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One row of :meth:`portforge.capture.Capture.aggregated`."""

    workload: Workload | None
    direction: Direction
    protocol: Protocol
    port: int
    target_port: int | None
    peer: Peer
    verdict: Verdict
    own_node: bool
    rows: int
    connections: int
    bytes_sent: int
    bytes_received: int
    first_seen: datetime
    last_seen: datetime
    hours: Hours
    pods: tuple[str, ...]
    peer_names: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Payload both ways."""
        return self.bytes_sent + self.bytes_received

    @property
    def answered(self) -> bool:
        """The connection came about (TCP) or was delivered (UDP)."""
        return self.verdict in (Verdict.ALLOWED, Verdict.AUDITED)


def edges_of(frame: pd.DataFrame) -> list[Edge]:
    """The rows of ``Capture.aggregated()`` as objects, in their order."""
    return [
        Edge(
            workload=_workload(row),
            direction=Direction(row["direction"]),
            protocol=Protocol(row["protocol"]),
            port=int(row["port"]),
            target_port=None if pd.isna(row["target_port"]) else int(row["target_port"]),
            peer=Peer(
                _text(row["peer_ip"]),
                PeerKind(row["peer_kind"]),
                _text(row["peer_namespace"]),
                _text(row["peer_workload_kind"]),
                _text(row["peer_workload"]),
            ),
            verdict=Verdict(row["verdict"]),
            own_node=bool(row["own_node"]),
            rows=int(row["rows"]),
            connections=int(row["connections"]),
            bytes_sent=int(row["bytes_sent"]),
            bytes_received=int(row["bytes_received"]),
            first_seen=row["first_seen"].to_pydatetime(),
            last_seen=row["last_seen"].to_pydatetime(),
            hours=Hours(row["hours"]),
            pods=tuple(_items(row["pods"])),
            peer_names=tuple(_items(row["peer_names"])),
        )
        for row in frame.to_dict("records")
    ]


def workload_of(peer: Peer) -> Workload | None:
    """The workload that the peer is, or that stands behind the Service that it is.

    >>> workload_of(Peer("10.96.0.5", PeerKind.SERVICE, "shop", "Deployment", "cart"))
    Workload(namespace='shop', kind='Deployment', name='cart')
    >>> workload_of(Peer("10.77.0.1", PeerKind.NODE, None, "Node", "node-a"))
    """
    if peer.kind not in (PeerKind.WORKLOAD, PeerKind.SERVICE):
        return None
    if peer.namespace is None or peer.workload_kind is None or peer.workload is None:
        return None
    return Workload(peer.namespace, peer.workload_kind, peer.workload)


def party(peer: Peer) -> Party | None:
    """The peer as one end of an edge; None when it was lost.

    >>> party(Peer("10.0.0.1", PeerKind.WORKLOAD, "shop", "Deployment", "cart"))
    ('shop', 'Deployment', 'cart')
    >>> party(Peer("192.0.2.1", PeerKind.EXTERNAL))
    ('192.0.2.1',)
    """
    if peer.workload is not None and peer.workload_kind is not None:
        return (peer.namespace or "", peer.workload_kind, peer.workload)
    return None if peer.ip is None else (peer.ip,)


def peer_text(peer: Peer, names: Iterable[str] = ()) -> str:
    """The peer as an analyst would name it.

    >>> peer_text(Peer("192.0.2.1", PeerKind.EXTERNAL), ["www.example.com"])
    '192.0.2.1 (www.example.com)'
    >>> peer_text(Peer(None, PeerKind.UNKNOWN))
    'lost'
    """
    if peer.kind == PeerKind.NODE:
        return f"node {peer.workload or peer.ip}"
    if peer.workload is not None:
        return "/".join(part for part in peer[2:] if part)
    if peer.ip is None:
        return "lost"
    name = " ".join(names)
    text = f"{peer.ip} ({name})" if name else peer.ip
    return text if peer.kind == PeerKind.EXTERNAL else f"{peer.kind} {text}"


def _workload(row: Mapping[Hashable, Any]) -> Workload | None:
    parts = [_text(row[name]) for name in ("namespace", "workload_kind", "workload")]
    namespace, kind, name = parts
    if kind is None or name is None or (namespace is None and kind != "Node"):
        return None
    return Workload(namespace or "", kind, name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _items(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, Iterable) else []
