"""Who is who in a Kubernetes cluster: the identity source that watches the API server.

Follows pods, their owners, Services, nodes and namespaces, and keeps little of each. While the
API server is away it goes on with what it knows. Not for policies, and it writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from portforge.apply.inventory import Inventory, Node, Pod
from portforge.errors import ClusterError
from portforge.kube.client import request
from portforge.kube.watch import METADATA_ONLY, Watcher
from portforge.schema import Workload
from portforge_recorder import kubernetes_objects as objects
from portforge_recorder.kubernetes_objects import KeptOwned, KeptPod
from portforge_recorder.kubernetes_services import collapsed, make_services

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["STALE_SECONDS", "KubernetesSource"]

STALE_SECONDS = 60.0
"""Rows attributed after so long a silence of the API server are counted as ``stale_identity``."""

_PULSE_SECONDS = 30
"""The watch of namespaces ends this often, so that a quiet API server is heard from."""
_SERVICE_RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
_OWNED = {("apps", "ReplicaSet"), ("batch", "Job")}
"""Kinds that are themselves owned; any other kind stands for itself."""

_log = logging.getLogger(__name__)


class KubernetesSource:
    """The cluster as the API server tells it; an ``IdentitySource``.

    Parameters
    ----------
    api: from :func:`portforge.kube.client.connect`. It must be allowed to list and watch pods,
        replicasets, jobs, services, endpointslices, nodes and namespaces; servicecidrs if it can.
    node: the node this runs on.
    cluster: the cluster's name, for the capture.
    wait: how long the first :meth:`inventory` waits for the API server, in seconds.
    keep: for how long a pod that ended stays known, in seconds; longer than a drain interval.
    """

    def __init__(
        self, api: ApiClient, node: str, cluster: str, *, wait: float = 30.0, keep: float = 300.0
    ) -> None:
        self.node, self.cluster = node, cluster
        self._api, self._wait, self._keep = api, wait, timedelta(seconds=keep)
        self.changed = Event()
        """Set whenever something changed; whoever waits for it clears it."""
        wake = self.changed.set
        self._pods = Watcher(
            api, "/api/v1/pods", objects.pod, on_change=wake, on_replaced=self._replaced
        )
        self._replicasets, self._jobs = (
            Watcher(api, path, objects.owned, on_change=wake, accept=METADATA_ONLY)
            for path in ("/apis/apps/v1/replicasets", "/apis/batch/v1/jobs")
        )
        self._services = Watcher(api, "/api/v1/services", objects.service, on_change=wake)
        self._slices = Watcher(
            api, "/apis/discovery.k8s.io/v1/endpointslices", objects.endpoint_slice, on_change=wake
        )
        self._nodes = Watcher(api, "/api/v1/nodes", objects.node, on_change=wake)
        self._namespaces = Watcher(
            api, "/api/v1/namespaces", objects.closed_namespace, on_change=wake,
            accept=METADATA_ONLY, seconds=_PULSE_SECONDS,
        )  # fmt: skip
        self.watchers: dict[str, Watcher[Any]] = {
            w.path.rpartition("/")[2]: w
            for w in (
                self._nodes, self._namespaces, self._replicasets, self._jobs, self._pods,
                self._services, self._slices,
            )
        }  # fmt: skip
        """By resource, for the metrics: ``synced``, ``age`` and ``problem`` of each."""
        self._lock = Lock()
        self._started = False
        self._left: list[tuple[datetime, KeptPod]] = []
        """Pods that were deleted, and when the watch said so."""
        self._seen_ended: dict[str, datetime] = {}
        """Pods that ended and do not say when."""
        self._owners: dict[str, Workload] = {}
        """The workload of a pod, once known: a ReplicaSet goes before its last pods."""
        self._made: dict[str, tuple[KeptPod, Workload | None, Pod]] = {}
        self._service_ranges: tuple[str, ...] | None = None
        self._ranges_due = 0.0
        self._version: object = None
        self._inventory: Inventory | None = None

    def start(self) -> KubernetesSource:
        """Begin to watch; :meth:`inventory` does it by itself."""
        if not self._started:
            self._started = True
            for watcher in self.watchers.values():
                watcher.start()
        return self

    def stop(self) -> None:
        """End the watches; what is known stays."""
        for watcher in self.watchers.values() if self._started else ():
            watcher.stop()

    def __enter__(self) -> KubernetesSource:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def synced(self) -> bool:
        """Whether everything has been read at least once."""
        return all(w.synced for w in self.watchers.values())

    @property
    def age(self) -> float:
        """Seconds since the API server was last heard from, or since one watch has failed."""
        watchers = self.watchers.values()
        return max(min(w.age for w in watchers), *(w.age if w.problem else 0.0 for w in watchers))

    @property
    def stale(self) -> bool:
        """Whether rows attributed now count as ``LossReason.IDENTITY_STALE``."""
        return self.age > STALE_SECONDS

    def inventory(self) -> Inventory:
        """The cluster as known now; the same object while nothing has changed.

        Raises
        ------
        ClusterError: it was never read whole, in the first call after ``wait`` seconds.
        """
        self.start()
        if self._inventory is None:
            deadline = time.monotonic() + self._wait
            for watcher in self.watchers.values():
                watcher.wait(max(0.0, deadline - time.monotonic()))
        missing = [name for name, w in self.watchers.items() if not w.synced]
        if missing:
            why = next((w.problem for w in self.watchers.values() if w.problem), None)
            raise ClusterError(
                f"the cluster is not known yet: {', '.join(missing)} not read"
                + (f" ({why.problem})" if why else ""),
                place=why.place if why else str(self._api.configuration.host),
                remedy=why.remedy if why else "it is tried again by itself",
            )
        self._read_service_ranges()
        # Before the items are read: what changes meanwhile is seen next time.
        version = (*(w.changed for w in self.watchers.values()), self._service_ranges)
        with self._lock:
            now = datetime.now(UTC)
            forgotten = self._forget(now)
            if self._inventory is None or forgotten or version != self._version:
                self._version, self._inventory = version, self._build(now)
            return self._inventory

    def _replaced(self, uid: str, before: KeptPod, after: KeptPod | None) -> None:
        """Keep a pod that was deleted or ended, and addresses that a new sandbox gave up."""
        now = datetime.now(UTC)
        lost = before.addresses
        if after is not None:
            if after.ended and not before.ended:
                self._seen_ended[uid] = now
            lost = tuple(a for a in lost if a not in after.addresses)
            if after.ended or not lost:
                return
        if before.ended:
            until = before.until or self._seen_ended.get(uid, now)
        else:
            until = min(before.until or now, now)
        with self._lock:
            self._left.append((now, before._replace(addresses=lost, until=until)))

    def _forget(self, now: datetime) -> bool:
        """Drop what ended long ago; whether there was any."""
        before = len(self._left)
        self._left = [e for e in self._left if now - e[0] < self._keep]
        return len(self._left) != before

    def _read_service_ranges(self) -> None:
        """The cluster's Service ranges, where it tells them (Kubernetes 1.33)."""
        if self._service_ranges is not None or time.monotonic() < self._ranges_due:
            return
        self._ranges_due = time.monotonic() + 300
        try:
            answer = request(self._api, "GET", _SERVICE_RANGES)
            self._service_ranges = tuple(c for i in answer["items"] for c in i["spec"]["cidrs"])
        except ClusterError as problem:
            _log.info("Service ranges are not known, only the Services' addresses: %s", problem)
            if problem.status:
                self._service_ranges = ()

    def _build(self, now: datetime) -> Inventory:
        kept_nodes = self._nodes.items().values()
        nodes = [Node(n.name, n.addresses) for n in kept_nodes]
        parents = self._replicasets.items() | self._jobs.items()
        kept = self._pods.items()
        live = {u: self._made_pod(u, p, parents) for u, p in kept.items() if not p.ended}
        recent = [
            _pod(pod, self._workload(pod, parents), until)
            for pod, until in self._recent(kept, now)
            # Its last rows may be drained late: a pod of this node stays while the API has it.
            if pod.node == self.node or now - until < self._keep
        ]
        known = {p.uid for p in (*recent, *live.values())}
        self._owners = {uid: w for uid, w in self._owners.items() if uid in known}
        self._made = {uid: made for uid, made in self._made.items() if uid in live}
        services = make_services(
            self._services.items().values(),
            self._slices.items().values(),
            {uid: pod.workload for uid, pod in live.items()},
            {a for n in nodes for a in n.addresses},
        )
        return Inventory(
            self.cluster,
            self.node,
            # Those that ended first: of the same UID or address, a later pod counts.
            (
                *sorted(recent, key=lambda p: (p.until or now, p.uid)),
                *sorted(live.values(), key=lambda p: (p.namespace, p.name, p.uid)),
            ),
            services,
            tuple(sorted(nodes, key=lambda n: n.name)),
            collapsed((*(r for n in kept_nodes for r in n.ranges), *(self._service_ranges or ()))),
            frozenset(self._namespaces.items().values()),
        )

    def _recent(
        self, kept: Mapping[str, KeptPod], now: datetime
    ) -> Iterator[tuple[KeptPod, datetime]]:
        for _, pod in self._left:
            yield pod, pod.until or now
        for uid, pod in kept.items():
            if pod.ended:
                yield pod, pod.until or self._seen_ended.setdefault(uid, now)

    def _made_pod(self, uid: str, kept: KeptPod, parents: Mapping[str, KeptOwned]) -> Pod:
        """The same object while nothing of it has changed."""
        workload = self._workload(kept, parents)
        made = self._made.get(uid)
        if made is None or made[0] is not kept or made[1] != workload:
            made = self._made[uid] = (kept, workload, _pod(kept, workload, None))
        return made[2]

    def _workload(self, pod: KeptPod, parents: Mapping[str, KeptOwned]) -> Workload | None:
        """The top of the owner chain; None while a part of it is not known."""
        owner = pod.owner
        if owner is None:
            return Workload(pod.namespace, "Pod", pod.name)
        if (owner.group, owner.kind) == ("", "Node"):
            return Workload(pod.namespace, "Pod", pod.name.removesuffix(f"-{pod.node}"))
        if (owner.group, owner.kind) not in _OWNED:
            return Workload(pod.namespace, owner.kind, owner.name)
        parent = parents.get(owner.uid)
        if parent is not None:
            top = parent.owner or owner
            self._owners[pod.uid] = Workload(pod.namespace, top.kind, top.name)
        return self._owners.get(pod.uid)


def _pod(kept: KeptPod, workload: Workload | None, until: datetime | None) -> Pod:
    return Pod(
        kept.uid,
        kept.namespace,
        kept.name,
        workload,
        kept.node,
        kept.addresses,
        kept.host_network,
        kept.since,
        until,
    )
