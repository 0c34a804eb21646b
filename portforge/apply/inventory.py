"""Who has which address: pods, Services and nodes of the cluster. Pure; knows no API server.

An identity source (``portforge_recorder.identity``) makes an :class:`Inventory`; the recorder
attributes rows with it and ``compile`` turns peers of a rule into addresses with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from portforge.schema import Peer, PeerKind, Workload

__all__ = ["Inventory", "Node", "Pod", "Service", "ServicePort"]


@dataclass(frozen=True)
class Pod:
    """A pod: ``uid`` as in its cgroup's name, addresses as canonical text.

    ``workload`` is the top of the owner chain. A ``host_network`` pod has no address of its own.
    """

    uid: str
    namespace: str
    name: str
    workload: Workload
    node: str
    addresses: tuple[str, ...] = ()
    host_network: bool = False


@dataclass(frozen=True)
class ServicePort:
    """One port of a Service and the port of the backend behind it."""

    protocol: str
    port: int
    target_port: int


@dataclass(frozen=True)
class Service:
    """A Service: its cluster addresses, its ports, the workload it selects (None: none or many)."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    ports: tuple[ServicePort, ...] = ()
    workload: Workload | None = None


@dataclass(frozen=True)
class Node:
    """A node and every address its traffic may come from, also that of the pod bridge."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """The cluster as known at one moment, seen from the node ``node``."""

    cluster: str
    node: str
    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    nodes: tuple[Node, ...] = ()
    cidrs: tuple[str, ...] = field(default=())
    """Pod and Service ranges: an address in them that nobody has is ``unknown``, not external."""

    @cached_property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The parsed ``cidrs``."""
        return tuple(ip_network(c) for c in self.cidrs)

    @cached_property
    def _peers(self) -> dict[str, Peer]:
        found: dict[str, Peer] = {}
        for node in self.nodes:
            for address in node.addresses:
                found[address] = Peer(address, PeerKind.NODE, None, "Node", node.name)
        for pod in self.pods:
            for address in pod.addresses if not pod.host_network else ():
                w = pod.workload
                found[address] = Peer(address, PeerKind.WORKLOAD, w.namespace, w.kind, w.name)
        for service in self.services:
            for address in service.addresses:
                owner = service.workload
                found[address] = (
                    Peer(address, PeerKind.SERVICE, owner.namespace, owner.kind, owner.name)
                    if owner
                    else Peer(address, PeerKind.SERVICE, service.namespace)
                )
        return found

    @property
    def known_addresses(self) -> tuple[str, ...]:
        """Every address of a pod, Service or node, sorted."""
        return tuple(sorted(self._peers))

    @cached_property
    def _target_ports(self) -> dict[tuple[str, str, int], int]:
        return {
            (address, port.protocol, port.port): port.target_port
            for service in self.services
            for address in service.addresses
            for port in service.ports
        }

    def peer(self, address: str) -> Peer:
        """Who has ``address`` (canonical text).

        >>> Inventory("c", "n", cidrs=("10.244.0.0/16",)).peer("10.244.0.9").kind
        <PeerKind.UNKNOWN: 'unknown'>
        >>> Inventory("c", "n").peer("192.0.2.1").kind
        <PeerKind.EXTERNAL: 'external'>
        """
        known = self._peers.get(address)
        if known:
            return known
        ip = ip_address(address)
        if ip.is_loopback:
            return Peer(address, PeerKind.LOOPBACK)
        inside = any(ip.version == n.version and ip in n for n in self.networks)
        return Peer(address, PeerKind.UNKNOWN if inside else PeerKind.EXTERNAL)

    def target_port(self, address: str, protocol: str, port: int) -> int | None:
        """The backend's port where ``address`` is a Service's, else None."""
        return self._target_ports.get((address, protocol, port))

    def addresses(self, workload: Workload) -> Iterator[str]:
        """Every address ``workload`` answers on: its pods' and its Services'."""
        for address, peer in self._peers.items():
            if peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE) and workload == (
                peer.namespace,
                peer.workload_kind,
                peer.workload,
            ):
                yield address

    @property
    def node_addresses(self) -> tuple[str, ...]:
        """Every address that :meth:`peer` says is a node's."""
        return tuple(a for a, peer in self._peers.items() if peer.kind is PeerKind.NODE)
