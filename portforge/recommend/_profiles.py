"""What each workload does, by its policy, and how far two of them are from doing the same. Pure.

A feature is a door (direction, protocol, ports), or a door with what its peers are. What the peers
are is their kind at first, and their role once there is one. Asking DNS is left out: all do.

The distance of two workloads is the mean of two Jaccard distances, of what they serve and of what
they call: one less the share of the features of either that both have. Two that serve the same
and call nothing alike are at 0.5, and so are two that serve nothing alike and call the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from portforge.policy import PeerSelector, PortPolicy
from portforge.schema import Direction, Workload

__all__ = ["Door", "Profile", "cluster", "distances", "profile_of"]

_DNS = 53
_PASSES = 2
Distances = npt.NDArray[np.float64]


class Door(NamedTuple):
    """Where a workload is reached, or reaches others."""

    direction: Direction
    protocol: str
    ports: str

    def __str__(self) -> str:
        return f"{self.protocol} {self.ports}"


Profile = Mapping[Door, frozenset[PeerSelector] | None]
"""The peers of each door; None where any peer is let in."""


def profile_of(policy: PortPolicy) -> Profile:
    """The doors of a policy."""
    return {
        Door(direction, str(rule.protocol), rule.ports): (
            None if rule.peers is None else frozenset(rule.peers)
        )
        for direction in Direction
        for rule in policy.rules(direction) or ()
        if direction == Direction.INGRESS or rule.port != _DNS or rule.end_port
    }


def cluster(
    profiles: Mapping[Workload, Profile], threshold: float
) -> tuple[dict[Workload, int], Distances]:
    """The role of each workload as a number, counted in the order given, and the distances.

    Agglomerative, with complete linkage: no two members of a role are further apart than
    ``threshold``. There is no number of roles to guess. Peers are told apart by the roles of a
    first pass without them.
    """
    roles: dict[Workload, int] = {}
    apart: Distances = np.zeros((len(profiles), len(profiles)))
    for _ in range(_PASSES):
        apart = distances(profiles, roles)
        roles = dict(zip(profiles, _clusters(apart, threshold), strict=True))
    return roles, apart


def distances(profiles: Mapping[Workload, Profile], roles: Mapping[Workload, int]) -> Distances:
    """The matrix of distances, in the order of ``profiles``."""
    from sklearn.metrics import pairwise_distances

    parts = []
    for direction in Direction:
        own = [set(_features(profile, direction, roles)) for profile in profiles.values()]
        columns = sorted(set().union(*own)) or [("", "")]
        seen = np.array([[column in some for column in columns] for some in own], dtype=bool)
        parts.append(pairwise_distances(seen, metric="jaccard"))
    found: Distances = np.mean(parts, axis=0)
    return found


def _features(
    profile: Profile, direction: Direction, roles: Mapping[Workload, int]
) -> Iterable[tuple[str, str]]:
    for door, peers in profile.items():
        if door.direction != direction:
            continue
        yield str(door), ""
        for peer in peers if peers is not None else (None,):
            yield str(door), kind_of(peer, roles)


def kind_of(peer: PeerSelector | None, roles: Mapping[Workload, int]) -> str:
    """What a peer is: its role where it has one."""
    if peer is None:
        return "any peer"
    if peer.workload is not None:
        return f"role {roles[peer.workload]}" if peer.workload in roles else "workload"
    return "addresses" if peer.cidr is not None else str(peer)


def _clusters(apart: Distances, threshold: float) -> Sequence[int]:
    if len(apart) < 2:
        return [0] * len(apart)
    from sklearn.cluster import AgglomerativeClustering

    found = AgglomerativeClustering(
        n_clusters=None,
        metric="precomputed",
        linkage="complete",
        # At the threshold they still belong together; distances are sums of fractions.
        distance_threshold=threshold + 1e-9,
    ).fit_predict(apart)
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in found]
