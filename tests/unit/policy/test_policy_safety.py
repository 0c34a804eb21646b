"""Enforcing must not cut DNS, the API server of those that use it, or the recorder."""

from __future__ import annotations

import pytest

from portforge.policy import PortPolicy
from portforge.policy._safety import Seen, Surroundings, risks
from portforge.schema import Peer, PeerKind, Workload

CART = Workload("shop", "Deployment", "cart")
DATABASE = {
    "id": "out-tcp-5432",
    "protocol": "TCP",
    "port": 5432,
    "peers": [{"workload": {"namespace": "shop", "kind": "StatefulSet", "name": "postgres"}}],
}
COREDNS = {"workload": {"namespace": "kube-system", "kind": "Deployment", "name": "coredns"}}
DNS = Peer("10.96.0.10", PeerKind.SERVICE, "kube-system", "Deployment", "coredns")
SERVER = Peer("10.96.0.1", PeerKind.SERVICE, "default")


def policy(*egress: dict[str, object]) -> PortPolicy:
    return PortPolicy(namespace="shop", name="cart", workload=CART, egress=list(egress))


def dns_rules(*peers: dict[str, object]) -> list[dict[str, object]]:
    named = {"peers": list(peers)} if peers else {}
    return [
        {"id": f"dns-{protocol}", "protocol": protocol, "port": 53, **named}
        for protocol in ("UDP", "TCP")
    ]


def test_a_policy_that_does_not_restrict_egress_cuts_nothing():
    everything = policy().model_copy(update={"egress": None})
    assert risks([everything], Surroundings(seen={CART: Seen(frozenset({DNS}))})) == []


@pytest.mark.parametrize(
    "peer",
    [
        None,
        COREDNS,
        {"namespace": "kube-system"},
        {"cidr": "10.96.0.0/16"},
        {"entity": "Cluster"},
    ],
    ids=str,
)
def test_any_rule_that_reaches_dns_is_enough(peer):
    rules = dns_rules(*([peer] if peer else []))
    assert risks([policy(DATABASE, *rules)], Surroundings(("10.96.0.10",))) == []


@pytest.mark.parametrize("peer", [{"cidr": "192.0.2.0/24"}, {"namespace": "shop"}], ids=str)
def test_a_rule_for_another_resolver_is_not(peer):
    rules = dns_rules(peer)
    (risk,) = risks([policy(DATABASE, *rules)], Surroundings(("10.96.0.10",)))
    assert "UDP 53 and TCP 53 to the cluster's DNS (10.96.0.10)" in str(risk)


def test_tcp_is_needed_too():
    (risk,) = risks([policy(DATABASE, dns_rules()[0])], Surroundings())
    assert "no egress rule allows TCP 53" in str(risk)


def test_without_a_capture_only_who_calls_by_name_needs_dns():
    assert risks([policy()], Surroundings()) == []
    bare = {"id": "out", "protocol": "TCP", "port": 443, "peers": [{"cidr": "192.0.2.0/24"}]}
    assert risks([policy(bare)], Surroundings()) == []
    assert risks([policy(bare | {"peers": [{"namespace": "team-b"}]})], Surroundings())


def test_with_a_capture_what_was_seen_decides():
    silent = Surroundings(("10.96.0.10",), seen={CART: Seen()})
    assert risks([policy(DATABASE)], silent) == []
    asks = Surroundings(("10.96.0.10",), seen={CART: Seen(frozenset({DNS}))})
    assert "it was seen to ask 10.96.0.10" in str(risks([policy()], asks)[0])


def test_the_api_server_stays_reachable_for_who_works_with_it():
    around = Surroundings(seen={CART: Seen(api_server=frozenset({(SERVER, 443)}))})
    (risk,) = risks([policy(DATABASE)], around)
    assert "allow TCP 443 to 10.96.0.1/32" in str(risk)
    opened = {"id": "api", "protocol": "TCP", "port": 443, "peers": [{"cidr": "10.96.0.1/32"}]}
    assert risks([policy(DATABASE, opened)], around) == []


def test_the_recorder_has_no_policy():
    (risk,) = risks(
        [policy().model_copy(update={"egress": None})], Surroundings(recorders=frozenset({CART}))
    )
    assert "this is the recorder itself" in str(risk)
