"""Attacks that are answered, and regular calls that are none: to see whether they are told apart.

All of it is asked for and drawn from a stream of its own, so that the other traffic of a seed
stays as it is. The attacks' rows are in no truth; the regular calls' are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from portforge.schema import Direction, PeerKind, Protocol, Verdict, Workload
from portforge.synth._graph import Call, Member, Outside
from portforge.synth._noise import SCANNER
from portforge.synth._pods import DAY, Ints, Pods
from portforge.synth._rows import Rows
from portforge.synth._traffic import HOUR, Truth, workload_peer

__all__ = ["beacon", "exfiltration", "intruder", "regular"]

_CLOCK = Outside("time.example.net", "192.0.2.123/32")
_METRICS = Outside("push.metrics.example", "192.0.2.140/32")
_LEADER = Outside("lock.vendor.example", "192.0.2.141/32")


def _when(end: int, rng: np.random.Generator) -> int:
    """In the third to sixth of the first seven days, or as far into a shorter window."""
    return int(rng.uniform(0.3, 0.8) * min(end, 7 * DAY))


def _pod(pods: Pods, workload: Workload, replica: int, at: int) -> int:
    return int(pods.at(workload, np.array([replica]), np.array([at]))[0])


def _out(peer: str, port: int, what: str, **other: Any) -> dict[str, Any]:
    return {
        "peer_ip": peer,
        "port": port,
        "direction": str(Direction.EGRESS),
        "protocol": str(Protocol.TCP),
        "peer_kind": str(PeerKind.EXTERNAL),
        "verdict": str(Verdict.ALLOWED),
        "what": what,
        "truth": -1,
    } | other


def _add(rows: Rows, pod: Ints, at: Ints, *, peer_ip: str, **columns: Any) -> None:
    rows.add(pod, at, np.full(len(pod), peer_ip, dtype=object), **columns)


def beacon(
    pods: Pods, rows: Rows, members: Sequence[Member], end: int, n: int, rng: np.random.Generator
) -> None:
    """One replica begins to ask an address for orders, every 2 to 30 minutes, for hours or days.

    The rhythm varies by 10 to 30 percent of the period; what is said hardly varies at all.
    """
    several = [m for m in members if m.replicas > 1] or list(members)
    workload = several[int(rng.integers(len(several)))].workload
    begin = _when(end, rng)
    period = float(np.exp(rng.uniform(np.log(120), np.log(1800))))
    jitter = rng.uniform(0.1, 0.3)
    gaps = period * rng.uniform(1 - jitter, 1 + jitter, int(2 * DAY / period))
    at = begin + np.cumsum(gaps).astype(np.int64)
    at = at[at < end]
    there = _pod(pods, workload, int(rng.integers(pods.replicas(workload))), begin)
    stop = next(stop for _, pod, _, stop in pods.lives(workload, end) if pod == there)
    at = at[at < stop]
    said, heard = rng.integers(200, 1200), rng.integers(150, 900)
    _add(
        rows,
        np.full(len(at), there),
        at,
        sent=said + rng.integers(0, 8, len(at)),
        received=heard + rng.integers(0, 8, len(at)),
        lasts=1,
        **_out(f"192.0.2.{200 + n}", 443, "beacon"),
    )


def intruder(
    pods: Pods,
    rows: Rows,
    stores: Sequence[tuple[Workload, int]],
    end: int,
    rng: np.random.Generator,
) -> None:
    """The broken pod opens a store as its clients do, reads from it for some minutes, and is gone.

    Parameters
    ----------
    stores: workloads and the port each is called on.
    """
    store, port = stores[int(rng.integers(len(stores)))]
    at = _when(end, rng) + np.sort(rng.integers(0, HOUR // 2, int(rng.integers(1, 4))))
    size = len(at)
    source = np.full(size, _pod(pods, SCANNER, 0, int(at[0])))
    target = np.full(size, _pod(pods, store, 0, int(at[0])))
    asked, read = rng.integers(2_000, 20_000, size), rng.integers(100_000, 5_000_000, size)
    common: dict[str, Any] = {"port": port, "lasts": 60, "what": "intruder", "truth": -1}
    common |= {"protocol": str(Protocol.TCP), "verdict": str(Verdict.ALLOWED)}
    for direction, pod, other, peer, sent, received in (
        (Direction.INGRESS, target, source, SCANNER, read, asked),
        (Direction.EGRESS, source, target, store, asked, read),
    ):
        ips = np.array(pods.addresses, dtype=object)[other]
        rows.add(
            pod,
            at,
            ips,
            sent=sent,
            received=received,
            direction=str(direction),
            **common,
            **workload_peer(peer),
        )


def exfiltration(
    pods: Pods, rows: Rows, members: Sequence[Member], end: int, n: int, rng: np.random.Generator
) -> None:
    """One pod sends gigabytes over TLS to an address nobody else knows, within three hours."""
    workload = members[int(rng.integers(len(members)))].workload
    begin = _when(end, rng)
    at = begin + np.sort(rng.integers(0, 3 * HOUR, int(rng.integers(5, 20))))
    at = at[at < end]
    _add(
        rows,
        np.full(len(at), _pod(pods, workload, 0, begin)),
        at,
        sent=rng.integers(100_000_000, 900_000_000, len(at)),
        received=rng.integers(20_000, 200_000, len(at)),
        lasts=60,
        **_out(f"192.0.2.{230 + n}", 443, "exfiltration"),
    )


def regular(pods: Pods, rows: Rows, members: Sequence[Member], truth: Truth, end: int) -> None:
    """What is as regular as a beacon and needed, from each pod's start to its end.

    Every pod of three workloads asks the time each 1024 s (NTP's slowest poll, RFC 5905) and
    sends its metrics each 5 minutes; one replica of the first renews a licence each 10 minutes.
    """
    for number, member in enumerate(members[:3]):
        calls = [
            (_CLOCK, 123, Protocol.UDP, 1024, 48, 48),
            (_METRICS, 443, Protocol.TCP, 300, 900, 420),
        ]
        if not number:
            calls.append((_LEADER, 8443, Protocol.TCP, 600, 350, 610))
        for server, port, protocol, period, sent, received in calls:
            call = Call(member.workload, server, port, protocol=protocol)
            item = truth.need(member.workload, Direction.EGRESS, call, server)
            for replica, pod, start, stop in pods.lives(member.workload, end):
                if server is _LEADER and replica:
                    continue
                at = np.arange(max(0, start + 20), stop, period)
                _add(
                    rows,
                    np.full(len(at), pod),
                    at,
                    sent=sent,
                    received=received,
                    lasts=0,
                    **_out(
                        server.cidr.partition("/")[0],
                        port,
                        "needed",
                        protocol=str(protocol),
                        peer_name=server.name,
                        truth=item,
                    ),
                )
