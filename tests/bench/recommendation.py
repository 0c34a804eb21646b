"""How right recommended policies are, on made-up clusters whose needs are known.

Learns from the first days of each cluster and replays the rest: ours, and baselines written here
from our notes on their projects. Prints one table; writes nothing::

    python tests/bench/recommendation.py            # ten minutes on two shared cores
    python tests/bench/recommendation.py --quick    # a minute

One row is one way to learn; a cell is the median over all clusters and seeds, and min–max.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from portforge.recommend import PortPolicyRecommender
from portforge.recommend._frame import FrameCapture
from portforge.schema import Peer, PeerKind, Workload
from portforge.synth import ONLINE_BOUTIQUE, SOCK_SHOP, Graph, Synthetic, cluster, random_graph

WHO = ["namespace", "workload_kind", "workload"]
PEER = ["peer_ip", "peer_kind", "peer_namespace", "peer_workload_kind", "peer_workload"]
KEY = [*WHO, "direction", "protocol", "port", *PEER, "verdict", "what", "truth", "own_node"]
ANSWERED = ("allowed", "audited")
HORIZONS = (1, 7, 30)
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


@dataclass
class Opening:
    """Ports open to peers; the same for every way to learn."""

    first: int
    last: int
    workloads: set[Workload] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    entities: set[str] = field(default_factory=set)
    anybody: bool = False

    def admits(self, port: int, peer: Peer) -> bool:
        if not self.first <= port <= self.last:
            return False
        if self.anybody or peer.ip in self.addresses:
            return True
        if named(peer) in self.workloads or any(inside(peer.ip, n) for n in self.networks):
            return True
        kinds = {"Node": {"node"}, "World": {"external"}}
        kinds["Cluster"] = {"workload", "service", "node", "unknown"}
        return any(peer.kind in kinds[entity] for entity in self.entities)

    def units(self, workloads: Iterable[Workload], outside: tuple[str, ...]) -> set[Any]:
        """Whom it admits, out of all there are: outside addresses count by their block."""
        everybody = set(workloads)
        found: set[Any] = set(self.workloads)
        found |= {block_of(ip, outside) for ip in self.addresses}
        found |= {block_of(n.partition("/")[0], outside) for n in self.networks}
        known = [block for block in outside if block != ELSEWHERE]
        found |= {b for b in known for n in self.networks if overlap(b, n)}
        if self.anybody or "World" in self.entities:
            found |= {*outside, ELSEWHERE}
        if self.anybody or "Cluster" in self.entities:
            found |= everybody
        if self.anybody or self.entities & {"Node", "Cluster"}:
            found.add(NODE)
        return found


@dataclass
class Learned:
    """What was learned; ``ready`` are the workloads it says can be enforced."""

    openings: dict[Door, list[Opening]]
    restricted: set[Workload]
    ready: set[Workload]

    def admits(self, seen: Seen) -> bool:
        if seen.workload not in self.restricted:
            return True
        return any(o.admits(seen.port, seen.peer) for o in self.openings.get(seen.door, ()))


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


Learner = Callable[[Case, float, "np.ndarray"], Learned]


def ours(
    case: Case,
    days: float,
    train: np.ndarray,  # noqa: ARG001
    recommender: PortPolicyRecommender | None = None,
) -> Learned:
    """portforge.recommend, through its estimator, with its defaults where none is given."""
    end = case.start + pd.Timedelta(days=days)
    flows, losses = case.made.flows, case.made.losses
    capture = FrameCapture(flows[flows["last_seen"] <= end], losses[losses["interval_end"] <= end])
    fitted = (recommender or PortPolicyRecommender()).fit(capture)
    openings: defaultdict[Door, list[Opening]] = defaultdict(list)
    for policy in fitted.policies_:
        for direction in ("ingress", "egress"):
            for rule in policy.rules(direction) or ():
                one = Opening(rule.port, rule.last_port, anybody=rule.peers is None)
                for peer in rule.peers or ():
                    if peer.workload is not None:
                        one.workloads.add(peer.workload)
                    elif peer.cidr is not None:
                        network = ip_network(peer.cidr)
                        single = network.num_addresses == 1
                        place = one.addresses if single else one.networks
                        place.add(str(network.network_address) if single else peer.cidr)
                    elif peer.entity is not None:
                        one.entities.add(str(peer.entity))
                openings[policy.workload, direction, str(rule.protocol)].append(one)
    ready = {
        Workload(*(one[name] for name in WHO))
        for one in fitted.report_["workloads"]
        if one["status"] == "ready"
    }
    return Learned(openings, {policy.workload for policy in fitted.policies_}, ready)


def _union(case: Case, train: np.ndarray, wanted: Callable[[Seen], bool], most: int) -> Learned:
    """One opening per port with all its peers; more than ``most`` outside addresses: World."""
    by_port: defaultdict[tuple[Door, int], Opening] = defaultdict(lambda: Opening(0, 0))
    restricted = {case.seen[n].workload for n in np.flatnonzero(np.isfinite(train))}
    for n in np.flatnonzero(np.isfinite(train)):
        seen = case.seen[n]
        if seen.verdict == "listening" or seen.own_node or not wanted(seen):
            continue
        one = by_port[seen.door, seen.port]
        one.first = one.last = seen.port
        peer = named(seen.peer)
        if peer is not None:
            one.workloads.add(peer)
        elif seen.peer.ip is not None:
            one.addresses.add(seen.peer.ip)
    openings: defaultdict[Door, list[Opening]] = defaultdict(list)
    for (door, _), one in by_port.items():
        if len(one.addresses) > most:
            one.entities.add("World")
        openings[door].append(one)
    return Learned(openings, restricted, set(restricted))


def union(case: Case, days: float, train: np.ndarray) -> Learned:  # noqa: ARG001
    """Everything answered, as it was seen; offered at once."""
    return _union(case, train, lambda seen: seen.verdict in ANSWERED, sys.maxsize)


def nothing_new(hours: float) -> Learner:
    """The union (World above 8 addresses), offered when nothing was new for so many hours."""

    def learn(case: Case, days: float, train: np.ndarray) -> Learned:
        made = _union(case, train, lambda seen: seen.verdict in ANSWERED, 8)
        newest: dict[Workload, float] = {}
        first: dict[tuple[Any, ...], float] = {}
        for n in np.flatnonzero(np.isfinite(train)):
            seen = case.seen[n]
            if seen.verdict in ANSWERED and not seen.own_node:
                who = named(seen.peer) or "outside"
                key = (*seen.door, seen.port, who)
                first[key] = min(first.get(key, np.inf), float(train[n]))
        for (workload, *_), at in first.items():
            newest[workload] = max(newest.get(workload, 0.0), at)
        made.ready = {w for w, at in newest.items() if at <= days * 86400 - hours * 3600}
        return made

    return learn


def inspektor(case: Case, days: float, train: np.ndarray) -> Learned:  # noqa: ARG001
    """As Inspektor Gadget's advise networkpolicy: TCP from the SYN, UDP below port 1024."""
    return _union(case, train, lambda seen: seen.protocol == "TCP" or seen.port < 1024, sys.maxsize)


def theia(case: Case, days: float, train: np.ndarray) -> Learned:  # noqa: ARG001
    """As Antrea Theia: rules by pair of labels, a /32 per outside address, kube-system left open.

    A workload has one set of labels here, so that a pair of labels is a pair of workloads.
    """
    made = _union(case, train, lambda seen: seen.verdict in ANSWERED, sys.maxsize)
    made.restricted = {w for w in made.restricted if w.namespace != "kube-system"}
    made.ready &= made.restricted
    return made


METHODS: dict[str, Learner] = {
    "portforge": ours,
    "union of what was seen": union,
    **{f"nothing new for {k} h": nothing_new(k) for k in (6, 24, 72)},
    "SYN, UDP < 1024 (Inspektor Gadget)": inspektor,
    "label pairs (Theia)": theia,
}


def measure(case: Case, learn: Learner, days: float) -> dict[str, float]:
    """One cluster, one way, one training time."""
    train, rest = case.firsts(days)
    made = learn(case, days, train)
    refused: defaultdict[Workload, float] = defaultdict(lambda: np.inf)
    missing: set[int] = set()
    for n, seen in enumerate(case.seen):
        if seen.truth < 0 or made.admits(seen):
            continue
        missing.add(seen.truth)
        refused[seen.workload] = min(refused[seen.workload], rest[n] - days * 86400)
    known = case.until <= days * 86400
    day = (case.at // 86400).astype(int)
    used = pd.DataFrame({"truth": case.made.needed[known], "day": day[known]}).query("truth >= 0")
    twice = {int(n) for n, count in used.groupby("truth")["day"].nunique().items() if count >= 2}  # type: ignore[call-overload]
    every = {int(n) for n in case.made.needed.unique() if n >= 0}
    admitted, extra = _granted(case, made)
    bad = {
        (*s.door, s.port, named(s.peer) or s.peer.ip)
        for n, s in enumerate(case.seen)
        if s.what in ("scan", "background")
        and np.isfinite(train[n])
        and s.workload in made.restricted
        and not case.needs(s.door, s.port, _unit(case, s))
        and made.admits(s)
    }
    return {
        "recall 2d": 1 - len(missing & twice) / len(twice) if twice else np.nan,
        "recall all": 1 - len(missing & every) / len(every),
        "over-grant": extra / admitted if admitted else np.nan,
        "scans": len(bad),
        **{f"broken {d}": sum(at <= d * 86400 for at in refused.values()) for d in HORIZONS},
        "policies": len(made.restricted),
        "ready": len(made.ready),
        "ready broken": sum(refused[w] < np.inf for w in made.ready),
    }


def _unit(case: Case, seen: Seen) -> Any:
    return named(seen.peer) or block_of(seen.peer.ip or "0.0.0.0", case.blocks)


def _granted(case: Case, made: Learned) -> tuple[int, int]:
    """Port-peers admitted, and those of them nobody needs."""
    admitted = extra = 0
    for door, openings in made.openings.items():
        if door[0] not in made.restricted:
            continue
        for one in openings:
            for unit in one.units(case.workloads, case.blocks):
                ports = range(one.first, one.last + 1)
                admitted += len(ports)
                extra += sum(not case.needs(door, port, unit) for port in ports)
    return admitted, extra


def _cell(values: list[float], percent: bool) -> str:
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return "–"
    three = (min(known), median(known), max(known))
    low, middle, high = (f"{100 * v:.1f}" if percent else f"{v:g}" for v in three)
    return middle if low == high else f"{middle} ({low}–{high})"


COLUMNS = {
    "recall 2d": "recall of ≥ 2 days, %",
    "recall all": "recall of all, %",
    "over-grant": "over-grant, %",
    "scans": "scan port-peers learned",
    **{f"broken {d}": f"broken after {d} d" for d in HORIZONS},
    "policies": "policies",
    "ready": "ready",
    "ready broken": "broken among ready",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How right recommended policies are.")
    parser.add_argument("--quick", action="store_true", help="2 small clusters, 15 days")
    parser.add_argument("--seeds", type=int, default=3, help="seeds for each graph")
    parser.add_argument("--workloads", type=int, default=14, help="size of the random graphs")
    asked = parser.parse_args()
    trained: tuple[int, ...] = (1, 3, 7)
    days, seeds, size = 37, asked.seeds, asked.workloads
    plans: list[Graph | None] = [None, SOCK_SHOP, ONLINE_BOUTIQUE]  # None: a random one
    if asked.quick:
        trained, days, seeds, size, plans = (3, 7), 15, 1, 8, plans[:2]
    found: defaultdict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    begun, clusters = time.monotonic(), 0
    for plan in plans:
        for seed in range(1, seeds + 1):
            case = Case(cluster(plan or random_graph(size, seed=seed), seed=seed, days=days))
            clusters += 1
            for t in trained:
                for name, learn in METHODS.items():
                    found[t, name].append(measure(case, learn, t))
            spent = time.monotonic() - begun
            print(f"{clusters}/{len(plans) * seeds} clusters, {spent:.0f} s", file=sys.stderr)
    print(f"{clusters} clusters ({len(plans)} graphs × {seeds} seeds) of {days} days.\n")
    for t in trained:
        print(f"Trained on {t} day{'s' if t > 1 else ''}:\n")
        print("| learned by | " + " | ".join(COLUMNS.values()) + " |")
        print("|---|" + "---:|" * len(COLUMNS))
        for name in METHODS:
            cells = [
                _cell([one[c] for one in found[t, name]], c.startswith(("recall", "over")))
                for c in COLUMNS
            ]
            print(f"| {name} | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()
