"""A node of test pods: real networks, real cgroups, no Kubernetes. Root is needed.

The node is a network namespace of its own, so nothing of the host's network is touched and
several nodes can stand beside each other. Each pod is a network namespace joined to the node's
by a veth with host routes (as kindnet and Calico do it) and a cgroup where the kubelet would put
it. Services are DNAT in the node's namespace, after the pod's cgroup hooks, as with kube-proxy.

::

    with Node() as node:
        web = node.pod("shop", "Deployment", "web")
        web.run(["nginx", "-g", "daemon off;"])
        print(node.check_output(["curl", web.address]))
"""

from __future__ import annotations

import os
import tempfile
import threading
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import NAMESPACE_DNS, uuid5

from portforge.apply.inventory import Service, ServicePort
from portforge.demo import cgroups
from portforge.demo.cluster import POD_CIDRS, SERVICE_CIDR, describe, translation, write
from portforge.demo.leftovers import (
    LOCKS,
    NAMESPACES,
    PREFIX,
    destroy,
    lock,
    sweep,
    uninterrupted,
)
from portforge.demo.machine import Machine, tool
from portforge.errors import HostError
from portforge.schema import Workload

__all__ = ["CLUSTER_DNS", "Node", "Outside", "Pod", "sweep"]

CLUSTER_DNS = "10.96.0.10"
"""The DNS server every pod is told to use; start a server and give it a Service to have one."""

NODE_ADDRESSES = ("10.77.0.1", "fd77::1")

_numbers = count(1)


class Pod(Machine):
    """A pod of one container. Make it with :meth:`Node.pod`.

    ``cgroup_path`` is the pod's cgroup (the one with the uid in its name), ``cgroup`` the
    container's inside it, where processes run. ``address`` and ``address6`` are the node's for a
    pod with ``host_network``.
    """

    def __init__(
        self,
        node: Node,
        workload: Workload,
        *,
        uid: str,
        cgroup_path: Path,
        host_network: bool,
        **machine: Any,
    ) -> None:
        super().__init__(**machine)
        self.node, self.workload, self.uid = node, workload, uid
        self.cgroup_path, self.host_network = cgroup_path, host_network

    def __repr__(self) -> str:
        return f"<Pod {self.workload.namespace}/{self.name} {self.address}>"

    def container(self, name: str) -> Path:
        """The cgroup of a further container, for ``run(..., cgroup=…)``."""
        path = self.node.container_path(self.cgroup_path, f"{self.uid}/{name}")
        path.mkdir(exist_ok=True)
        return path

    def stop(self) -> None:
        """Kill its processes and take it away; the inventory forgets it."""
        self.node.remove(self)


class Outside(Machine):
    """A host outside the cluster, reached through the node. Make it with :meth:`Node.outside`."""


class Node(Machine):
    """A node that stands from ``with`` to its end, whatever happens between.

    Parameters
    ----------
    name: the node's name in the inventory.
    driver: ``cgroupfs`` or ``systemd``: how the kubelet names cgroups.
    runtime: ``containerd`` or ``crio``: how the runtime does.

    ``kubepods`` is the cgroup to attach to. A node left by a run that was killed is removed by
    the next one.
    """

    def __init__(
        self,
        name: str = "node-a",
        *,
        driver: cgroups.Driver = "cgroupfs",
        runtime: cgroups.Runtime = "containerd",
        cluster: str = "demo",
    ) -> None:
        self.id = f"{PREFIX}{os.getpid():x}-{next(_numbers)}"
        self.driver, self.runtime, self.cluster = driver, runtime, cluster
        self.folder = Path(tempfile.gettempdir()) / self.id
        self.root = cgroups.mount_point() / self.id
        self.kubepods = self.root / cgroups.kubepods(driver)
        super().__init__(
            name,
            network=NAMESPACES / f"{self.id}-node",
            cgroup=self.root / "system",
            etc=self.folder / "etc-node",
            logs=self.folder / "logs",
            address=NODE_ADDRESSES[0],
            address6=NODE_ADDRESSES[1],
        )
        self.pods: list[Pod] = []
        self._ended: list[Pod] = []
        self.services: list[Service] = []
        self._outside: list[Outside] = []
        self._backends: dict[tuple[str, str], Pod] = {}
        self._inventory_file: Path | None = None
        self._lock: int | None = None
        self._guard = threading.RLock()
        self._hosts, self._links, self._cluster_ips = count(11), count(1), count(20)

    # ---- standing up and taking down

    def __enter__(self) -> Self:
        if os.geteuid():
            raise HostError("network namespaces need root", remedy="run it as root (sudo)")
        sweep()
        self._lock = lock(self.id)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill and remove everything of this node; a second call does nothing."""
        if self._lock is None:
            return
        with uninterrupted():
            for machine in (*self.pods, *self._outside, self):
                machine.kill()
            destroy(self.id)
            self.pods, self._outside, self.services = [], [], []
            (LOCKS / self.id).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _build(self) -> None:
        self.folder.mkdir(mode=0o755)
        self._logs.mkdir()
        pods_etc = self.folder / "etc"
        for etc, server in ((self._etc, "127.0.0.1"), (pods_etc, CLUSTER_DNS)):
            etc.mkdir()
            (etc / "resolv.conf").write_text(
                f"nameserver {server}\n"
                "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
                "options ndots:5\n"
            )
            (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
        for cgroup in (self.cgroup, self.kubepods):
            cgroup.mkdir(parents=True)
        tool("ip", "netns", "add", self.network.name)
        # Unknown pod addresses swallow packets, as Calico's do; Services are rewritten before
        # routing, the route to them only lets the node's own processes start.
        self._ip(
            "link set lo up",
            *(f"address add {a} dev lo" for a in NODE_ADDRESSES),
            *(f"route add blackhole {c}" for c in POD_CIDRS),
            f"route add {SERVICE_CIDR} dev lo src {self.address}",
        )
        forward = "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
        self.check_output(("sh", "-c", f"for f in {forward}; do echo 1 >$f || exit 1; done"))

    def _ip(self, *lines: str, within: Path | None = None) -> None:
        network = (within or self.network).name
        tool("ip", "-n", network, "-batch", "-", given="\n".join(lines) + "\n")

    def _join(self, network: Path, address: str, address6: str) -> None:
        """A namespace joined to the node's by a veth; all its traffic goes through the node."""
        tool("ip", "netns", "add", network.name)
        link = f"veth{next(self._links)}"
        # nodad: an IPv6 address that waits for duplicate detection cannot be used for a second.
        self._ip(
            f"link add {link} type veth peer name eth0 netns {network.name}",
            f"link set {link} addrgenmode none",
            f"link set {link} up",
            f"address add {self.address6}/128 dev {link} nodad",
            # A router asks for neighbours from its link-local address only.
            f"address add fe80::1/64 dev {link} nodad",
        )
        self._ip(
            "link set lo up",
            "link set eth0 addrgenmode none",
            "link set eth0 up",
            f"address add {address}/32 dev eth0",
            f"address add {address6}/128 dev eth0 nodad",
            f"route add {self.address} dev eth0",
            f"route add {self.address6} dev eth0",
            f"route add default via {self.address} dev eth0",
            f"route add default via {self.address6} dev eth0",
            within=network,
        )
        self._ip(
            f"route add {address} dev {link} src {self.address}",
            f"route add {address6} dev {link} src {self.address6}",
        )

    # ---- pods, hosts outside, Services

    def pod(
        self,
        namespace: str,
        kind: str,
        workload: str,
        name: str | None = None,
        host_network: bool = False,
        qos: cgroups.Qos = "burstable",
        uid: str | None = None,
    ) -> Pod:
        """A new pod of a workload (``Deployment``, ``StatefulSet``, ``Job``, ``Pod``…).

        ``uid``: as an API server gave it; made up where there is none.
        """
        with self._guard:
            number = next(self._hosts)
            host = 11 + (number - 11) % 240
            addresses = (f"10.77.0.{host}", f"fd77::{host}")
            if not host_network and addresses[0] in {p.address for p in self.pods}:
                raise HostError("all 240 pod addresses are taken", remedy="stop some pods")
            ordinal = sum(p.workload == (namespace, kind, workload) for p in self.pods)
            seed = f"{self.id}/{namespace}/{kind}/{workload}/{number}"
            uid = uid or str(uuid5(NAMESPACE_DNS, seed))
            cgroup_path = self.root / cgroups.pod_path(self.driver, qos, uid)
            network = self.network if host_network else NAMESPACES / f"{self.id}-{number}"
            pod = Pod(
                self,
                Workload(namespace, kind, workload),
                uid=uid,
                cgroup_path=cgroup_path,
                host_network=host_network,
                name=name or _pod_name(kind, workload, ordinal, uid),
                network=network,
                cgroup=self.container_path(cgroup_path, uid),
                etc=self.folder / "etc",
                logs=self._logs,
                address=self.address if host_network else addresses[0],
                address6=self.address6 if host_network else addresses[1],
            )
            if not host_network:
                self._join(network, *addresses)
            self._ended = [p for p in self._ended if p.address != pod.address]
            pod.cgroup.mkdir(parents=True)
            self.pods.append(pod)
            self._changed()
            return pod

    def container_path(self, pod: Path, seed: str) -> Path:
        """The cgroup of a container of ``pod``; its 64 hex digits come from ``seed``."""
        container = "".join(uuid5(NAMESPACE_DNS, f"{seed}/{n}").hex for n in range(2))
        return cgroups.container_path(self.driver, self.runtime, pod, container)

    def remove(self, pod: Pod) -> None:
        """What :meth:`Pod.stop` does."""
        with self._guard:
            if pod not in self.pods:
                return
            self.pods.remove(pod)
            # An API server goes on showing a pod that has ended, too; until its address is reused.
            self._ended = [p for p in self._ended if p.address != pod.address] + [pod]
            pod.kill()
            cgroups.destroy(pod.cgroup_path)
            if not pod.host_network:
                tool("ip", "netns", "delete", pod.network.name)
            self._backends = {k: p for k, p in self._backends.items() if p is not pod}
            self._translate()
            self._changed()

    def outside(self, name: str, address: str, address6: str) -> Outside:
        """A host outside the cluster's ranges, in no cgroup of a pod and not in the inventory."""
        host = Outside(
            name,
            network=NAMESPACES / f"{self.id}-{name}",
            cgroup=self.cgroup,
            etc=self._etc,
            logs=self._logs,
            address=address,
            address6=address6,
        )
        with self._guard:
            self._join(host.network, address, address6)
            self._outside.append(host)
        return host

    def service(
        self,
        namespace: str,
        name: str,
        port: int,
        target_port: int,
        backend_pod: Pod,
        *,
        protocols: tuple[str, ...] = ("TCP",),
        address: str | None = None,
    ) -> Service:
        """A Service with a ClusterIP. Called again for the same name, it changes the backend."""
        with self._guard:
            known = [s for s in self.services if (s.namespace, s.name) == (namespace, name)]
            cluster_ip = address or (
                known[0].addresses[0] if known else f"10.96.0.{next(self._cluster_ips)}"
            )
            service = Service(
                namespace,
                name,
                (cluster_ip,),
                tuple(ServicePort(p, port, target_port) for p in protocols),
                backend_pod.workload,
            )
            self.services = [s for s in self.services if s not in known] + [service]
            self._backends[namespace, name] = backend_pod
            self._translate()
            self._changed()
            return service

    def _translate(self) -> None:
        """Write every Service's DNAT at once, in one transaction."""
        self._nft(translation(self.services, self._backends))

    def _nft(self, ruleset: str) -> None:
        tool("nsenter", f"--net={self.network}", "nft", "-f", "-", given=ruleset)

    # ---- the inventory

    def inventory(self) -> dict[str, Any]:
        """The cluster as an identity source would know it; the shape of the inventory file."""
        with self._guard:
            return describe(
                self.cluster,
                self.name,
                (self.address, self.address6),
                [*self._ended, *self.pods],
                self.services,
            )

    def write_inventory(self, path: Path) -> None:
        """Write the inventory file and keep it up to date as pods come and go."""
        with self._guard:
            self._inventory_file = Path(path)
            self._changed()

    def _changed(self) -> None:
        if self._inventory_file is None:
            return
        write(self._inventory_file, self.inventory())


def _pod_name(kind: str, workload: str, ordinal: int, uid: str) -> str:
    """A name as the controller of ``kind`` would give it."""
    end = uid.replace("-", "")[-5:]
    if kind == "Pod":
        return workload if ordinal == 0 else f"{workload}-{ordinal}"
    if kind == "StatefulSet":
        return f"{workload}-{ordinal}"
    if kind == "Deployment":
        return f"{workload}-{uuid5(NAMESPACE_DNS, workload).hex[:10]}-{end}"
    return f"{workload}-{end}"
