"""Contract 3 in Python: the layout of every BPF map. Says the same as ``bpf/layout.h``.

Structures are numpy dtypes, so that a batch read from the kernel is a table at once.
``tests/kernel/test_layout.py`` compares them with the BTF of the loaded maps.

>>> FLOW_KEY.itemsize, FLOW.itemsize
(32, 56)
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from portforge.schema import LossReason

__all__ = [
    "ADDRESS",
    "ANSWER",
    "CONFIG",
    "FLOW",
    "FLOW_KEY",
    "KERNEL_LOSSES",
    "LEVEL_UNKNOWN",
    "LISTENER",
    "LISTENER_KEY",
    "MAPS",
    "PEER",
    "PEER_KEY",
    "POD",
    "POD_NAME",
    "PRIVATE",
    "PROTOCOLS",
    "RINGS",
    "RULE",
    "RULE_KEY",
    "UID",
    "Direction",
    "Established",
    "MapLayout",
    "Mode",
    "Restrict",
    "Rows",
    "Scope",
    "Verdict",
    "as_bytes",
    "as_rows",
    "packed_address",
    "unpacked_address",
]


class Direction(IntEnum):
    """Who opened the connection."""

    INGRESS = 0
    EGRESS = 1


class Verdict(IntEnum):
    """What became of it."""

    ALLOWED = 0
    DENIED = 1
    AUDITED = 2
    REFUSED = 3
    FAILED = 4


class Mode(IntEnum):
    """What a policy does."""

    RECORD = 0
    AUDIT = 1
    ENFORCE = 2


class Established(IntEnum):
    """What a change of policy does to open connections."""

    REJUDGE = 0
    KEEP = 1


class Restrict(IntEnum):
    """Bits of ``POD.restricted``."""

    INGRESS = 1
    EGRESS = 2


class Scope(IntEnum):
    """Whether the traffic left the pod."""

    REMOTE = 0
    LOOPBACK = 1


PROTOCOLS = {"ICMP": 1, "TCP": 6, "UDP": 17, "SCTP": 132}
"""Protocol name to IP protocol number; ICMPv6 (58) is recorded as 1."""

KERNEL_LOSSES = (
    LossReason.PEERS_OVERFLOWED,
    LossReason.FLOWS_OVERFLOWED,
    LossReason.SOCKET_STORAGE,
    LossReason.UNPARSED,
    LossReason.PODS_OVERFLOWED,
    LossReason.LISTENERS_OVERFLOWED,
    LossReason.UNPLACED,
)
"""Loss reasons by their index in the kernel's ``losses`` array."""

LEVEL_UNKNOWN = 4294967295
"""A ``kubepods_level`` that the kernel has yet to find."""

ADDRESS = np.dtype(("u1", 16))

FLOW_KEY = np.dtype(
    [
        ("cgroup", "u8"),
        ("peer", ADDRESS),
        ("port", "u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
        ("verdict", "u1"),
        ("scope", "u1"),
        ("unused", "u2"),
    ]
)
FLOW = np.dtype(
    [
        ("connections", "u8"),
        ("bytes_sent", "u8"),
        ("bytes_received", "u8"),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("rtt_us", "u4"),
        ("retransmits", "u4"),
        ("policy", "u4"),
        ("rule", "u4"),
    ]
)
POD = np.dtype(
    [
        ("policy", "u4"),
        ("mode", "u1"),
        ("established", "u1"),
        ("restricted", "u1"),
        ("unknown", "u1"),
    ]
)
UID = np.dtype([("text", "S36")])
POD_NAME = np.dtype([("name", "S128"), ("born_ns", "u8"), ("died_ns", "u8")])
RULE_KEY = np.dtype(
    [
        ("prefixlen", "u4"),
        ("policy", "u4"),
        ("direction", "u1"),
        ("protocol", "u1"),
        ("port", ">u2"),
    ]
)
RULE = np.dtype([("peer_set", "u4"), ("rule", "u4")])
PEER_KEY = np.dtype([("prefixlen", "u4"), ("peer_set", "u4"), ("address", ADDRESS)])
PEER = np.dtype([("allowed", "u4")])
LISTENER_KEY = np.dtype(
    [("cgroup", "u8"), ("port", "u2"), ("protocol", "u1"), ("scope", "u1"), ("unused", "u4")]
)
LISTENER = np.dtype([("live", "u4"), ("snapshot", "u4"), ("since_ns", "u8")])
CONFIG = np.dtype(
    [
        ("kubepods", "u8"),
        ("flush_ns", "u8"),
        ("attached_ns", "u8"),
        ("kubepods_level", "u4"),
        ("generation", "u4"),
        ("active", "u4"),
        ("ready", "u4"),
        ("epoch", "u4"),
        ("next_policy", "u4"),
        ("closed", "u4"),
        ("unused", "u4"),
    ]
)
ANSWER = np.dtype(
    [
        ("time_ns", "u8"),
        ("cgroup", "u8"),
        ("length", "u4"),
        ("payload", ("u1", 1232)),
        ("unused", "u4"),
    ]
)


Rows = npt.NDArray[np.void]


class MapLayout(NamedTuple):
    """Key and value of a map."""

    key: np.dtype[Any]
    value: np.dtype[Any]


_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_FLOWS = MapLayout(FLOW_KEY, FLOW)
MAPS: dict[str, MapLayout] = {
    "config": MapLayout(_U4, CONFIG),
    "losses": MapLayout(_U4, _U8),
    "answers_dropped": MapLayout(_U4, _U8),
    "flows_0": _FLOWS,
    "flows_1": _FLOWS,
    "ports_0": _FLOWS,
    "ports_1": _FLOWS,
    "pods": MapLayout(_U8, POD),
    "pod_names": MapLayout(_U8, POD_NAME),
    "expected": MapLayout(UID, POD),
    "namespaces": MapLayout(_U8, _U8),
    "addresses": MapLayout(ADDRESS, _U8),
    "listeners": MapLayout(LISTENER_KEY, LISTENER),
    "rules": MapLayout(RULE_KEY, RULE),
    "peers": MapLayout(PEER_KEY, PEER),
}
"""Every map that user space reads or writes, by the name it is pinned under."""

RINGS: dict[str, np.dtype[Any]] = {"answers": ANSWER}
"""Ring buffers that user space reads, and their records; the last of a record may be left out."""

PRIVATE = ("answer_draft", "conversations", "sockets")
"""Maps that only the programs use."""


def as_rows(raw: bytes, kind: np.dtype[Any]) -> Rows:
    """A run of keys or values as an array."""
    if kind.subdtype:
        return np.frombuffer(raw, "u1").reshape(-1, kind.itemsize)
    return np.frombuffer(raw, kind)


def as_bytes(value: object, kind: np.dtype[Any]) -> bytes:
    """One key or value as the kernel has it; bytes are taken as they are."""
    if isinstance(value, bytes):
        return value
    return np.array([value], kind).tobytes()


def packed_address(text: str) -> bytes:
    """The 16 bytes of an address, IPv4 as ``::ffff:a.b.c.d`` (RFC 4291, 2.5.5.2).

    >>> packed_address("10.0.0.1").hex()
    '00000000000000000000ffff0a000001'
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def unpacked_address(raw: bytes) -> str:
    """The canonical text of 16 bytes, IPv4-mapped unwrapped.

    >>> unpacked_address(packed_address("10.0.0.1")), unpacked_address(packed_address("FD00::1"))
    ('10.0.0.1', 'fd00::1')
    """
    address = IPv6Address(bytes(raw))
    return str(address.ipv4_mapped or address)
