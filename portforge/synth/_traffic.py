"""The traffic that is needed: every call of a graph, over the window, as both ends record it."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import numpy as np
import numpy.typing as npt

from portforge.schema import Direction, PeerKind, Verdict, Workload
from portforge.synth._graph import Call, Outside
from portforge.synth._pods import DAY, Ints, Pods, service_address
from portforge.synth._rows import Rows, Texts

__all__ = ["Truth", "addresses_of", "play", "workload_peer"]

HOUR = 3600
_WHO = ("namespace", "workload_kind", "workload")


class Truth:
    """What is needed, each item once; an item is known by its number."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self.items: list[dict[str, Any]] = []

    def need(
        self, owner: Workload, direction: Direction, call: Call, peer: Workload | Outside
    ) -> int:
        """The number of the item."""
        port = call.port if direction == Direction.EGRESS else call.pod_port
        key = (owner, direction, call.protocol, port, call.last_port, peer)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            who = dict(zip(_WHO, owner, strict=True))
            self.items.append(
                who
                | {
                    "direction": str(direction),
                    "protocol": str(call.protocol),
                    "port": port,
                    "end_port": call.last_port or port,
                    "peer_namespace": None,
                    "peer_workload_kind": None,
                    "peer_workload": None,
                    "peer_cidr": None,
                    "kind": call.kind,
                }
                | (
                    {"peer_cidr": peer.cidr}
                    if isinstance(peer, Outside)
                    else {f"peer_{name}": part for name, part in zip(_WHO, peer, strict=True)}
                )
            )
        return self._numbers[key]


def workload_peer(workload: Workload, kind: PeerKind = PeerKind.WORKLOAD) -> dict[str, Any]:
    """The peer columns of a known workload."""
    return {"peer_kind": str(kind)} | {
        f"peer_{name}": part for name, part in zip(_WHO, workload, strict=True)
    }


def addresses_of(peer: Outside, size: int, rng: np.random.Generator) -> Texts:
    """Addresses met outside: few are met often, most are met once."""
    network = ip_network(peer.met_in or peer.cidr)
    most = min(peer.addresses, network.num_addresses)
    picked = (most * rng.random(size) ** 3).astype(np.int64)
    spread = max(1, network.num_addresses // most)
    known, back = np.unique(picked, return_inverse=True)
    texts = np.array([str(network[int(n) * spread]) for n in known], dtype=object)
    found: Texts = texts[back] if size else np.array([], dtype=object)
    return found


def play(
    call: Call, pods: Pods, rows: Rows, truth: Truth, runs: Ints, end: int, rng: np.random.Generator
) -> None:
    """Write the rows of one call.

    Parameters
    ----------
    runs: seconds at which the client's jobs begin; empty unless it is a CronJob.
    """
    at, pod, opened, lasts = _when(call, pods, runs, end, rng)
    size = len(at)
    bytes_up = opened.clip(1) * rng.integers(120, 900, size)
    bytes_down = opened.clip(1) * rng.integers(300, 9000, size)
    client, server = call.client, call.server
    port: Ints = np.full(size, call.port)
    if call.last_port:
        port = rng.integers(call.port, call.last_port + 1, size)
    common: dict[str, Any] = {
        "protocol": str(call.protocol),
        "verdict": str(Verdict.ALLOWED),
        "what": "needed",
    }
    many: dict[str, Any] = {"connections": opened, "lasts": lasts}
    server_pod: Ints = np.zeros(size, dtype=np.int64)
    ips = np.array(pods.addresses, dtype=object)
    if isinstance(server, Workload):
        server_pod = pods.at(server, rng.integers(0, pods.replicas(server), size), at)
        came = addresses_of(client, size, rng) if isinstance(client, Outside) else ips[pod]
        outside: dict[str, Any] = {"peer_kind": str(PeerKind.EXTERNAL)}
        rows.add(
            server_pod,
            at,
            came,
            port=port if call.last_port else call.pod_port,
            sent=bytes_down,
            received=bytes_up,
            direction=str(Direction.INGRESS),
            truth=truth.need(server, Direction.INGRESS, call, client),
            **many,
            **common,
            **(outside if isinstance(client, Outside) else workload_peer(client)),
        )
    if isinstance(client, Outside):
        return
    peer: dict[str, Any]
    if isinstance(server, Outside):
        went = addresses_of(server, size, rng)
        peer = {"peer_kind": str(PeerKind.EXTERNAL), "peer_name": server.name}
    elif call.service and not call.last_port:
        went = np.full(size, service_address(pods.number[server]), dtype=object)
        peer = workload_peer(server, PeerKind.SERVICE) | {"target_port": call.pod_port}
    else:
        went, peer = ips[server_pod], workload_peer(server)
    rows.add(
        pod,
        at,
        went,
        port=port,
        sent=bytes_up,
        received=bytes_down,
        direction=str(Direction.EGRESS),
        truth=truth.need(client, Direction.EGRESS, call, server),
        **many,
        **common,
        **peer,
    )


def _when(
    call: Call, pods: Pods, runs: Ints, end: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, int]:
    """Seconds, client pods and connections of each row, and how long a row lasts at most."""
    client = call.client
    if isinstance(client, Outside):
        at, _, opened = _steady(call.rate, 1, end, rng)
        return at, np.zeros(len(at), dtype=np.int64), opened, HOUR // 2
    if len(runs):
        begun = [pods.begin(client, int(t), n, rng) for n, t in enumerate(runs)]
        pod = np.array(begun, dtype=np.int64)
        return runs + rng.integers(1, 30, len(runs)), pod, rng.integers(1, 9, len(runs)), 600
    replicas = 1 if call.one_replica else pods.replicas(client)
    if call.kind == "startup" or call.held:
        lives = [one for one in pods.lives(client, end) if one[0] < replicas]
        return _startup(lives, rng) if call.kind == "startup" else _held(lives, rng)
    if call.kind == "steady":
        at, replica, opened = _steady(call.rate, replicas, end, rng)
        return at, pods.at(client, replica, at), opened, HOUR // 2
    if call.kind == "rare":
        at = np.sort(rng.integers(0, end, rng.poisson(call.rate * end / DAY)))
    else:
        period = DAY if call.kind == "daily" else 7 * DAY
        first = int(rng.integers(0, DAY)) + (0 if period == DAY else 6 * DAY)
        at = np.arange(first, end, period)
    replica = rng.integers(0, replicas, len(at))
    return at, pods.at(client, replica, at), rng.integers(1, 4, len(at)), 120


def _steady(
    rate: float, replicas: int, end: int, rng: np.random.Generator
) -> tuple[Ints, Ints, Ints]:
    """By day more than by night, on weekends little; the window starts on a Monday at midnight."""
    hours = np.arange(end // HOUR)
    wave = 1 + 0.8 * np.sin((hours % 24 - 8) / 24 * 2 * np.pi)
    weekend = np.where(hours // 24 % 7 >= 5, 0.35, 1.0)
    counts = rng.poisson(rate * (wave * weekend)[None, :], (replicas, len(hours)))
    replica, hour = np.nonzero(counts)
    at = hour * HOUR + rng.integers(0, HOUR // 2, len(hour))
    return at, replica, counts[replica, hour].astype(np.int64)


def _startup(
    lives: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, int]:
    seen = [(pod, start) for _, pod, start, _ in lives if start >= 0]
    pod = np.array([p for p, _ in seen], dtype=np.int64)
    at = np.array([t for _, t in seen], dtype=np.int64) + rng.integers(1, 60, len(seen))
    return at, pod, rng.integers(1, 4, len(seen)), 20


def _held(
    lives: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[Ints, Ints, Ints, int]:
    """One connection, then bytes only, hour by hour; none at all in one hour of ten."""
    ats: list[npt.NDArray[np.int64]] = []
    pods: list[npt.NDArray[np.int64]] = []
    opened: list[npt.NDArray[np.int64]] = []
    for _, pod, start, stop in lives:
        hours = np.arange(max(0, start) + 10, max(stop - 10, start + 11), HOUR)
        kept = rng.random(len(hours)) < 0.9
        if start >= 0:
            kept[:1] = True
        at = hours[kept]
        ats.append(at)
        pods.append(np.full(len(at), pod))
        opened.append(((at == start + 10) & (start >= 0)).astype(np.int64))
    empty = [np.zeros(0, dtype=np.int64)]
    joined = [np.concatenate(part or empty) for part in (ats, pods, opened)]
    return joined[0], joined[1], joined[2], 60
