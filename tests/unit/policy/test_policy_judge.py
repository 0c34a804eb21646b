"""The oracle, sentence by sentence of contract 2."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_strategies import policies

from portforge.policy import Entity, Mode, PeerSelector, PortPolicy, Rule, judge
from portforge.schema import Peer, PeerKind, Protocol, Workload

NOW = datetime(2026, 11, 25, tzinfo=UTC)
WEB = Workload("shop", "Deployment", "web")
FRONT = Peer("10.244.0.7", PeerKind.WORKLOAD, "shop", "Deployment", "front")
SERVICE = FRONT._replace(kind=PeerKind.SERVICE, ip="10.96.0.5")
SHARED = Peer("10.96.0.6", PeerKind.SERVICE, "shop")
OWN_NODE = Peer("10.77.0.1", PeerKind.NODE, None, "Node", "node-a")
OTHER_NODE = Peer("10.77.0.2", PeerKind.NODE, None, "Node", "node-b")
STRANGER = Peer("192.0.2.1", PeerKind.EXTERNAL)
INSIDE = Peer("10.244.9.9", PeerKind.UNKNOWN)
LOST = Peer(None, PeerKind.UNKNOWN)
SELF = Peer("127.0.0.1", PeerKind.LOOPBACK)


def rule(port: int = 80, *peers: PeerSelector, **other: object) -> Rule:
    fields = {"id": f"r-{port}", "protocol": Protocol.TCP, "port": port, "peers": peers or None}
    return Rule.model_validate(fields | other)


def policy(*ingress: Rule, mode: Mode = Mode.ENFORCE, **other: object) -> PortPolicy:
    fields = {"namespace": "shop", "name": "web", "workload": WEB, "mode": mode}
    return PortPolicy.model_validate(fields | {"ingress": ingress, "egress": ingress} | other)


def verdict(given: PortPolicy | None, peer: Peer, direction: str = "ingress") -> str:
    return judge(given, direction, "TCP", 80, peer, "node-a", now=NOW).verdict


def test_loopback_is_never_judged() -> None:
    assert verdict(policy(), SELF) == "allowed"


@pytest.mark.parametrize("protocol", ["ICMP", "SCTP"])
def test_icmp_and_sctp_pass(protocol: str) -> None:
    assert judge(policy(), "ingress", protocol, 0, STRANGER, "node-a").verdict == "allowed"


def test_unrestricted_is_not_the_same_as_nothing_allowed() -> None:
    assert verdict(None, STRANGER) == "allowed"
    assert verdict(policy(mode=Mode.RECORD), STRANGER) == "allowed"
    assert verdict(policy(ingress=None), STRANGER) == "allowed"
    assert verdict(policy(ingress=None), STRANGER, "egress") == "denied"
    assert verdict(policy(), STRANGER) == "denied"
    assert verdict(policy(mode=Mode.AUDIT), STRANGER) == "audited"


def test_a_rule_allows_its_ports_of_its_protocol() -> None:
    ranged = policy(rule(80, endPort=82))
    found = [judge(ranged, "egress", "TCP", p, STRANGER, None).verdict for p in (79, 80, 82, 83)]
    assert found == ["denied", "allowed", "allowed", "denied"]
    assert judge(ranged, "egress", "UDP", 80, STRANGER, None).verdict == "denied"
    assert judge(ranged, "egress", "TCP", 80, STRANGER, None).rule == "r-80"


@pytest.mark.parametrize(
    ("selector", "matching"),
    [
        (PeerSelector(workload=Workload("shop", "Deployment", "front")), [FRONT, SERVICE]),
        (PeerSelector(workload=Workload("else", "Deployment", "front")), []),
        # Whoever owns the pods, and with all its Services: also those without one workload.
        (PeerSelector(namespace="shop"), [FRONT, SERVICE, SHARED]),
        (PeerSelector(namespace="team-b"), []),
        (PeerSelector(entity=Entity.NODE), [OWN_NODE, OTHER_NODE]),
        (
            PeerSelector(entity=Entity.CLUSTER),
            [FRONT, SERVICE, SHARED, OWN_NODE, OTHER_NODE, INSIDE],
        ),
        (PeerSelector(entity=Entity.WORLD), [STRANGER]),
        (PeerSelector(cidr="10.244.0.0/16"), [FRONT, INSIDE]),
        (
            PeerSelector(cidr="0.0.0.0/0"),
            [FRONT, SERVICE, SHARED, OWN_NODE, OTHER_NODE, INSIDE, STRANGER],
        ),
        (PeerSelector(cidr="::/0"), []),
    ],
    ids=str,
)
def test_selectors(selector: PeerSelector, matching: list[Peer]) -> None:
    every = [FRONT, SERVICE, SHARED, OWN_NODE, OTHER_NODE, INSIDE, STRANGER]
    given = policy(rule(80, selector))
    assert [p for p in every if verdict(given, p, "egress") == "allowed"] == matching


def test_own_node_may_probe_and_only_that() -> None:
    allowed = judge(
        policy(rule(80, PeerSelector(cidr="10.0.0.0/32"))), "ingress", "TCP", 80, OWN_NODE, "node-a"
    )
    assert allowed == ("allowed", None, "own node", None)
    assert verdict(policy(), OWN_NODE) == "allowed"
    assert verdict(policy(), OTHER_NODE) == "denied"
    assert verdict(policy(), OWN_NODE, "egress") == "denied"
    nameless = OWN_NODE._replace(workload=None)
    assert judge(policy(), "ingress", "TCP", 80, nameless, None).verdict == "denied"


def test_the_nearest_rule_is_the_one_for_the_port() -> None:
    front = PeerSelector(workload=Workload("shop", "Deployment", "front"))
    given = policy(rule(80, front), rule(90, expiresAt="2020-01-01T00:00:00Z"))
    lost = Peer(None, PeerKind.UNKNOWN)
    for port, peer, expected in (
        (80, FRONT, ("allowed", "r-80", "peer is shop/Deployment/front", None)),
        (80, STRANGER, ("denied", None, "peer not in rule r-80", "r-80")),
        (80, lost, ("uncertain", None, "rule r-80 names peers, the peer was not kept", "r-80")),
        (90, FRONT, ("denied", None, "rule r-90 for TCP 90 has expired", "r-90")),
        (99, FRONT, ("denied", None, "no rule for TCP 99", None)),
    ):
        assert judge(given, "egress", "TCP", port, peer, None, now=NOW) == expected


def test_a_rule_that_matches_the_own_node_is_named() -> None:
    found = judge(policy(rule()), "ingress", "TCP", 80, OWN_NODE, "node-a")
    assert (found.verdict, found.rule) == ("allowed", "r-80")


def test_a_lost_peer_is_uncertain_only_where_the_rule_names_peers() -> None:
    assert verdict(policy(rule(80, PeerSelector(entity=Entity.CLUSTER))), LOST) == "uncertain"
    assert verdict(policy(rule(80)), LOST) == "allowed"
    assert verdict(policy(rule(81)), LOST) == "denied"


def test_what_has_expired_is_not_there() -> None:
    assert verdict(policy(rule(expiresAt=NOW)), STRANGER) == "denied"
    assert verdict(policy(rule(expiresAt=NOW + timedelta(seconds=1))), STRANGER) == "allowed"
    assert verdict(policy(expires_at=NOW), STRANGER) == "allowed"
    assert judge(policy(expires_at=NOW), "ingress", "TCP", 80, STRANGER, None).verdict == "denied"


addresses = st.ip_addresses()
peers = st.builds(
    lambda ip, kind: Peer(str(ip), kind, "web", "Deployment", "web"),
    addresses,
    st.sampled_from(PeerKind),
)
flows = st.tuples(
    st.sampled_from(["ingress", "egress"]),
    st.sampled_from(["TCP", "UDP"]),
    st.integers(1, 65535),
    peers,
)


def plainly(given: PortPolicy, flow: tuple[str, str, int, Peer], mode: Mode) -> str:
    """The contract again, written another way: sets of what is allowed, no early returns."""
    direction, protocol, port, peer = flow
    rules = given.rules(direction)
    clauses = [peer.kind == "loopback", mode is Mode.RECORD, rules is None]
    clauses.append(direction == "ingress" and peer.kind == "node" and peer.workload == "node-a")
    for r in rules or ():
        here = r.protocol == protocol and port in range(r.port, (r.end_port or r.port) + 1)
        clauses.append(here and r.peers is None)
        for s in r.peers or ():
            entity = {
                "Node": {"node"},
                "Cluster": {"workload", "service", "node", "unknown"},
                "World": {"external"},
            }.get(str(s.entity), set())
            owner = f"{peer.namespace}/{peer.workload_kind}/{peer.workload}"
            ip, net = ip_address(peer.ip or ""), ip_network(s.cidr or "240.0.0.0/32")
            inside = s.cidr is not None and ip.version == net.version and ip in net
            named = str(s) == owner and peer.kind in ("workload", "service")
            near = peer.kind in ("workload", "service") and f"{peer.namespace}/*" == str(s)
            clauses.append(here and (peer.kind in entity or inside or named or near))
    return "allowed" if any(clauses) else "denied" if mode is Mode.ENFORCE else "audited"


@given(policies(), st.data())
def test_agrees_with_the_contract_written_another_way(
    given: PortPolicy, data: st.DataObject
) -> None:
    flow = data.draw(flows)
    ports = [p for r in (given.rules(flow[0]) or ()) for p in (r.port, r.last_port)]
    if ports:
        flow = (flow[0], flow[1], data.draw(st.sampled_from(ports)), flow[3])
    assert judge(given, *flow, "node-a").verdict == plainly(given, flow, given.mode)
