"""Ways to learn policies: ours, and baselines written from our notes on their projects."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import numpy as np
import pandas as pd

from portforge.recommend import PortPolicyRecommender
from portforge.recommend._frame import FrameCapture
from portforge.schema import Peer, Workload
from tests.bench.clusters import (
    ELSEWHERE,
    NODE,
    WHO,
    Case,
    Door,
    Seen,
    block_of,
    inside,
    named,
    overlap,
)

ANSWERED = ("allowed", "audited")


@dataclass
class Opening:
    """Ports open to peers; the same for every way to learn."""

    first: int
    last: int
    workloads: set[Workload] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    entities: set[str] = field(default_factory=set)
    anybody: bool = False

    def admits(self, port: int, peer: Peer) -> bool:
        if not self.first <= port <= self.last:
            return False
        if self.anybody or peer.ip in self.addresses:
            return True
        who = named(peer)
        if who in self.workloads or any(inside(peer.ip, n) for n in self.networks):
            return True
        if who is not None and who.namespace in self.namespaces:
            return True
        kinds = {"Node": {"node"}, "World": {"external"}}
        kinds["Cluster"] = {"workload", "service", "node", "unknown"}
        return any(peer.kind in kinds[entity] for entity in self.entities)

    def units(self, workloads: Iterable[Workload], outside: tuple[str, ...]) -> set[Any]:
        """Whom it admits, out of all there are: outside addresses count by their block."""
        everybody = set(workloads)
        found: set[Any] = set(self.workloads)
        found |= {workload for workload in everybody if workload.namespace in self.namespaces}
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
                    elif peer.namespace is not None:
                        one.namespaces.add(peer.namespace)
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
