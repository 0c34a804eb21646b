"""Contract 1: the flow record, its layout on disk, and the loss record. Nothing else.

One row is what one pod did on one port with one peer in one drain interval. The recorder
writes it, the library reads it; both import this module. A change here is a new
``SCHEMA_VERSION``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import pyarrow as pa

__all__ = [
    "COLUMNS",
    "FLOW_SCHEMA",
    "LOSS_PREFIX",
    "LOSS_SCHEMA",
    "SCHEMA_VERSION",
    "SORT_COLUMNS",
    "VERSION_KEY",
    "Column",
    "Direction",
    "LossReason",
    "Peer",
    "PeerKind",
    "Protocol",
    "Verdict",
    "Workload",
]

SCHEMA_VERSION = 1
VERSION_KEY = b"portforge.schema"
"""Key in the Parquet file's metadata; its value is the schema version as ASCII digits."""

LOSS_PREFIX = "_loss-"
"""Files with this prefix hold losses, not flows."""


class Direction(StrEnum):
    """Who opened the connection: ``ingress`` the peer, ``egress`` this pod."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Protocol(StrEnum):
    """Transport protocol."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"


class PeerKind(StrEnum):
    """What the peer address is, as far as the recorder could tell."""

    WORKLOAD = "workload"
    SERVICE = "service"
    NODE = "node"
    EXTERNAL = "external"
    LOOPBACK = "loopback"
    UNKNOWN = "unknown"


class Verdict(StrEnum):
    """What became of the connection."""

    ALLOWED = "allowed"
    DENIED = "denied"
    AUDITED = "audited"
    REFUSED = "refused"
    FAILED = "failed"
    LISTENING = "listening"


class Workload(NamedTuple):
    """The top of a pod's owner chain: what a policy is written for.

    >>> Workload("shop", "Deployment", "cart").slug
    'deployment-cart'
    """

    namespace: str
    kind: str
    name: str

    @property
    def slug(self) -> str:
        """``kind-name`` in lower case: the name of this workload's policy."""
        return f"{self.kind}-{self.name}".lower()


class Peer(NamedTuple):
    """The peer columns of a row. ``ip`` is None when peers overflowed.

    For ``PeerKind.NODE``, ``workload_kind`` is ``Node`` and ``workload`` the node's name.
    """

    ip: str | None
    kind: PeerKind
    namespace: str | None = None
    workload_kind: str | None = None
    workload: str | None = None


class LossReason(StrEnum):
    """Why the record is less than what happened. ``count`` counts events unless said."""

    PEERS_OVERFLOWED = "peers_overflowed"
    """The flow map was full: counted per port, without the peer."""
    FLOWS_OVERFLOWED = "flows_overflowed"
    """Both flow maps were full: the event is in this count only."""
    SOCKET_STORAGE = "socket_storage"
    """The kernel had no memory to follow a socket."""
    UNPARSED = "unparsed"
    """A packet whose headers could not be read; it passed unjudged."""
    PODS_OVERFLOWED = "pods_overflowed"
    """The pod map was full: a new pod was not registered."""
    LISTENERS_OVERFLOWED = "listeners_overflowed"
    """The listener map was full: a listener was not recorded."""
    UNPLACED = "unplaced"
    """A closed-port attempt in a network namespace that belongs to no known pod of this node."""
    UNATTRIBUTED = "unattributed"
    """Rows (not events) whose cgroup could not be resolved to a pod; recorded with nulls."""
    IDENTITY_STALE = "stale_identity"
    """Rows (not events) attributed with what was known of the cluster, while the API server had
    not been heard from for more than 60 s."""
    RECORDER_DOWN = "recorder_down"
    """No recorder ran in this interval: the kernel went on counting; ``count`` is seconds."""
    PROGRAMS_REPLACED = "programs_replaced"
    """Counts of programs of another layout, replaced before they were drained, unreadable.
    ``count`` is 1 for each replacement."""
    WRITE_FAILED = "write_failed"
    """Rows (not events) that could not be written to disk."""


@dataclass(frozen=True)
class Column:
    """One column of the flow record: its name, Arrow type, nullability, unit and meaning."""

    name: str
    type: pa.DataType
    nullable: bool
    unit: str
    meaning: str


_text = pa.dictionary(pa.int32(), pa.string())
_instant = pa.timestamp("us", tz="UTC")


def _column(
    name: str, type_: pa.DataType, meaning: str, *, null: bool = False, unit: str = ""
) -> Column:
    return Column(name, type_, null, unit, meaning)


COLUMNS: tuple[Column, ...] = (
    _column("first_seen", _instant, "first event in the row", unit="µs since the epoch, UTC"),
    _column("last_seen", _instant, "last event in the row", unit="µs since the epoch, UTC"),
    _column("node", _text, "the node that recorded it"),
    _column("namespace", _text, "namespace of the pod; null when not known", null=True),
    _column("workload_kind", _text, "kind of the top owner; Node for hostNetwork", null=True),
    _column("workload", _text, "name of the top owner; null when not known", null=True),
    _column("pod", _text, "name of the pod; null when not known", null=True),
    _column("direction", _text, "ingress: the peer opened it; egress: this pod did"),
    _column("protocol", _text, "TCP, UDP, SCTP or ICMP"),
    _column("port", pa.int32(), "the service side's port; 0 for ICMP and SCTP", unit="port"),
    _column(
        "target_port", pa.int32(), "the backend's port behind a Service", null=True, unit="port"
    ),
    _column("peer_ip", _text, "canonical address; null when peers overflowed", null=True),
    _column("peer_kind", _text, "workload, service, node, external, loopback or unknown"),
    _column("peer_namespace", _text, "namespace of the peer", null=True),
    _column("peer_workload_kind", _text, "kind of the peer's top owner", null=True),
    _column("peer_workload", _text, "name of the peer's top owner", null=True),
    _column("peer_name", _text, "DNS name of the peer, where known", null=True),
    _column("verdict", _text, "allowed, denied, audited, refused, failed or listening"),
    _column(
        "connections", pa.int64(), "connections opened, or UDP flows begun", unit="connections"
    ),
    _column("bytes_sent", pa.int64(), "payload sent by the pod", unit="bytes"),
    _column("bytes_received", pa.int64(), "payload received by the pod", unit="bytes"),
    _column("rtt_us", pa.int64(), "largest smoothed round trip", null=True, unit="µs"),
    _column("retransmits", pa.int64(), "segments sent again", unit="segments"),
    _column("rule", _text, "id of the rule that decided", null=True),
)
"""The columns of a flow file, in order. ``cluster`` and ``date`` stand in the path only."""

FLOW_SCHEMA: pa.Schema = pa.schema(
    [pa.field(c.name, c.type, c.nullable, {"unit": c.unit, "meaning": c.meaning}) for c in COLUMNS],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)

LOSS_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("node", _text, nullable=False),
        pa.field("interval_start", _instant, nullable=False),
        pa.field("interval_end", _instant, nullable=False),
        pa.field("reason", _text, nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)

SORT_COLUMNS = ("namespace", "workload_kind", "workload", "direction", "port", "first_seen")
"""Rows of one file are sorted by these, so that readers skip what they do not ask for."""
