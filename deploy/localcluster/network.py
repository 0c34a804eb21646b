"""The wires of a local cluster: a hub namespace with a bridge, one namespace for each node.

Nothing reaches the machine's own network but one veth, by which kubectl asks the API server.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Network"]

_RUN = Path("/run/netns")


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Network:
    """Names and addresses of cluster number ``number``, 0 to 7.

    >>> Network("demo", 0).address(2), Network("demo", 1).services
    ('10.80.0.12', '10.97.0.0/16')
    """

    name: str
    number: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 5 or not 0 <= self.number <= 7:
            raise ValueError("a cluster's name has 1 to 5 letters, its number is 0 to 7")

    @property
    def hub(self) -> str:
        """The namespace of the control plane; the nodes' bridge is in it."""
        return f"{self.name}-hub"

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"10.{80 + self.number}.0.1"

    @property
    def services(self) -> str:
        """The range of Service addresses."""
        return f"10.{96 + self.number}.0.0/16"

    @property
    def dns(self) -> str:
        """The cluster DNS's Service address."""
        return f"10.{96 + self.number}.0.10"

    @property
    def pods(self) -> str:
        """The range of pod addresses; each node has a part of it."""
        return f"10.{240 + self.number}.0.0/16"

    def node(self, number: int) -> str:
        """A node's name, and its namespace's."""
        return f"{self.name}-node-{number}"

    def address(self, number: int) -> str:
        """A node's address."""
        return f"10.{80 + self.number}.0.{10 + number}"

    @staticmethod
    def inside(namespace: str) -> list[str]:
        """What to put before a command to run it in ``namespace``; /sys stays the machine's."""
        return ["nsenter", f"--net={_RUN / namespace}"]

    def make(self, nodes: int) -> None:
        """Make the hub, the nodes' namespaces and the wires between."""
        _do("ip", "netns", "add", self.hub)
        _do("ip", "-n", self.hub, "link", "set", "lo", "up")
        _do("ip", "-n", self.hub, "link", "add", "nodes", "type", "bridge")
        _do("ip", "-n", self.hub, "address", "add", f"{self.server}/24", "dev", "nodes")
        _do("ip", "-n", self.hub, "link", "set", "nodes", "up")
        self._wire(self.hub)
        _do("ip", "address", "add", f"10.{80 + self.number}.0.254/24", "dev", self.hub)
        _do("ip", "link", "set", self.hub, "up")
        for number in range(1, nodes + 1):
            name = self.node(number)
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
            self._wire(name)
            _do("ip", "link", "set", name, "netns", name, "name", "eth0")
            _do("ip", "-n", name, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _do("ip", "-n", name, "link", "set", "eth0", "up")
            _do("ip", "-n", name, "route", "add", "default", "via", self.server)
            _do(*self.inside(name), "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def _wire(self, name: str) -> None:
        """A veth ``name`` here whose other end, ``p-<name>``, is a port of the bridge."""
        port = f"p-{name}"
        _do("ip", "link", "add", name, "type", "veth", "peer", "name", port)
        _do("ip", "link", "set", port, "netns", self.hub)
        _do("ip", "-n", self.hub, "link", "set", port, "master", "nodes", "up")

    def route(self, cidrs: dict[int, str]) -> None:
        """Let everybody reach the pods of each node, given by its number."""
        for number, cidr in cidrs.items():
            for place in (self.hub, *(self.node(other) for other in cidrs if other != number)):
                _do("ip", "-n", place, "route", "replace", cidr, "via", self.address(number))

    def cut(self, number: int, *, off: bool = True) -> None:
        """Cut a node from the API server, or let it back; the nodes still reach each other."""
        kind, name = "add" if off else "del", self.node(number)
        # Both ways: an open watch would go on to bring news that nobody acknowledges.
        for way in ("to", "from"):
            _do("ip", "-n", name, "rule", kind, way, self.server, "priority", "10", "prohibit")

    def remove(self) -> None:
        """Remove every namespace of this cluster, and those of its pods are left to containerd."""
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            name = line.split()[0]
            if name == self.hub or name.startswith(f"{self.name}-node-"):
                with suppress(subprocess.CalledProcessError):
                    _do("ip", "netns", "delete", name)
