"""Pods over time: replicas, restarts, rollouts, runs of CronJobs; names, addresses, nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from portforge.schema import Workload
from portforge.synth._graph import Member

__all__ = ["DAY", "NODES", "NODE_ADDRESSES", "Pods", "service_address"]

Ints = npt.NDArray[np.int64]
DAY = 86400
NODES = ("node-1", "node-2", "node-3")
NODE_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
_BEFORE = -DAY
_LETTERS = np.array(list("bcdfghjklmnpqrstvwxz2456789"))


def service_address(number: int) -> str:
    """The Service's address of the workload with this number."""
    return f"10.96.{number // 250}.{number % 250 + 1}"


class Pods:
    """Every pod of the window; a pod is a number, instants are seconds since the start.

    Parameters
    ----------
    rollouts_per_week, restarts_per_week: mean number per workload, and per replica.
    """

    def __init__(
        self,
        members: Sequence[Member],
        days: int,
        rng: np.random.Generator,
        *,
        rollouts_per_week: float,
        restarts_per_week: float,
    ) -> None:
        self.workloads = [member.workload for member in members]
        self.number = {workload: n for n, workload in enumerate(self.workloads)}
        self.owner: list[int] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.node: list[int] = []
        self.start: list[int] = []
        self._lives: dict[Workload, list[tuple[Ints, Ints]]] = {}
        for member in members:
            self._lives[member.workload] = []
            if not member.replicas:
                continue
            end = days * DAY
            rollouts = rng.integers(0, end, rng.poisson(rollouts_per_week * days / 7))
            for replica in range(member.replicas):
                restarts = rng.integers(0, end, rng.poisson(restarts_per_week * days / 7))
                starts = np.unique([_BEFORE, *(rollouts + 30 * replica), *restarts])
                pods = [self.begin(member.workload, int(t), replica, rng) for t in starts]
                self._lives[member.workload].append((starts, np.array(pods)))

    def begin(self, workload: Workload, at: int, replica: int, rng: np.random.Generator) -> int:
        """One more pod; its number."""
        n = len(self.names)
        suffix = "".join(rng.choice(_LETTERS, 5))
        stable = workload.kind == "StatefulSet"
        self.names.append(f"{workload.name}-{replica if stable else suffix}")
        self.addresses.append(f"10.244.{n // 250}.{n % 250 + 1}")
        self.owner.append(self.number[workload])
        self.node.append(int(rng.integers(len(NODES))))
        self.start.append(at)
        return n

    def replicas(self, workload: Workload) -> int:
        """Pods at one time; 0 for a CronJob."""
        return len(self._lives[workload])

    def at(self, workload: Workload, replica: Ints, seconds: Ints) -> Ints:
        """The pod that each replica is at each instant."""
        found = np.zeros(len(seconds), dtype=np.int64)
        for n, (starts, pods) in enumerate(self._lives[workload]):
            chosen = replica == n
            found[chosen] = pods[np.searchsorted(starts, seconds[chosen], side="right") - 1]
        return found

    def lives(self, workload: Workload, end: int) -> list[tuple[int, int, int, int]]:
        """(replica, pod, start, end) of each pod; those older than the window start before 0."""
        return [
            (replica, int(pod), int(start), int(stop))
            for replica, (starts, pods) in enumerate(self._lives[workload])
            for pod, start, stop in zip(pods, starts, [*starts[1:], end], strict=True)
        ]
