"""The whole cluster: make, wait until Ready, give DNS, stop without a trace."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from localcluster import binaries, images
from localcluster.binaries import BINARIES, CACHE
from localcluster.control import ControlPlane
from localcluster.network import Network
from localcluster.node import Node, unified
from localcluster.processes import LocalClusterError, until

__all__ = ["Cluster"]


@dataclass
class Cluster:
    """Cluster ``name``: a control plane and ``size`` nodes.

    Parameters
    ----------
    name: up to 5 letters; the nodes are called ``<name>-node-1`` and so on.
    number: keeps the addresses of clusters apart that run at once, 0 to 7.
    proxy_mode: kube-proxy's: nftables or iptables.
    """

    name: str = "lab"
    number: int = 0
    size: int = 3
    proxy_mode: str = "nftables"
    say: Callable[[str], None] = print
    nodes: list[Node] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = CACHE / "clusters" / self.name
        self.network = Network(self.name, self.number)
        self.plane = ControlPlane(
            self.folder / "control-plane",
            self.network.server,
            6443,
            self.network.services,
            self.network.pods,
            controllers=True,
            inside=tuple(self.network.inside(self.network.hub)),
        )
        self.nodes = [
            Node(i, self.network, self.plane, self.folder / f"node-{i}", self.proxy_mode)
            for i in range(1, self.size + 1)
        ]

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.plane.kubeconfig

    @property
    def chart_values(self) -> tuple[str, ...]:
        """What Port Policy Forge's chart must be told here.

        There is no registry, cgroups may be mounted hybrid, and the nodes share one disk: what the
        chart keeps on it goes below the cluster's folder, and with it.
        """
        host = self.folder / "host"
        return (
            "image.pullPolicy=Never",
            f"cgroups.path={unified()}",
            f"state.hostPath={host / 'state'}",
            f"run.hostPath={host / 'run'}",
            f"capture.hostPath={host / 'capture'}",
        )

    @property
    def running(self) -> bool:
        """Was it started and not stopped?"""
        return self.plane.processes.running("api-server")

    def up(self) -> None:
        """Build what is missing, start everything, wait until every node is Ready."""
        if self.running:
            self.say(f"Cluster {self.name} runs already.")
            return
        binaries.build(self.say)
        needed = [images.pause(), images.coredns()]
        self.down()
        started = time.monotonic()
        try:
            self.network.make(self.size)
            self.plane.start()
            with ThreadPoolExecutor() as together:
                list(together.map(Node.start, self.nodes))
            self._connect()
            self.load(*needed)
            self._dns()
            until("the nodes to be Ready", self._ready, 120, 0.5)
        except BaseException:
            self.say("It did not start; the logs are kept below " + str(self.folder))
            self.end()
            raise
        self.say(f"{self.size} nodes Ready after {time.monotonic() - started:.0f} s.")

    def end(self) -> None:
        """End every process, cgroup, mount and namespace; logs and data stay."""
        with ThreadPoolExecutor() as together:
            list(together.map(Node.stop, self.nodes))
        self.plane.stop()
        self.network.remove()

    def down(self) -> None:
        """Like :meth:`end`, and forget everything but the binaries and images."""
        self.end()
        shutil.rmtree(self.plane.folder, ignore_errors=True)
        self.plane.__post_init__()
        shutil.rmtree(self.folder / "host", ignore_errors=True)
        for node in self.nodes:
            shutil.rmtree(node.folder, ignore_errors=True)
            node.__post_init__()

    def kubectl(self, *words: str | Path, give: str | None = None) -> str:
        """Run kubectl as the administrator; what it printed."""
        done = subprocess.run(
            [BINARIES / "kubectl", "--kubeconfig", self.kubeconfig, *words],
            input=give,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalClusterError(f"kubectl {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def load(self, *archives: Path) -> None:
        """Import image archives on every node."""
        with ThreadPoolExecutor() as together:
            for archive in archives:
                list(together.map(lambda node, a=archive: node.load_image(a), self.nodes))

    def _connect(self) -> None:
        """Give every node's pods their addresses, as the controller manager chose them."""
        until("the nodes to register", lambda: len(self._cidrs()) == self.size, 60)
        cidrs = self._cidrs()
        for node in self.nodes:
            node.connect_pods(cidrs[node.number])
        self.network.route(cidrs)

    def _cidrs(self) -> dict[int, str]:
        items = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        found = {item["metadata"]["name"]: item["spec"].get("podCIDR") for item in items}
        return {n.number: found[n.name] for n in self.nodes if found.get(n.name)}

    def _ready(self) -> bool:
        items = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        conditions = [c for i in items for c in i["status"]["conditions"] if c["type"] == "Ready"]
        return [c["status"] for c in conditions] == ["True"] * self.size

    def _dns(self) -> None:
        manifest = Path(__file__).with_name("coredns.yaml").read_text()
        self.kubectl("apply", "-f", "-", give=manifest.replace("CLUSTER_DNS", self.network.dns))
