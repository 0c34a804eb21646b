"""PortPolicy to map entries: a pure function of the policies, the inventory and the time.

Ranges become prefixes of the port, peers become prefixes of the address. Ids are given only when
the entries are written (:mod:`portforge.apply.node`); here rules and peer sets are counted from 1
within their policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network

from portforge.apply.inventory import Inventory
from portforge.apply.layout import (
    PROTOCOLS,
    Direction,
    Established,
    Mode,
    Restrict,
    packed_address,
)
from portforge.policy import Entity, PeerSelector, PortPolicy, Rule
from portforge.schema import Workload

__all__ = ["CompiledPolicy", "PeerPrefix", "PortPrefix", "compile_policies", "port_prefixes"]

_MODES = {"Record": Mode.RECORD, "Audit": Mode.AUDIT, "Enforce": Mode.ENFORCE}
_ESTABLISHED = {"Rejudge": Established.REJUDGE, "Keep": Established.KEEP}
_IPV4_MAPPED = ip_network("::ffff:0:0/96")
_Network = IPv4Network | IPv6Network


@dataclass(frozen=True, order=True)
class PortPrefix:
    """One entry of the ``rules`` trie. ``bits`` counts those of ``port`` that must be equal."""

    direction: Direction
    protocol: int
    port: int
    bits: int
    rule: int
    peer_set: int
    """0: any peer."""


@dataclass(frozen=True, order=True)
class PeerPrefix:
    """One entry of the ``peers`` trie; ``allowed`` False is a hole in a wider prefix."""

    peer_set: int
    address: bytes
    bits: int
    allowed: bool


@dataclass(frozen=True)
class CompiledPolicy:
    """What the kernel needs of one policy, without ids. Equal policies compile equal."""

    workload: Workload
    mode: Mode
    established: Established
    restricted: int
    ports: tuple[PortPrefix, ...]
    peers: tuple[PeerPrefix, ...]
    rule_ids: tuple[str, ...]
    """Ids of the rules, the first is rule 1."""


def port_prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest (port, bits) prefixes that cover first..last, both inclusive.

    >>> list(port_prefixes(80, 80)), list(port_prefixes(1024, 65535))[:2]
    ([(80, 16)], [(1024, 6), (2048, 5)])
    """
    while first <= last:
        size = first & -first or 65536
        while first + size - 1 > last:
            size //= 2
        yield first, 17 - size.bit_length()
        first += size


def _mapped(network: _Network) -> tuple[bytes, int]:
    """Address and bits of a network among 128-bit addresses."""
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    return packed_address(str(network.network_address)), bits


def _cluster(inventory: Inventory) -> Iterator[_Network]:
    yield from inventory.networks
    for address in inventory.known_addresses:
        yield ip_network(address)


def _selected(peer: PeerSelector, inventory: Inventory) -> Iterator[_Network]:
    """The networks that ``peer`` names; nothing for World, which is what is left."""
    if peer.cidr is not None:
        yield ip_network(peer.cidr)
    elif peer.workload is not None:
        for address in inventory.addresses(Workload(*peer.workload)):
            yield ip_network(address)
    elif peer.namespace is not None:
        yield from map(ip_network, inventory.namespace_addresses(peer.namespace))
    elif peer.entity is Entity.CLUSTER:
        yield from _cluster(inventory)
    elif peer.entity is Entity.NODE:
        yield from map(ip_network, inventory.node_addresses)


def _inside(network: _Network, others: Iterable[_Network]) -> bool:
    return any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]
        for other in others
    )


def _peer_set(
    number: int, peers: tuple[PeerSelector, ...], inventory: Inventory
) -> Iterator[PeerPrefix]:
    allowed = {n for peer in peers for n in _selected(peer, inventory)}
    entries = {_mapped(network): True for network in allowed}
    holes: list[tuple[bytes, int]] = []
    if any(peer.entity is Entity.WORLD for peer in peers):
        # Everything, less the cluster, less what was named anyway.
        entries[bytes(16), 0] = True
        holes += [_mapped(n) for n in _cluster(inventory) if not _inside(n, allowed)]
    elif any(n.version == 6 and n.supernet_of(_IPV4_MAPPED) for n in allowed):  # type: ignore[arg-type]
        # A network of IPv6 never means IPv4, though IPv4 is written inside IPv6 here.
        holes.append(_mapped(_IPV4_MAPPED))
    for hole in holes:
        entries.setdefault(hole, False)
    for (address, bits), good in sorted(entries.items()):
        yield PeerPrefix(number, address, bits, good)


def _alive(expires_at: datetime | None, now: datetime) -> bool:
    return expires_at is None or now < expires_at


def _compile(policy: PortPolicy, inventory: Inventory, now: datetime) -> CompiledPolicy:
    ports: list[PortPrefix] = []
    peers: list[PeerPrefix] = []
    ids: list[str] = []
    restricted = 0
    sides: tuple[tuple[Direction, Restrict, tuple[Rule, ...] | None], ...] = (
        (Direction.INGRESS, Restrict.INGRESS, policy.ingress),
        (Direction.EGRESS, Restrict.EGRESS, policy.egress),
    )
    for direction, bit, rules in sides:
        restricted |= 0 if rules is None else bit
        for rule in rules or ():
            if not _alive(rule.expires_at, now):
                continue
            ids.append(rule.id)
            peer_set = 0
            if rule.peers is not None:
                peer_set = len(ids)
                peers += _peer_set(peer_set, rule.peers, inventory)
            ports += [
                PortPrefix(direction, PROTOCOLS[rule.protocol], port, bits, len(ids), peer_set)
                for port, bits in port_prefixes(rule.port, rule.last_port)
            ]
    return CompiledPolicy(
        policy.workload,
        _MODES[policy.mode],
        _ESTABLISHED[policy.established],
        restricted,
        tuple(sorted(ports)),
        tuple(sorted(peers)),
        tuple(ids),
    )


def compile_policies(
    policies: Iterable[PortPolicy], inventory: Inventory, now: datetime
) -> dict[Workload, CompiledPolicy]:
    """The entries of every policy that has not expired at ``now``, by workload."""
    return {
        policy.workload: _compile(policy, inventory, now)
        for policy in policies
        if _alive(policy.expires_at, now)
    }
