"""What is recorded and not needed: scans, the internet's background, probes, listeners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from portforge.schema import Direction, PeerKind, Protocol, Verdict, Workload
from portforge.synth._graph import Call, Member, Outside
from portforge.synth._pods import DAY, NODE_ADDRESSES, NODES, Ints, Pods
from portforge.synth._rows import Rows
from portforge.synth._traffic import HOUR, addresses_of, workload_peer

__all__ = ["SCANNER", "background", "failures", "listeners", "probes", "scans"]

SCANNER = Workload("default", "Deployment", "debug")
"""A pod somebody broke into."""
_STRANGER = Outside("stranger", "192.88.99.0/24", 200)
_FAVOURITES = np.array([22, 23, 80, 443, 445, 1433, 2375, 3306, 3389, 5432, 6379, 8080, 9200])

Open = dict[Workload, tuple[int, ...]]


def open_ports(members: Sequence[Member], calls: Sequence[Call]) -> Open:
    """TCP ports on which somebody listens, needed or not."""
    found: dict[Workload, set[int]] = {m.workload: set(m.listens) for m in members if m.replicas}
    for call in calls:
        if isinstance(call.server, Workload) and call.protocol == Protocol.TCP:
            found[call.server].add(call.pod_port)
    return {workload: tuple(sorted(ports)) for workload, ports in found.items()}


def probes(pods: Pods, rows: Rows, listening: Open, end: int, rng: np.random.Generator) -> None:
    """The kubelet asks each pod on its first port, from the pod's own node."""
    hours = np.arange(0, end, HOUR)
    for workload, ports in listening.items():
        for replica in range(pods.replicas(workload) if ports else 0):
            at = hours + rng.integers(0, HOUR // 2, len(hours))
            pod = pods.at(workload, np.full(len(at), replica), at)
            node = np.array(pods.node)[pod]
            for n, name in enumerate(NODES):
                own = node == n
                rows.add(
                    pod[own],
                    at[own],
                    np.full(int(own.sum()), NODE_ADDRESSES[n], dtype=object),
                    port=ports[0],
                    connections=180,
                    sent=18000,
                    received=9000,
                    lasts=HOUR // 2 - 1,
                    direction=str(Direction.INGRESS),
                    protocol=str(Protocol.TCP),
                    peer_kind=str(PeerKind.NODE),
                    peer_workload_kind="Node",
                    peer_workload=name,
                    verdict=str(Verdict.ALLOWED),
                    what="probe",
                    truth=-1,
                )


def listeners(pods: Pods, rows: Rows, listening: Open, end: int) -> None:
    """A row for each open port of each pod, when it begins to listen."""
    for workload, ports in listening.items():
        lives = pods.lives(workload, end)
        pod = np.array([one[1] for one in lives], dtype=np.int64)
        at = np.array([max(0, one[2]) for one in lives], dtype=np.int64)
        for port in ports:
            rows.add(
                pod,
                at + 1,
                np.full(len(pod), None, dtype=object),
                port=port,
                connections=0,
                direction=str(Direction.INGRESS),
                protocol=str(Protocol.TCP),
                peer_kind=str(PeerKind.UNKNOWN),
                verdict=str(Verdict.LISTENING),
                what="listener",
                truth=-1,
            )


def failures(pods: Pods, rows: Rows, members: Sequence[Member], end: int) -> None:
    """A cloud SDK asks the metadata address at the start of each pod and gets no answer."""
    for member in members[::2]:
        new = [one for one in pods.lives(member.workload, end) if one[2] >= 0]
        pod, at = (np.array([one[n] for one in new], dtype=np.int64) for n in (1, 2))
        rows.add(
            pod,
            at + 2,
            np.full(len(pod), "169.254.169.254", dtype=object),
            port=80,
            direction=str(Direction.EGRESS),
            protocol=str(Protocol.TCP),
            peer_kind=str(PeerKind.EXTERNAL),
            verdict=str(Verdict.FAILED),
            what="failure",
            truth=-1,
        )


def background(
    pods: Pods, rows: Rows, entry: Workload, end: int, per_day: float, rng: np.random.Generator
) -> None:
    """Strangers knock at the exposed workload: each on one favourite port, and is refused."""
    size = rng.poisson(per_day * end / DAY)
    at = rng.integers(0, end, size)
    pod = pods.at(entry, rng.integers(0, pods.replicas(entry), size), at)
    rows.add(
        pod,
        at,
        addresses_of(_STRANGER, size, rng),
        port=rng.choice(_FAVOURITES[:5], size),
        direction=str(Direction.INGRESS),
        protocol=str(Protocol.TCP),
        peer_kind=str(PeerKind.EXTERNAL),
        verdict=str(Verdict.REFUSED),
        what="background",
        truth=-1,
    )


def scans(
    pods: Pods, rows: Rows, listening: Open, end: int, per_week: float, rng: np.random.Generator
) -> None:
    """Vertical, horizontal and slow scans from the broken pod, as both ends record them."""
    targets = [w for w in listening if w != SCANNER]
    for _ in range(rng.poisson(per_week * end / DAY / 7)):
        begin = int(rng.integers(0, end))
        form = rng.choice(["vertical", "horizontal", "slow"])
        if form == "vertical":
            target = targets[int(rng.integers(len(targets)))]
            some = np.unique([*rng.integers(1, 10000, 150), *_FAVOURITES, *listening[target]])
            _probe(pods, rows, listening, target, some, begin + some % 300, rng)
        elif form == "horizontal":
            port = rng.choice([*_FAVOURITES, *(p for w in targets for p in listening[w])])
            for n, target in enumerate(targets):
                _probe(
                    pods, rows, listening, target, np.array([port]), np.array([begin + 2 * n]), rng
                )
        else:  # one or two ports of one target a day, a week long
            target = targets[int(rng.integers(len(targets)))]
            some = rng.permutation(np.unique([*_FAVOURITES, *listening[target]]))
            at = begin + np.sort(rng.integers(0, 7 * DAY, len(some)))
            _probe(pods, rows, listening, target, some, at, rng)


def _probe(
    pods: Pods,
    rows: Rows,
    listening: Open,
    target: Workload,
    ports: Ints,
    at: Ints,
    rng: np.random.Generator,
) -> None:
    hit = np.isin(ports, listening[target])
    size = len(ports)
    scanner = pods.at(SCANNER, np.zeros(size, dtype=np.int64), at)
    replica = np.full(size, rng.integers(pods.replicas(target)))
    there = pods.at(target, replica, at)
    banner = np.where(rng.random(size) < 0.3, rng.integers(8, 50, size), 0)
    ips = np.array(pods.addresses, dtype=object)
    for verdict, chosen in ((Verdict.ALLOWED, hit), (Verdict.REFUSED, ~hit)):
        answer = banner[chosen] * (verdict == Verdict.ALLOWED)
        for direction, pod, other, peer in (
            (Direction.INGRESS, there, scanner, SCANNER),
            (Direction.EGRESS, scanner, there, target),
        ):
            out = direction == Direction.EGRESS
            rows.add(
                pod[chosen],
                at[chosen],
                ips[other[chosen]],
                port=ports[chosen],
                sent=0 * answer if out else answer,
                received=answer if out else 0 * answer,
                direction=str(direction),
                protocol=str(Protocol.TCP),
                verdict=str(verdict),
                what="scan",
                truth=-1,
                **workload_peer(peer),
            )
