"""Who has which address: pods, Services and nodes of the cluster. Pure; knows no API server.

An identity source (``portforge_recorder.identity``) makes an :class:`Inventory`; the recorder
attributes rows with it and ``compile`` turns peers of a rule into addresses with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from portforge.schema import Peer, PeerKind, Workload

__all__ = ["Inventory", "Node", "Pod", "Service", "ServicePort"]

_SKEW = timedelta(seconds=5)
"""By how much clocks of nodes may differ, and Kubernetes rounds its times to seconds."""


@dataclass(frozen=True)
class Pod:
    """A pod: ``uid`` as in its cgroup's name, addresses as canonical text.

    ``workload`` is the top of the owner chain, None while that is not known. A ``host_network``
    pod has no address of its own. It held its addresses from ``since`` (None: since ever) to
    ``until`` (None: it still does).
    """

    uid: str
    namespace: str
    name: str
    workload: Workload | None
    node: str
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class ServicePort:
    """One port of a Service, the port of the backend behind it, and that on every node, or 0."""

    protocol: str
    port: int
    target_port: int
    node_port: int = 0


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
    closed_namespaces: frozenset[str] = frozenset()
    """Namespaces that ask for pods to be denied until they are known."""

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
            if not pod.host_network and pod.until is None:
                found |= {address: _pod_peer(address, pod) for address in pod.addresses}
        for service in self.services:
            for address in service.addresses:
                owner = service.workload
                found[address] = (
                    Peer(address, PeerKind.SERVICE, owner.namespace, owner.kind, owner.name)
                    if owner
                    else Peer(address, PeerKind.SERVICE, service.namespace)
                )
        return found

    @cached_property
    def _holders(self) -> dict[str, list[Pod]]:
        """Pods that have an address, or had it lately."""
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            for address in pod.addresses if not pod.host_network else ():
                found.setdefault(address, []).append(pod)
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

    @cached_property
    def _node_ports(self) -> dict[tuple[str, int], int]:
        return {
            (port.protocol, port.node_port): port.target_port
            for service in self.services
            for port in service.ports
            if port.node_port
        }

    def peer(self, address: str) -> Peer:
        """Who has ``address`` (canonical text) now.

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

    def constant(self, address: str, first: datetime) -> bool:
        """Whether ``address`` has been since ``first`` whose it is now."""
        holders = self._holders.get(address, ())
        return not holders or (
            len(holders) == 1 and holders[0].until is None and _since(holders[0], first)
        )

    def peer_at(self, address: str, first: datetime, last: datetime) -> Peer:
        """Who had ``address`` from ``first`` to ``last``: ``unknown`` where that changed.

        >>> from datetime import UTC
        >>> noon = datetime(2026, 11, 25, 12, tzinfo=UTC)
        >>> old = Pod("1", "shop", "a", Workload("shop", "Job", "a"), "n", ("10.244.0.9",),
        ...     until=noon)
        >>> new = Pod("2", "shop", "b", Workload("shop", "Job", "b"), "n", ("10.244.0.9",),
        ...     since=noon)
        >>> inventory, hour = Inventory("c", "n", (old, new)), timedelta(hours=1)
        >>> inventory.peer_at("10.244.0.9", noon - hour, noon - hour).workload
        'a'
        >>> inventory.peer_at("10.244.0.9", noon - hour, noon + hour).kind
        <PeerKind.UNKNOWN: 'unknown'>
        """
        if self.constant(address, first):
            return self.peer(address)
        holders = self._holders[address]
        held = [p for p in holders if _held(p, first, last)] or [
            p for p in holders if _held(p, first - _SKEW, last + _SKEW)
        ]
        if len({p.uid for p in held}) != 1 or not _since(held[0], first):
            return Peer(address, PeerKind.UNKNOWN)
        return _pod_peer(address, held[0])

    def target_port(self, address: str, protocol: str, port: int) -> int | None:
        """The backend's port where ``address`` is a Service's, or a node's with a node port."""
        target = self._target_ports.get((address, protocol, port))
        if target is None and self.peer(address).kind is PeerKind.NODE:
            target = self._node_ports.get((protocol, port))
        return target

    def addresses(self, workload: Workload) -> Iterator[str]:
        """Every address ``workload`` answers on: its pods' and its Services'."""
        for address, peer in self._peers.items():
            if peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE) and workload == (
                peer.namespace,
                peer.workload_kind,
                peer.workload,
            ):
                yield address

    def namespace_addresses(self, namespace: str) -> Iterator[str]:
        """Every address of a namespace's pods, whoever owns them, and of its Services."""
        for address, peer in self._peers.items():
            if peer.kind in (PeerKind.WORKLOAD, PeerKind.SERVICE) and peer.namespace == namespace:
                yield address

    @property
    def node_addresses(self) -> tuple[str, ...]:
        """Every address that :meth:`peer` says is a node's."""
        return tuple(a for a, peer in self._peers.items() if peer.kind is PeerKind.NODE)


def _pod_peer(address: str, pod: Pod) -> Peer:
    if pod.workload is None:
        return Peer(address, PeerKind.UNKNOWN)
    return Peer(address, PeerKind.WORKLOAD, *pod.workload)


def _since(pod: Pod, first: datetime) -> bool:
    return pod.since is None or pod.since <= first + _SKEW


def _held(pod: Pod, first: datetime, last: datetime) -> bool:
    """Whether ``pod`` had its addresses at any time from ``first`` to ``last``."""
    begun = pod.since is None or pod.since <= last
    return begun and (pod.until is None or pod.until >= first)
