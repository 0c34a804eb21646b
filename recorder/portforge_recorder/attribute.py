"""From what the kernel counted to flow records: who, with whom, when. Pure.

Takes the maps' contents as numpy arrays and what is known about the node; returns rows of
contract 1. Reads no map, no clock and no file. What is not known stays null, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from portforge.apply.cgroups import pod_uid
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import (
    FLOW,
    FLOW_KEY,
    PROTOCOLS,
    Direction,
    Scope,
    unpacked_address,
)
from portforge.apply.layout import Verdict as KernelVerdict
from portforge.schema import FLOW_SCHEMA, SORT_COLUMNS, Peer, PeerKind, Verdict

__all__ = ["attribute", "canonical"]

Array = npt.NDArray[Any]
Owner = tuple[str | None, str | None, str | None, str | None]
"""namespace, workload_kind, workload, pod"""

_NOBODY: Owner = (None, None, None, None)
_VERDICTS = [v.name.lower() for v in KernelVerdict] + [Verdict.LISTENING.value]
_LISTENING = _VERDICTS.index(Verdict.LISTENING)
_DIRECTIONS = [d.name.lower() for d in Direction]
_TIES = ("pod", "protocol", "peer_ip", "peer_kind", "verdict", "last_seen", "rule", "connections")
_MOST = np.iinfo(np.int64).max
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def attribute(
    keys: Array,
    values: Array,
    listeners: tuple[Array, Array],
    names: Mapping[int, str],
    inventory: Inventory,
    rules: Mapping[tuple[int, int], str],
    clock: int,
    now: int,
    node: str,
    told: Callable[[int, bytes], str | None],
) -> tuple[pa.Table, int]:
    """Flow records of one drain.

    Parameters
    ----------
    keys, values: ``FLOW_KEY`` and ``FLOW`` arrays of one length.
    listeners: ``LISTENER_KEY`` and ``LISTENER`` arrays of one length.
    names: cgroup id to its name, or its path below the node's kubepods cgroup. Id 0 is the
        node itself.
    inventory: who has which address, which pod has which UID.
    rules: (policy, number of the rule) to the rule's id.
    clock: µs since the epoch when CLOCK_BOOTTIME was 0.
    now: CLOCK_BOOTTIME, ns.
    node: this node's name.
    told: the DNS name by which a pod, by its cgroup id, knows an address (16 bytes).

    Returns
    -------
    The rows with ``FLOW_SCHEMA``, sorted, and how many of them belong to no known pod.
    """
    listener_keys, listener_values = _as_flows(*listeners, now)
    keys = np.concatenate([keys, listener_keys])
    values = np.concatenate([values, listener_values])
    if not len(keys):
        return FLOW_SCHEMA.empty_table(), 0

    cgroups, cgroup = np.unique(keys["cgroup"], return_inverse=True)
    pods = {pod.uid: pod for pod in inventory.pods}
    owners = [_owner(int(c), names, pods, node) for c in cgroups]
    known = np.array([o is not _NOBODY for o in owners])[cgroup]

    first = clock + values["first_ns"].astype(np.int64) // 1000
    last = np.maximum(first, clock + values["last_ns"].astype(np.int64) // 1000)
    peers, peer = _peers(keys, first, last, inventory)
    numbers, protocol = np.unique(keys["protocol"], return_inverse=True)
    protocols = [_PROTOCOL_NAMES[int(n)] for n in numbers]
    rtt = values["rtt_us"].astype(np.int64)

    columns = {
        "first_seen": pa.array(first, pa.timestamp("us", "UTC")),
        "last_seen": pa.array(last, pa.timestamp("us", "UTC")),
        "node": _text(np.zeros(len(keys), np.int64), [node]),
        "namespace": _text(cgroup, [o[0] for o in owners]),
        "workload_kind": _text(cgroup, [o[1] for o in owners]),
        "workload": _text(cgroup, [o[2] for o in owners]),
        "pod": _text(cgroup, [o[3] for o in owners]),
        "direction": _text(keys["direction"], _DIRECTIONS),
        "protocol": _text(protocol, protocols),
        "port": pa.array(keys["port"].astype(np.int32)),
        "target_port": _target_ports(keys, peers, peer, inventory),
        "peer_ip": _text(peer, [p.ip for p in peers]),
        "peer_kind": _text(peer, [p.kind.value for p in peers]),
        "peer_namespace": _text(peer, [p.namespace for p in peers]),
        "peer_workload_kind": _text(peer, [p.workload_kind for p in peers]),
        "peer_workload": _text(peer, [p.workload for p in peers]),
        "peer_name": _peer_names(keys, cgroup, peers, peer, told),
        "verdict": _text(keys["verdict"], _VERDICTS),
        "connections": _count(values["connections"]),
        "bytes_sent": _count(values["bytes_sent"]),
        "bytes_received": _count(values["bytes_received"]),
        "rtt_us": pa.array(rtt, mask=rtt == 0),
        "retransmits": _count(values["retransmits"]),
        "rule": _rules(values, rules),
    }
    table = pa.Table.from_arrays([columns[n] for n in FLOW_SCHEMA.names], schema=FLOW_SCHEMA)
    return canonical(table), int((~known).sum())


def canonical(table: pa.Table) -> pa.Table:
    """The same rows in one order with sorted dictionaries: same rows, same bytes on disk.

    Sorted by ``SORT_COLUMNS``, nulls last, ties broken by the other columns of the key.
    """
    if not table.num_rows:
        return FLOW_SCHEMA.empty_table()
    table = table.unify_dictionaries().combine_chunks()
    arrays: dict[str, pa.Array] = {}
    ranks: dict[str, Array] = {}
    for name in FLOW_SCHEMA.names:
        array = table.column(name).chunk(0)
        if pa.types.is_dictionary(array.type):
            codes = array.indices.fill_null(-1).to_numpy()
            values: list[str | None] = array.dictionary.to_pylist()
            used = set(np.unique(codes).tolist())
            # Code -1, null, picks the None at the end.
            array = _text(codes, [v if i in used else None for i, v in enumerate(values)] + [None])
            ranks[name] = array.indices.fill_null(len(values)).to_numpy()
        elif name in SORT_COLUMNS + _TIES:
            ranks[name] = array.cast(pa.int64()).to_numpy()
        arrays[name] = array
    order = np.lexsort([ranks[n] for n in reversed(SORT_COLUMNS + _TIES)])
    ordered = [arrays[n].take(pa.array(order)) for n in FLOW_SCHEMA.names]
    return pa.Table.from_arrays(ordered, schema=FLOW_SCHEMA)


_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def _as_flows(keys: Array, values: Array, now: int) -> tuple[Array, Array]:
    """Listeners as flows that nobody opened: no peer, no traffic, verdict ``listening``."""
    live = (values["live"] > 0) | (values["snapshot"] > 0)
    keys, values = keys[live], values[live]
    flow_keys, flows = np.zeros(len(keys), FLOW_KEY), np.zeros(len(keys), FLOW)
    for name in ("cgroup", "port", "protocol", "scope"):
        flow_keys[name] = keys[name]
    flow_keys["direction"], flow_keys["verdict"] = Direction.INGRESS, _LISTENING
    flows["first_ns"] = np.where(values["since_ns"] == 0, now, values["since_ns"])
    flows["last_ns"] = now
    return flow_keys, flows


def _owner(cgroup: int, names: Mapping[int, str], pods: Mapping[str, Pod], node: str) -> Owner:
    if cgroup == 0:
        return (None, "Node", node, None)
    pod = pods.get(pod_uid(names.get(cgroup, "")) or "")
    if pod is None:
        return _NOBODY
    if pod.host_network:
        return (None, "Node", node, pod.name)
    _, kind, name = pod.workload or (None, None, None)
    return (pod.namespace, kind, name, pod.name)


def _peers(
    keys: Array, first: Array, last: Array, inventory: Inventory
) -> tuple[list[Peer], Array]:
    """Every distinct peer, and which of them each row has.

    An address stands twice in the list: at 2i met remotely, at 2i + 1 met without leaving
    the pod (a pod that calls itself by its own address or its Service). One that passed from
    pod to pod stands there once more for each interval it was met in.
    """
    raw = np.ascontiguousarray(keys["peer"])
    # S16 compares like 16 bytes: numpy ignores trailing zeros, and all have 16 bytes.
    _, where, inverse = np.unique(
        raw.reshape(-1).view("S16"), return_index=True, return_inverse=True
    )
    earliest = np.full(len(where), _MOST, np.int64)
    np.minimum.at(earliest, inverse, first)
    peers: list[Peer] = []
    passed_on: list[int] = []
    for i, (packed, since) in enumerate(
        zip((raw[w].tobytes() for w in where), earliest.tolist(), strict=True)
    ):
        address = unpacked_address(packed) if any(packed) else None
        now = inventory.peer(address) if address else Peer(None, PeerKind.UNKNOWN)
        peers += [now, Peer(address, PeerKind.LOOPBACK)]
        if address and not inventory.constant(address, _time(since)):
            passed_on.append(i)
    loopback = keys["scope"] == Scope.LOOPBACK
    peer = 2 * inverse + loopback
    rows = np.flatnonzero(np.isin(inverse, passed_on) & ~loopback)
    if len(rows):
        met = np.stack([inverse[rows], first[rows], last[rows]], axis=1)
        distinct, which = np.unique(met, axis=0, return_inverse=True)
        peer[rows] = len(peers) + which.reshape(-1)
        for i, begin, end in distinct.tolist():
            address = peers[2 * i].ip or ""
            peers.append(inventory.peer_at(address, _time(begin), _time(end)))
    return peers, peer


def _peer_names(
    keys: Array,
    cgroup: Array,
    peers: Sequence[Peer],
    peer: Array,
    told: Callable[[int, bytes], str | None],
) -> pa.Array:
    """What a pod called the outside peers it opened connections to."""
    outside = np.array([p.kind is PeerKind.EXTERNAL for p in peers])[peer]
    rows = np.flatnonzero(outside & (keys["direction"] == Direction.EGRESS))
    pairs = cgroup[rows].astype(np.int64) * len(peers) + peer[rows]
    _, where, which = np.unique(pairs, return_index=True, return_inverse=True)
    names = [
        told(int(keys["cgroup"][row]), keys["peer"][row].tobytes()) for row in rows[where].tolist()
    ]
    # The null at the end is of all other rows.
    place = np.full(len(keys), len(names))
    place[rows] = which
    return _text(place, [*names, None])


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _target_ports(
    keys: Array, peers: Sequence[Peer], peer: Array, inventory: Inventory
) -> pa.Array:
    has_ports = np.array([p.kind in (PeerKind.SERVICE, PeerKind.NODE) for p in peers])[peer]
    rows = np.flatnonzero(has_ports & (keys["direction"] == Direction.EGRESS))
    found = np.zeros(len(keys), np.int32)
    combined = (
        (peer[rows].astype(np.int64) << 24)
        | (keys["protocol"][rows].astype(np.int64) << 16)
        | keys["port"][rows]
    )
    distinct, inverse = np.unique(combined, return_inverse=True)
    targets = [
        inventory.target_port(
            peers[c >> 24].ip or "", _PROTOCOL_NAMES[(c >> 16) & 0xFF], c & 0xFFFF
        )
        for c in distinct.tolist()
    ]
    found[rows] = np.array([t or 0 for t in targets], np.int32)[inverse]
    return pa.array(found, mask=found == 0)


def _rules(values: Array, rules: Mapping[tuple[int, int], str]) -> pa.Array:
    combined = (values["policy"].astype(np.uint64) << np.uint64(32)) | values["rule"]
    distinct, inverse = np.unique(combined, return_inverse=True)
    return _text(inverse, [rules.get((c >> 32, c & 0xFFFFFFFF)) for c in distinct.tolist()])


def _text(which: Array, values: Sequence[str | None]) -> pa.DictionaryArray:
    """``values[which]`` as a dictionary array with a sorted dictionary."""
    distinct = sorted({v for v in values if v is not None})
    place = {v: i for i, v in enumerate(distinct)}
    codes = np.array([-1 if v is None else place[v] for v in values], np.int32)[which]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes < 0), pa.array(distinct, pa.string())
    )


def _count(values: Array) -> pa.Array:
    return pa.array(np.minimum(values.astype(np.uint64), np.uint64(_MOST)).astype(np.int64))
