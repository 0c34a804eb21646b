"""Policies to map entries: exact, fewest, and with the meaning that the oracle gives them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portforge.apply.compile import CompiledPolicy, compile_policies, port_prefixes
from portforge.apply.inventory import Inventory, Node, Pod, Service
from portforge.apply.layout import Direction, Mode, Restrict, packed_address
from portforge.policy import PortPolicy, judge
from portforge.schema import Workload

NOW = datetime(2026, 11, 25, tzinfo=UTC)
WEB, CART = Workload("shop", "Deployment", "web"), Workload("shop", "Deployment", "cart")
REDIS = Workload("shop", "StatefulSet", "redis")
BANK = Workload("bank", "StatefulSet", "ledger")
INVENTORY = Inventory(
    "demo",
    "node-a",
    pods=(
        Pod("1", "shop", "old-web", WEB, "node-a", ("10.0.0.13",)),
        Pod("2", "shop", "web-1", WEB, "node-a", ("10.0.0.11", "fd00::11")),
        Pod("3", "shop", "cart-1", CART, "node-b", ("10.0.0.12", "fd00::12")),
        # The address of a pod that ended was given to another.
        Pod("4", "shop", "redis-0", REDIS, "node-b", ("10.0.0.13", "fd00::13")),
        Pod("5", "shop", "agent", CART, "node-a", ("192.168.0.1",), host_network=True),
        Pod("6", "bank", "alone", Workload("bank", "Pod", "alone"), "node-b", ("10.0.0.14",)),
        Pod("7", "bank", "ended", BANK, "node-b", ("10.0.0.15",), until=NOW),
        Pod("8", "bank", "ledger-0", BANK, "node-a", ("fd00::14",)),
        Pod("9", "bank", "whose", None, "node-a", ("10.0.0.16",)),
    ),
    services=(
        Service("shop", "redis", ("10.96.0.5",), workload=REDIS),
        Service("shop", "odd", ("10.96.0.6",)),
        Service("bank", "odd", ("10.96.0.7",)),
    ),
    nodes=(
        Node("node-a", ("192.168.0.1", "fd01::1")),
        Node("node-b", ("192.168.0.2",)),
    ),
    cidrs=("10.0.0.0/24", "fd00::/64", "10.96.0.0/16"),
)


def a_policy(*rules: dict[str, Any], side: str = "egress", **more: Any) -> PortPolicy:
    return PortPolicy.model_validate(
        {"namespace": "shop", "name": "web", "workload": WEB, "mode": "Enforce", side: rules} | more
    )


def a_rule(*peers: dict[str, Any], port: int = 80, **more: Any) -> dict[str, Any]:
    return {"id": f"r-{port}", "protocol": "TCP", "port": port, "peers": peers or None} | more


def compiled(policy: PortPolicy, now: datetime = NOW) -> CompiledPolicy:
    return compile_policies([policy], INVENTORY, now)[policy.workload]


def allows(policy: CompiledPolicy, peer_set: int, address: str) -> bool:
    """What the kernel's trie answers: the longest prefix that fits decides."""
    bits = int.from_bytes(packed_address(address), "big")
    fitting = [
        p
        for p in policy.peers
        if p.peer_set == peer_set
        and bits >> (128 - p.bits) == int.from_bytes(p.address, "big") >> (128 - p.bits)
    ]
    return bool(fitting) and max(fitting, key=lambda p: p.bits).allowed


def who(*peers: dict[str, Any]) -> CompiledPolicy:
    return compiled(a_policy(a_rule(*peers)))


def test_each_port_is_in_exactly_one_prefix_and_none_outside() -> None:
    @given(st.integers(1, 65535), st.integers(1, 65535))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def exact(one: int, other: int) -> None:
        first, last = min(one, other), max(one, other)
        covered = [
            p
            for port, bits in port_prefixes(first, last)
            for p in range(port, port + 2 ** (16 - bits))
        ]
        assert covered == list(range(first, last + 1))
        for port, bits in port_prefixes(first, last):
            assert port % 2 ** (16 - bits) == 0

    exact()


def fewest(first: int, last: int, low: int = 0, bits: int = 16) -> int:
    """How many prefixes are needed, counted down the tree of all of them."""
    high = low + (1 << bits) - 1
    if last < low or high < first:
        return 0
    if first <= low and high <= last:
        return 1
    half = bits - 1
    return fewest(first, last, low, half) + fewest(first, last, low + (1 << half), half)


@given(st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_there_are_no_fewer_prefixes(one: int, other: int) -> None:
    first, last = min(one, other), max(one, other)
    assert len(list(port_prefixes(first, last))) == fewest(first, last)


def test_all_ports_are_one_prefix() -> None:
    assert list(port_prefixes(0, 65535)) == [(0, 0)]
    assert len(list(port_prefixes(1, 65535))) == 16


@pytest.mark.parametrize(
    ("peers", "inside", "outside"),
    [
        ([{"cidr": "203.0.113.0/24"}], ["203.0.113.0", "203.0.113.255"], ["203.0.114.0", "::1:2"]),
        ([{"cidr": "2001:db8::/32"}], ["2001:db8::9"], ["2001:db9::", "203.0.113.1"]),
        ([{"cidr": "0.0.0.0/0"}], ["203.0.113.1", "10.0.0.11"], ["2001:db8::9", "fd00::11"]),
        ([{"cidr": "::/0"}], ["2001:db8::9", "fd00::11"], ["203.0.113.1", "10.0.0.11"]),
        ([{"cidr": "::/64"}], ["::9", "::fffe:1.2.3.4"], ["1.2.3.4", "2001:db8::9"]),
        ([{"cidr": "::/0"}, {"cidr": "10.0.0.0/8"}], ["10.9.9.9", "fd00::11"], ["203.0.113.1"]),
        (
            [{"entity": "World"}],
            ["203.0.113.1", "2001:db8::9", "192.168.0.3"],
            ["10.0.0.99", "fd00::99", "10.96.9.9", "192.168.0.1", "192.168.0.2", "fd01::1"],
        ),
        ([{"entity": "World"}, {"cidr": "10.0.0.8/29"}], ["10.0.0.11", "1.1.1.1"], ["10.0.0.16"]),
        (
            [{"entity": "World"}, {"namespace": "bank"}],
            ["10.0.0.14", "10.96.0.7", "1.1.1.1"],
            ["10.0.0.11", "10.0.0.99", "192.168.0.1"],
        ),
        (
            [{"entity": "World"}, {"entity": "Node"}],
            ["192.168.0.1", "192.168.0.2", "fd01::1", "203.0.113.1"],
            ["10.0.0.11"],
        ),
        ([{"entity": "World"}, {"entity": "Cluster"}], ["10.0.0.11", "1.1.1.1", "fd01::1"], []),
        (
            [{"entity": "Cluster"}],
            ["10.0.0.99", "fd00::11", "10.96.0.5", "192.168.0.2"],
            ["203.0.113.1", "2001:db8::9", "192.168.0.3"],
        ),
        ([{"entity": "Node"}], ["192.168.0.1", "192.168.0.2", "fd01::1"], ["10.0.0.11"]),
        (
            [{"workload": REDIS}],
            ["10.0.0.13", "fd00::13", "10.96.0.5"],
            ["10.0.0.12", "10.96.0.6", "192.168.0.1"],
        ),
        # A pod of the host's network has no address of its own: the node's is not the workload's.
        ([{"workload": CART}], ["10.0.0.12", "fd00::12"], ["192.168.0.1"]),
        ([{"workload": WEB}], ["10.0.0.11"], ["10.0.0.13"]),
        # Its pods, whoever owns them, and all its Services. As above, not the node's address.
        (
            [{"namespace": "shop"}],
            ["10.0.0.11", "fd00::12", "10.0.0.13", "10.96.0.5", "10.96.0.6"],
            ["192.168.0.1", "10.0.0.14", "10.0.0.99", "10.96.0.7", "203.0.113.1"],
        ),
        # A pod that ended has no address any more; one whose owner is not known has no name yet.
        (
            [{"namespace": "bank"}],
            ["10.0.0.14", "fd00::14", "10.96.0.7"],
            ["10.0.0.11", "10.0.0.15", "10.0.0.16", "10.96.0.6"],
        ),
        ([{"namespace": "team-b"}], [], ["10.0.0.11", "10.0.0.14", "10.96.0.6", "192.168.0.1"]),
        ([{"workload": Workload("shop", "Job", "redis")}], [], ["10.0.0.13", "10.96.0.5"]),
    ],
)
def test_who_is_meant(peers: list[dict[str, Any]], inside: list[str], outside: list[str]) -> None:
    policy = who(*peers)
    assert {a: allows(policy, 1, a) for a in inside} == dict.fromkeys(inside, True)
    assert {a: allows(policy, 1, a) for a in outside} == dict.fromkeys(outside, False)


def test_no_peers_means_any_and_needs_no_set() -> None:
    policy = compiled(a_policy(a_rule()))
    assert policy.peers == ()
    assert [(p.port, p.bits, p.peer_set) for p in policy.ports] == [(80, 16, 0)]


def test_directions_that_are_named_are_restricted_even_when_empty() -> None:
    assert compiled(a_policy()).restricted == Restrict.EGRESS
    both = compiled(a_policy(side="ingress", egress=[]))
    assert both.restricted == Restrict.INGRESS | Restrict.EGRESS
    assert both.ports == ()
    assert both.mode is Mode.ENFORCE


def test_a_rule_that_expired_is_not_there_and_a_policy_neither() -> None:
    soon = NOW + timedelta(seconds=1)
    policy = a_policy(a_rule(port=80, expires_at=soon), a_rule(port=81), expires_at=soon)
    assert compiled(policy, NOW).rule_ids == ("r-80", "r-81")
    assert compile_policies([policy], INVENTORY, soon) == {}
    lasting = policy.model_copy(update={"expires_at": None})
    late = compiled(lasting, soon)
    assert late.rule_ids == ("r-81",)
    assert [(p.port, p.rule) for p in late.ports] == [(81, 1)]
    assert late.restricted == Restrict.EGRESS


def test_equal_policies_compile_equal_in_whatever_order() -> None:
    rules = [a_rule({"entity": "World"}, port=n) for n in (80, 443, 22)]
    assert compiled(a_policy(*rules)) == compiled(a_policy(*reversed(rules)))


ADDRESSES = st.one_of(
    st.sampled_from(INVENTORY.known_addresses),
    st.sampled_from(("10.0.0.99", "10.96.7.7", "fd00::99", "203.0.113.1", "::fffe:0:1", "::2")),
    st.integers(0, 2**32 - 1).map(lambda n: str(IPv4Address(n))),
    st.integers(0, 2**128 - 1).map(lambda n: str(IPv6Address(n))),
).filter(lambda a: IPv6Address(packed_address(a)).ipv4_mapped is None or "." in a)
BITS = st.integers(0, 128)


def _around(address: str, bits: int) -> dict[str, Any]:
    network = ip_network(f"{address}/{min(bits, 128 if ':' in address else 32)}", strict=False)
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        network = ip_network("::/0")
    return {"cidr": str(network)}


SELECTORS = st.one_of(
    st.builds(_around, ADDRESSES, BITS),
    st.sampled_from(("World", "Cluster", "Node")).map(lambda e: {"entity": e}),
    st.sampled_from((WEB, CART, REDIS)).map(lambda w: {"workload": w}),
    st.sampled_from(("shop", "bank", "team-b")).map(lambda n: {"namespace": n}),
)


@given(st.lists(SELECTORS, min_size=1, max_size=4, unique_by=repr), st.lists(ADDRESSES, min_size=5))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_peers_mean_what_the_oracle_says(peers: list[dict[str, Any]], addresses: list[str]) -> None:
    policy = a_policy(a_rule(*peers))
    entries = compiled(policy)
    for address in addresses:
        peer = INVENTORY.peer(address)
        if peer.kind == "loopback":
            continue
        said = judge(policy, "egress", "TCP", 80, peer, "node-a", now=NOW).verdict == "allowed"
        assert allows(entries, 1, address) == said, (address, peer.kind)


def test_rules_keep_their_direction_and_protocol() -> None:
    policy = a_policy(
        a_rule(port=53, protocol="UDP"),
        ingress=[a_rule({"entity": "Node"}, port=80, end_port=81, id="in")],
    )
    found = {(p.direction, p.protocol, p.port, p.bits, p.rule) for p in compiled(policy).ports}
    assert found == {(Direction.INGRESS, 6, 80, 15, 1), (Direction.EGRESS, 17, 53, 16, 2)}
