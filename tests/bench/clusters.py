"""Made-up clusters for the benches of learning: their flows, and what is needed and when."""

from __future__ import annotations

from collections import defaultdict
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from portforge.schema import Peer, PeerKind, Workload
from portforge.synth import Synthetic

WHO = ["namespace", "workload_kind", "workload"]
PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
KEY = [*WHO, "direction", "protocol", "port", *PEER, "verdict", "what", "truth", "own_node"]
Door = tuple[Workload, str, str]
"""A workload's direction and protocol."""
ELSEWHERE, NODE = "0.0.0.0/0", "node"


class Seen(NamedTuple):
    """One distinct flow."""

    workload: Workload
    direction: str
    protocol: str
    port: int
    peer: Peer
    verdict: str
    what: str
    truth: int
    own_node: bool

    @property
    def door(self) -> Door:
        return self.workload, self.direction, self.protocol


def named(peer: Peer) -> Workload | None:
    if peer.kind not in (PeerKind.WORKLOAD, PeerKind.SERVICE) or peer.workload is None:
        return None
    return Workload(peer.namespace or "", peer.workload_kind or "", peer.workload)


@cache
def _network(text: str) -> IPv4Network | IPv6Network:
    return ip_network(text)


@lru_cache(maxsize=200_000)
def inside(ip: str | None, cidr: str) -> bool:
    return ip is not None and ip_address(ip) in _network(cidr)


@lru_cache(maxsize=10_000)
def overlap(one: str, other: str) -> bool:
    return _network(one).overlaps(_network(other))


def block_of(ip: str, outside: tuple[str, ...]) -> str:
    return next((block for block in outside if inside(ip, block)), ELSEWHERE)


class Case:
    """One cluster, with its distinct flows numbered so that a window is a mask."""

    def __init__(self, made: Synthetic) -> None:
        frame = made.flows.assign(what=made.what, truth=made.needed)
        frame["own_node"] = (frame["peer_kind"] == "node") & (
            frame["peer_workload"] == frame["node"]
        )
        keys = frame[KEY].astype(object)
        keys = keys.where(keys.notna(), None)
        number, distinct = pd.factorize(pd.MultiIndex.from_frame(keys.astype(str)))
        first_row = pd.Series(np.arange(len(number))).groupby(number).first().to_numpy()
        self.made, self.number, self.size = made, number, len(distinct)
        self.seen = [
            Seen(Workload(*row[:3]), row[3], row[4], row[5], Peer(*row[6:11]), *row[11:])
            for row in keys.iloc[first_row].itertuples(index=False, name=None)
        ]
        start = made.flows["first_seen"].min().floor("D")
        self.at = (made.flows["first_seen"] - start).dt.total_seconds().to_numpy()
        self.until = (made.flows["last_seen"] - start).dt.total_seconds().to_numpy()
        self.start = start
        truth = made.truth
        self.needed: defaultdict[Door, list[tuple[int, int, Any]]] = defaultdict(list)
        blocks = set(truth["peer_cidr"].dropna()) - {ELSEWHERE}
        self.blocks = (*sorted(blocks), ELSEWHERE)
        for item in truth.astype(object).to_dict("records"):
            peer: Any = item["peer_cidr"]
            if not isinstance(peer, str):
                peer = Workload(*(item[f"peer_{name}"] for name in WHO))
            door = (Workload(*(item[n] for n in WHO)), item["direction"], item["protocol"])
            self.needed[door].append((item["port"], item["end_port"], peer))
        self.workloads = {one.workload for one in self.seen}

    def firsts(self, days: float) -> tuple[np.ndarray, np.ndarray]:
        """For each distinct flow: when first known in training, and first after (inf: never)."""
        known = self.until <= days * 86400
        train, rest = (np.full(self.size, np.inf) for _ in range(2))
        np.minimum.at(train, self.number[known], self.at[known])
        np.minimum.at(rest, self.number[~known], self.at[~known])
        return train, rest

    def needs(self, door: Door, port: int, unit: Any) -> bool:
        outside = isinstance(unit, str) and not isinstance(unit, Workload) and unit != NODE
        return any(
            a <= port <= b and (peer == unit or (outside and peer == ELSEWHERE))
            for a, b, peer in self.needed.get(door, ())
        )
