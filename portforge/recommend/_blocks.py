"""The smallest address blocks that cover some addresses, at a price. Pure; knows no flows.

A block is bought only when it foretold: the blocks of the addresses met first must hold those met
later. Addresses that keep coming from elsewhere belong to the world.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from portforge.recommend._price import worth

__all__ = ["Blocks", "covering"]

_UNIT = {4: 32, 6: 64}
"""Prefix length of what counts as one address: a host of IPv6 has a /64 to choose from."""
_INFINITE = 1 << 130
_MANY = 2048
"""Who is met under more addresses is the world; also keeps the search short."""

_Chosen = tuple[tuple[int, int], ...]
"""Blocks as first unit and prefix length."""


@dataclass(frozen=True)
class Blocks:
    """``admitted`` and ``seen`` count IPv4 addresses, and IPv6 blocks of /64."""

    cidrs: tuple[str, ...]
    admitted: int
    seen: int


def covering(
    addresses: Sequence[str], most: int, price: int, inside: frozenset[str] = frozenset()
) -> Blocks | None:
    """The fewest blocks for ``addresses``, the smallest of those; None where they cost too much.

    Parameters
    ----------
    addresses: in the order in which they were met.
    most: blocks there may be, IPv4 and IPv6 together.
    price: unobserved addresses that the blocks may admit for each selector saved.
    inside: addresses that no block may hold: the cluster's own.

    >>> covering(["192.0.2.9", "192.0.2.77", "192.0.2.30", "192.0.2.65"], most=1, price=64)
    Blocks(cidrs=('192.0.2.0/25',), admitted=128, seen=4)
    >>> covering(["192.0.2.9", "192.0.2.77", "192.0.2.30", "198.51.100.1"], most=3, price=64)
    """
    found = _fewest(addresses, most, price, inside)
    # Half of the addresses, for the same total.
    half = (len(addresses) + 1) // 2
    early = _fewest(addresses[:half], most, price, inside, len(addresses) - half)
    if found is None or early is None:
        return None
    known = [ip_network(cidr) for cidr in early.cidrs]
    foretold = all(any(ip_address(ip) in block for block in known) for ip in addresses)
    return found if foretold else None


def _fewest(
    addresses: Sequence[str], most: int, price: int, inside: frozenset[str], to_come: int = 0
) -> Blocks | None:
    cidrs: list[str] = []
    admitted = seen = 0
    for version in (4, 6):
        own = _units(addresses, version)
        if not own:
            continue
        bits = _UNIT[version]
        if len(own) > _MANY:
            return None
        cheapest = _chooser(own, bits, _units(inside, version))
        for count in range(1, most - len(cidrs) + 1):
            cost, blocks = cheapest(0, len(own), count)
            known = len(own) + to_come
            if worth(cost - known, known - count, price):
                break
        else:
            return None
        kind = IPv4Address if version == 4 else IPv6Address
        width = kind(0).max_prefixlen
        cidrs += [f"{kind(start << (width - bits))}/{length}" for start, length in sorted(blocks)]
        admitted, seen = admitted + cost, seen + len(own)
    return Blocks(tuple(cidrs), admitted, seen) if cidrs else None


def _units(addresses: Sequence[str] | frozenset[str], version: int) -> list[int]:
    every = [ip_address(text) for text in addresses]
    return sorted(
        {int(a) >> (a.max_prefixlen - _UNIT[version]) for a in every if a.version == version}
    )


def _chooser(
    units: list[int], bits: int, barred: list[int]
) -> Callable[[int, int, int], tuple[int, _Chosen]]:
    """A function: for ``units[low:high]``, sorted, the cheapest blocks, ``left`` at most."""

    @cache
    def best(low: int, high: int, left: int) -> tuple[int, _Chosen]:
        # As one block, or split where its two halves part.
        size = (units[low] ^ units[high - 1]).bit_length()
        start = units[low] >> size << size
        first = bisect_left(barred, start)
        held = first < len(barred) and barred[first] < start + (1 << size)
        whole = (_INFINITE if held else 1 << size, ((start, bits - size),))
        if left == 1 or high - low == 1:
            return whole
        middle = bisect_left(units, start + (1 << (size - 1)))
        splits = [
            (one[0] + other[0], one[1] + other[1])
            for some in range(1, left)
            for one, other in [(best(low, middle, some), best(middle, high, left - some))]
        ]
        return min([whole, *splits])

    return best
