"""Who calls whom, on which port, how often: the plan of a cluster. Makes no traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from portforge.schema import Protocol, Workload

__all__ = ["STORES", "Call", "Graph", "Kind", "Member", "Outside", "random_graph"]

Kind = Literal["steady", "startup", "daily", "weekly", "rare"]


@dataclass(frozen=True)
class Member:
    """A workload with its pods.

    Parameters
    ----------
    replicas: pods at one time; 0 for a CronJob, whose pods live for one run.
    listens: TCP ports it listens on beside those it is called on, used by nobody.
    """

    workload: Workload
    replicas: int = 2
    listens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outside:
    """Peers outside the cluster.

    Parameters
    ----------
    cidr: whom the workload must be able to meet; ``0.0.0.0/0`` for the whole internet.
    addresses: how many of them there are to meet; few often, most hardly ever.
    met_in: the block they are in; ``cidr`` when None.
    """

    name: str
    cidr: str
    addresses: int = 1
    met_in: str | None = None


@dataclass(frozen=True)
class Call:
    """One client calls one server.

    Parameters
    ----------
    port: what the client dials: the Service's port where the server is a workload.
    target_port: the pod's port behind the Service; ``port`` when None.
    kind: steady (``rate`` is a mean per client pod and hour), startup (once per pod), daily,
        weekly (on Sundays), or rare (``rate`` is a mean per workload and day).
    held: one connection per pod, opened at its start and kept.
    one_replica: only the first replica does it.
    last_port: each session on another port of ``port`` … ``last_port``.
    service: the client dials the Service's address; False: a pod's (headless Service, passive FTP).
    """

    client: Workload | Outside
    server: Workload | Outside
    port: int
    target_port: int | None = None
    kind: Kind = "steady"
    rate: float = 20.0
    protocol: Protocol = Protocol.TCP
    held: bool = False
    one_replica: bool = False
    last_port: int | None = None
    service: bool = True

    @property
    def pod_port(self) -> int:
        """The port in the server's pod."""
        return self.target_port or self.port


@dataclass(frozen=True)
class Graph:
    """A named plan: its workloads and their calls."""

    name: str
    members: tuple[Member, ...]
    calls: tuple[Call, ...] = field(repr=False)

    def add(self, members: tuple[Member, ...], calls: tuple[Call, ...]) -> Graph:
        """The same with more workloads and calls."""
        return Graph(self.name, self.members + members, self.calls + calls)


STORES = (5432, 6379, 27017, 3306, 9092, 5672)
_KINDS: tuple[Kind, ...] = ("steady", "startup", "daily", "rare")
_APPS = (80, 8080, 3000, 5000, 9090, 50051)
INTERNET = Outside("internet", "0.0.0.0/0", 4000, "198.18.0.0/15")


def random_graph(workloads: int = 12, *, seed: int) -> Graph:
    """A layered application: one entry, services, stores at the bottom; no cycles.

    >>> graph = random_graph(8, seed=1)
    >>> len(graph.members), graph == random_graph(8, seed=1)
    (8, True)
    """
    if workloads < 3:
        raise ValueError(f"at least 3 workloads are needed, not {workloads}")
    rng = np.random.default_rng([seed, workloads])
    layer = np.sort(rng.integers(1, 4, workloads - 2))
    layers = [0, *(int(n) for n in layer), 4]
    members, ports = [], []
    for n, depth in enumerate(layers):
        store = depth >= 3
        kind = "StatefulSet" if store else "Deployment"
        name = f"{'entry' if not depth else 'store' if store else 'app'}-{n}"
        members.append(
            Member(
                Workload("shop", kind, name),
                1 if store else int(rng.integers(1, 4)),
                (int(rng.choice([6060, 8125, 9901])),) if rng.random() < 0.3 else (),
            )
        )
        ports.append(int(rng.choice(STORES if store else _APPS)))
    calls = [Call(INTERNET, members[0].workload, ports[0], rate=40.0)]
    for server in range(1, workloads):
        above = [n for n, depth in enumerate(layers[:server]) if depth < layers[server]]
        clients = rng.choice(above, min(len(above), int(rng.integers(1, 4))), replace=False)
        for client in sorted(int(c) for c in clients):
            store = layers[server] >= 3
            nature = _KINDS[int(rng.choice(4, p=[0.8, 0.05, 0.05, 0.1]))]
            calls.append(
                Call(
                    members[client].workload,
                    members[server].workload,
                    ports[server] if store or rng.random() < 0.5 else 80,
                    ports[server],
                    nature,
                    rate=0.4 if nature == "rare" else float(np.exp(rng.normal(2.5, 1.2))),
                    held=nature == "steady" and rng.random() < 0.3,
                    service=not store or rng.random() < 0.7,
                )
            )
    plain = [
        c if c.service else Call(**{**vars(c), "port": c.pod_port, "target_port": None})
        for c in calls
    ]
    return Graph(f"random-{workloads}", tuple(members), tuple(plain))
