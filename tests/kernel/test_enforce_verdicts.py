"""Allowed passes and denied does not: TCP and UDP, both families, both directions, all modes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portforge.apply.layout import PROTOCOLS, Direction, Scope, Verdict
from portforge.policy import Established, Mode

from .enforcing import OPEN_PORT, SHUT_PORT, Pair, policy, rule, standing_pair
from .puppet import Puppet


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with standing_pair(tmp_path_factory.mktemp("verdicts")) as ready:
        yield ready


def egress(pair: Pair, mode: Mode) -> None:
    pair.bed.enforce(policy("web", mode, egress=[rule("TCP"), rule("UDP")]))
    pair.bed.flows()


def ingress(pair: Pair, mode: Mode) -> None:
    pair.bed.enforce(policy("web", mode, ingress=[rule("TCP"), rule("UDP")]))
    pair.bed.flows()


def verdicts(pair: Pair, direction: Direction, peer: str, port: int) -> dict[int, set[object]]:
    """Verdicts and rule numbers recorded for the pod, by protocol."""
    found: dict[int, set[object]] = {}
    for flow in pair.bed.flows():
        at = (flow.cgroup, flow.direction, flow.peer, flow.port, flow.scope)
        if at == (pair.web.cgroup_path.stat().st_ino, direction, peer, port, Scope.REMOTE):
            found.setdefault(flow.protocol, set()).add((flow.verdict, flow.rule))
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_egress_under_enforce(pair: Pair, family: int) -> None:
    egress(pair, Mode.ENFORCE)
    to = pair.other.address if family == 4 else pair.other.address6
    assert pair.inside.connect(to, OPEN_PORT) == "ok"
    assert pair.inside.ask(to, OPEN_PORT) == "ok"
    refused = pair.inside("connect", protocol="TCP", to=to, port=SHUT_PORT)
    assert refused["error"] == "EPERM"
    assert refused["seconds"] < 0.1
    assert pair.inside.ask(to, SHUT_PORT) == "EPERM"
    assert verdicts(pair, Direction.EGRESS, to, SHUT_PORT) == {
        PROTOCOLS["TCP"]: {(Verdict.DENIED, 0)},
        PROTOCOLS["UDP"]: {(Verdict.DENIED, 0)},
    }


@pytest.mark.parametrize("family", [4, 6])
def test_ingress_under_enforce(pair: Pair, family: int) -> None:
    ingress(pair, Mode.ENFORCE)
    to, me = (
        (pair.web.address, pair.other.address)
        if family == 4
        else (pair.web.address6, pair.other.address6)
    )
    assert pair.outside.connect(to, OPEN_PORT) == "ok"
    assert pair.outside.ask(to, OPEN_PORT) == "ok"
    assert pair.outside.connect(to, SHUT_PORT, timeout=0.4) == "timeout"
    assert pair.outside.ask(to, SHUT_PORT, f"echo shut {family}", timeout=0.2) == "timeout"
    came = pair.inside("wait", texts=[f"echo shut {family}"], timeout=0.1)
    assert came["arrived"] == []
    assert verdicts(pair, Direction.INGRESS, me, SHUT_PORT) == {
        PROTOCOLS["TCP"]: {(Verdict.DENIED, 0)},
        PROTOCOLS["UDP"]: {(Verdict.DENIED, 0)},
    }


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.RECORD])
def test_what_is_not_enforced_passes_and_audit_says_so(
    pair: Pair, mode: Mode, direction: Direction, family: int
) -> None:
    (egress if direction == Direction.EGRESS else ingress)(pair, mode)
    web, other = (
        (pair.web.address, pair.other.address)
        if family == 4
        else (pair.web.address6, pair.other.address6)
    )
    who, to, peer = (
        (pair.inside, other, other) if direction == Direction.EGRESS else (pair.outside, web, other)
    )
    for port in (OPEN_PORT, SHUT_PORT):
        assert who.connect(to, port) == "ok"
        assert who.ask(to, port) == "ok"
    expected = Verdict.AUDITED if mode is Mode.AUDIT else Verdict.ALLOWED
    assert verdicts(pair, direction, peer, SHUT_PORT) == {
        PROTOCOLS["TCP"]: {(expected, 0)},
        PROTOCOLS["UDP"]: {(expected, 0)},
    }


def test_the_rule_that_allowed_is_recorded(pair: Pair) -> None:
    egress(pair, Mode.ENFORCE)
    assert pair.inside.connect(pair.other.address, OPEN_PORT) == "ok"
    mine = pair.web.cgroup_path.stat().st_ino
    (flow,) = [f for f in pair.bed.flows() if f.cgroup == mine and f.port == OPEN_PORT]
    known = pair.bed.enforcer.state.known()[flow.policy]
    assert known.rules[flow.rule - 1] == f"tcp-{OPEN_PORT}"


def test_ipv4_over_an_ipv6_socket_is_judged_as_ipv4(pair: Pair) -> None:
    rules = [rule(p, peers=[{"cidr": "10.77.0.0/24"}]) for p in ("TCP", "UDP")]
    pair.bed.enforce(policy("web", Mode.ENFORCE, egress=rules, ingress=rules))
    four, six = pair.other.address, pair.other.address6
    assert pair.inside.connect(four, OPEN_PORT, mapped=True) == "ok"
    assert pair.inside.ask(four, OPEN_PORT, mapped=True) == "ok"
    assert pair.inside.connect(four, SHUT_PORT, mapped=True) == "EPERM"
    assert pair.inside.ask(four, SHUT_PORT, mapped=True) == "EPERM"
    assert pair.inside.connect(six, OPEN_PORT) == "EPERM"
    assert pair.inside.ask(six, OPEN_PORT) == "EPERM"
    # The servers listen on IPv6 sockets that take IPv4 too.
    assert pair.outside.connect(pair.web.address, OPEN_PORT) == "ok"
    assert pair.outside.ask(pair.web.address, OPEN_PORT) == "ok"
    assert pair.outside.connect(pair.web.address6, OPEN_PORT, timeout=0.3) == "timeout"


def test_all_of_ipv6_is_not_ipv4(pair: Pair) -> None:
    rules = [rule(p, peers=[{"cidr": "::/0"}]) for p in ("TCP", "UDP")]
    pair.bed.enforce(policy("web", Mode.ENFORCE, egress=rules))
    assert pair.inside.connect(pair.other.address6, OPEN_PORT) == "ok"
    for mapped in (False, True):
        assert pair.inside.connect(pair.other.address, OPEN_PORT, mapped=mapped) == "EPERM"
        assert pair.inside.ask(pair.other.address, OPEN_PORT, mapped=mapped) == "EPERM"


def test_a_rule_is_for_its_protocol_only(pair: Pair) -> None:
    pair.bed.enforce(policy("web", Mode.ENFORCE, egress=[rule("TCP"), rule("UDP", SHUT_PORT)]))
    to = pair.other.address
    assert pair.inside.connect(to, OPEN_PORT) == "ok"
    assert pair.inside.ask(to, OPEN_PORT) == "EPERM"
    assert pair.inside.connect(to, SHUT_PORT) == "EPERM"
    assert pair.inside.ask(to, SHUT_PORT) == "ok"


def test_a_connected_udp_socket_that_sends_elsewhere_is_judged(pair: Pair) -> None:
    egress(pair, Mode.ENFORCE)
    to = pair.other.address
    assert "error" not in pair.inside("connect", protocol="UDP", to=to, port=OPEN_PORT, keep="udp")
    assert pair.inside.ask(to, OPEN_PORT, kept="udp") == "ok"
    assert pair.inside.ask(to, SHUT_PORT, kept="udp") == "EPERM"
    assert pair.inside.ask(to, OPEN_PORT, kept="udp") == "ok"


@pytest.mark.parametrize("family", [4, 6])
def test_loopback_and_the_pods_own_address_are_never_judged(pair: Pair, family: int) -> None:
    pair.bed.enforce(policy("web", Mode.ENFORCE, ingress=[], egress=[]))
    own = ("127.0.0.1", "0.0.0.0", pair.web.address) if family == 4 else ("::1", pair.web.address6)
    for to in own:
        assert pair.inside.connect(to, SHUT_PORT) == "ok", to
        assert pair.inside.ask(to, SHUT_PORT) == "ok", to
    if family == 4:
        for to in own:
            assert pair.inside.connect(to, SHUT_PORT, mapped=True) == "ok", to
    # And the rest is shut.
    assert pair.inside.connect(pair.other.address, OPEN_PORT) == "EPERM"
    assert pair.outside.connect(pair.web.address, OPEN_PORT, timeout=0.3) == "timeout"


def test_the_pods_own_node_always_comes_in_but_is_no_way_out(pair: Pair) -> None:
    pair.bed.enforce(policy("web", Mode.ENFORCE, ingress=[], egress=[]))
    node = Puppet(pair.bed.node, 7300)
    for to in (pair.web.address, pair.web.address6):
        assert node.connect(to, SHUT_PORT) == "ok"
        assert node.ask(to, SHUT_PORT) == "ok"
    assert pair.inside.connect(pair.bed.node.address, 7300) == "EPERM"
    assert pair.inside.ask(pair.bed.node.address6, 7300) == "EPERM"


def test_ranges_are_exact_at_both_ends(pair: Pair) -> None:
    wide = [rule("UDP", 7101, 7199), rule("UDP", 65535)]
    pair.bed.enforce(policy("web", Mode.ENFORCE, egress=wide))
    to = pair.other.address
    for port, good in ((7100, False), (7101, True), (7199, True), (7200, False), (65534, False)):
        sent = pair.inside("send", protocol="UDP", to=to, port=port, text="x").get("error", "ok")
        assert sent == ("ok" if good else "EPERM"), port
    assert pair.inside("send", protocol="UDP", to=to, port=65535, text="x") == {}


@pytest.mark.parametrize("established", list(Established))
@pytest.mark.parametrize("family", [4, 6])
def test_mptcp_is_no_way_around(pair: Pair, family: int, established: Established) -> None:
    """Its subflows are sockets of the kernel; any process may have them, without a privilege."""
    to = pair.other.address if family == 4 else pair.other.address6
    pair.bed.enforce(policy("web", egress=[rule("TCP")], established=established))
    pair.bed.flows()
    assert pair.inside.connect(to, OPEN_PORT, mptcp=True, keep="mptcp") == "ok"
    assert pair.inside("talk", kept="mptcp", text="multipath")["answer"] == "multipath"
    assert pair.inside.connect(to, SHUT_PORT, mptcp=True, timeout=0.3) != "ok"
    assert verdicts(pair, Direction.EGRESS, to, SHUT_PORT) == {
        PROTOCOLS["TCP"]: {(Verdict.DENIED, 0)}
    }


def test_a_socket_made_before_its_pod_was_registered_is_judged(pair: Pair) -> None:
    mine = pair.web.cgroup_path.stat().st_ino
    pair.bed.enforce()
    pair.bed.maps.remove("pods", mine)
    early = Puppet(pair.web, 7301)
    pair.bed.maps.put("pods", mine, (0, 0, 0, 0, 0))
    pair.bed.enforce(policy("web", ingress=[], egress=[]))
    for to in (pair.web.address, pair.web.address6):
        assert pair.outside.connect(to, 7301, timeout=0.3) == "timeout"
        assert pair.outside.ask(to, 7301, timeout=0.2) == "timeout"
    assert early.connect(pair.other.address, OPEN_PORT) == "EPERM"
