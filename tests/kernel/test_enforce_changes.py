"""Policies that change: open connections, rollback, pods that come later, swaps under load."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portforge.apply.enforce import Enforcer, approved
from portforge.apply.layout import Verdict
from portforge.apply.node import NodeMaps
from portforge.demo.pods import Node
from portforge.errors import ApprovalError, HostError
from portforge.policy import Established, Mode, approve
from portforge_recorder.load import Sizes

from .bed import make_bed
from .enforcing import OPEN_PORT, SHUT_PORT, Pair, policy, rule, standing_pair
from .puppet import Puppet

SWAPS = 200
BOTH = [rule("TCP"), rule("TCP", SHUT_PORT), rule("UDP"), rule("UDP", SHUT_PORT)]
ONE = [rule("TCP"), rule("UDP")]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with standing_pair(tmp_path_factory.mktemp("changes")) as ready:
        yield ready


@pytest.fixture
def pair(standing: Pair) -> Iterator[Pair]:
    """Without any policy and without an open connection at the beginning and at the end."""
    yield standing
    standing.bed.enforce()
    standing.inside("drop")
    standing.outside("drop")


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_rejudge_cuts_an_open_connection_and_rollback_lets_it_go_on(
    pair: Pair, direction: str
) -> None:
    ends = (pair.outside, pair.inside) if direction == "ingress" else (pair.inside, pair.outside)
    opener, acceptor = ends
    to = acceptor.machine.address
    pair.bed.enforce(policy("web", **{direction: BOTH}))  # type: ignore[arg-type]
    kept = f"cut {direction}"
    assert opener.connect(to, SHUT_PORT, keep=kept) == "ok"
    assert opener("talk", kept=kept, text="before")["answer"] == "before"

    pair.bed.enforce(policy("web", **{direction: ONE}))  # type: ignore[arg-type]
    after = f"after {direction}"
    assert opener("talk", kept=kept, text=after, timeout=0.5) == {"error": "timeout"}
    assert acceptor("wait", texts=[after], timeout=0.1)["arrived"] == []
    refused = "timeout" if direction == "ingress" else "EPERM"
    assert opener.connect(to, SHUT_PORT, timeout=0.3) == refused
    assert opener.connect(to, OPEN_PORT) == "ok"
    assert Verdict.DENIED in {f.verdict for f in pair.bed.flows() if f.port == SHUT_PORT}

    pair.bed.enforcer.state.back()
    pair.bed.enforcer.reconcile(pair.bed.source().inventory())
    # TCP sends again what was cut off, at the latest after its backed-off timer.
    assert acceptor("wait", texts=[after], timeout=10)["arrived"] == [after]
    assert opener.connect(to, SHUT_PORT) == "ok"


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_keep_leaves_an_open_connection_and_refuses_new_ones(pair: Pair, direction: str) -> None:
    ends = (pair.outside, pair.inside) if direction == "ingress" else (pair.inside, pair.outside)
    opener, acceptor = ends
    to = acceptor.machine.address
    keep = {"established": Established.KEEP}
    pair.bed.enforce(policy("web", **{direction: BOTH}, **keep))  # type: ignore[arg-type]
    kept = f"kept {direction}"
    assert opener.connect(to, SHUT_PORT, keep=kept) == "ok"
    for rules in (ONE, []):
        pair.bed.enforce(policy("web", **{direction: rules}, **keep))  # type: ignore[arg-type]
        assert opener("talk", kept=kept, text="still")["answer"] == "still"
        refused = "timeout" if direction == "ingress" else "EPERM"
        assert opener.connect(to, SHUT_PORT, timeout=0.3) == refused


def test_a_connection_older_than_the_first_policy_is_cut_or_kept(pair: Pair) -> None:
    to = pair.other.address
    assert pair.inside.connect(to, SHUT_PORT, keep="first") == "ok"
    pair.bed.enforce(policy("web", egress=ONE, established=Established.KEEP))
    assert pair.inside("talk", kept="first", text="kept")["answer"] == "kept"
    pair.bed.enforce(policy("web", egress=ONE))
    assert pair.inside("talk", kept="first", text="cut", timeout=0.3) == {"error": "timeout"}


def test_audit_cuts_nothing(pair: Pair) -> None:
    to = pair.other.address6
    assert pair.inside.connect(to, SHUT_PORT, keep="audit") == "ok"
    pair.bed.enforce(policy("web", Mode.AUDIT, ingress=[], egress=[]))
    assert pair.inside("talk", kept="audit", text="on")["answer"] == "on"


def test_a_udp_conversation_is_rejudged(pair: Pair) -> None:
    to = pair.other.address
    pair.bed.enforce(policy("web", egress=BOTH))
    assert "error" not in pair.inside("connect", protocol="UDP", to=to, port=SHUT_PORT, keep="u")
    assert pair.inside.ask(to, SHUT_PORT, kept="u") == "ok"
    pair.bed.enforce(policy("web", egress=ONE))
    assert pair.inside.ask(to, SHUT_PORT, kept="u") == "EPERM"


def test_rollback_goes_all_the_way_back(pair: Pair) -> None:
    state, to = pair.bed.enforcer.state, pair.other.address
    before = len(state.history())
    pair.bed.enforce(policy("web", egress=ONE))
    pair.bed.enforce(policy("web", egress=[]))
    assert pair.inside.connect(to, OPEN_PORT) == "EPERM"
    state.back()
    pair.bed.enforcer.reconcile(pair.bed.source().inventory())
    assert pair.inside.connect(to, OPEN_PORT) == "ok"
    assert pair.inside.connect(to, SHUT_PORT) == "EPERM"
    state.back()
    pair.bed.enforcer.reconcile(pair.bed.source().inventory())
    assert pair.inside.connect(to, SHUT_PORT) == "ok"
    assert len(state.history()) == before
    for name in ("rules", "peers"):
        assert not pair.bed.maps.read(name)[0].size, f"{name} are left"


def test_pods_that_come_after_apply_get_their_policy(pair: Pair) -> None:
    pair.bed.enforce(policy("late", egress=ONE), policy("web", egress=ONE))
    late = pair.bed.node.pod("t", "Deployment", "late")
    try:
        applied = pair.bed.enforcer.reconcile(pair.bed.source().inventory())
        assert (applied.pods, applied.written, applied.absent) == (2, 0, ())
        puppet = Puppet(late)
        assert puppet.connect(pair.other.address, OPEN_PORT) == "ok"
        assert puppet.connect(pair.other.address, SHUT_PORT) == "EPERM"
    finally:
        late.stop()
    applied = pair.bed.enforcer.reconcile(pair.bed.source().inventory())
    assert [w.name for w in applied.absent] == ["late"]


def test_the_pods_of_a_workload_and_their_containers_share_its_policy(pair: Pair) -> None:
    pair.bed.enforce(policy("web", ingress=ONE, egress=ONE))
    twin = pair.bed.node.pod("t", "Deployment", "web")
    try:
        pair.bed.enforcer.reconcile(pair.bed.source().inventory())
        sidecar = Puppet(twin, cgroup=twin.container("sidecar"))
        for puppet in (sidecar, Puppet(twin), Puppet(pair.web, cgroup=pair.web.container("two"))):
            for to in (pair.other.address, pair.other.address6):
                assert puppet.connect(to, OPEN_PORT) == "ok"
                assert puppet.connect(to, SHUT_PORT) == "EPERM"
                assert puppet.ask(to, SHUT_PORT) == "EPERM"
        sidecar("serve", ports=[OPEN_PORT, SHUT_PORT])
        assert pair.outside.connect(twin.address, OPEN_PORT) == "ok"
        assert pair.outside.connect(twin.address, SHUT_PORT, timeout=0.3) == "timeout"
    finally:
        twin.stop()


def test_peers_by_workload_follow_its_pods_and_its_services(pair: Pair) -> None:
    node = pair.bed.node
    third = node.pod("t", "Job", "third")
    try:
        puppet = Puppet(third, OPEN_PORT)
        service = node.service("t", "third", OPEN_PORT, OPEN_PORT, third, protocols=("TCP", "UDP"))
        peers = [{"workload": {"namespace": "t", "kind": "Job", "name": "third"}}]
        rules = [rule("TCP", peers=peers), rule("UDP", peers=peers)]
        pair.bed.enforce(policy("web", ingress=rules, egress=rules))
        for to in (third.address, third.address6, service.addresses[0]):
            assert pair.inside.connect(to, OPEN_PORT) == "ok", to
            assert pair.inside.ask(to, OPEN_PORT) == "ok", to
        assert pair.inside.connect(pair.other.address, OPEN_PORT) == "EPERM"
        assert puppet.connect(pair.web.address6, OPEN_PORT) == "ok"
        assert pair.outside.connect(pair.web.address6, OPEN_PORT, timeout=0.3) == "timeout"

        more = node.pod("t", "Job", "third")
        Puppet(more, OPEN_PORT)
        assert pair.inside.connect(more.address, OPEN_PORT) == "EPERM"
        pair.bed.enforcer.reconcile(pair.bed.source().inventory())
        assert pair.inside.connect(more.address, OPEN_PORT) == "ok"
        more.stop()
    finally:
        node.services.clear()
        third.stop()


def test_a_namespace_as_peer_follows_its_pods_whoever_owns_them_and_its_services(
    pair: Pair,
) -> None:
    node = pair.bed.node
    first = node.pod("team-b", "StatefulSet", "first")
    pods = [first]
    try:
        puppet = Puppet(first, OPEN_PORT)
        service = node.service("team-b", "first", OPEN_PORT, OPEN_PORT, first)
        peers = [{"namespace": "team-b"}]
        rules = [rule("TCP", peers=peers), rule("UDP", peers=peers)]
        pair.bed.enforce(policy("web", ingress=rules, egress=rules))
        for to in (first.address, first.address6, service.addresses[0]):
            assert pair.inside.connect(to, OPEN_PORT) == "ok", to
        assert pair.inside.ask(first.address6, OPEN_PORT) == "ok"
        assert puppet.connect(pair.web.address, OPEN_PORT) == "ok"
        # Its own namespace is another.
        assert pair.inside.connect(pair.other.address, OPEN_PORT) == "EPERM"
        assert pair.outside.connect(pair.web.address, OPEN_PORT, timeout=0.3) == "timeout"

        # One that comes is let in once it is known; another namespace's is not.
        pods += [node.pod("team-b", "Pod", "alone"), node.pod("team-c", "Pod", "alone")]
        _, alone, stranger = pods
        for pod in (alone, stranger):
            Puppet(pod, OPEN_PORT)
        assert pair.inside.connect(alone.address, OPEN_PORT) == "EPERM"
        pair.bed.enforcer.reconcile(pair.bed.source().inventory())
        assert pair.inside.connect(alone.address, OPEN_PORT) == "ok"
        assert pair.inside.connect(stranger.address, OPEN_PORT) == "EPERM"

        # The address of one that ended is nobody's, as the API server tells it.
        pods.remove(alone)
        alone.stop()
        known = pair.bed.source().inventory()
        now = datetime.now(UTC)
        ended = [replace(p, until=now) if p.uid == alone.uid else p for p in known.pods]
        pair.bed.enforcer.reconcile(replace(known, pods=tuple(ended)))
        assert pair.inside.connect(alone.address, OPEN_PORT) == "EPERM"
        assert pair.inside.connect(first.address, OPEN_PORT) == "ok"
    finally:
        node.services.clear()
        for pod in pods:
            pod.stop()


def test_expiry_takes_a_rule_away_and_then_the_policy(pair: Pair) -> None:
    now = datetime.now(UTC)
    inventory = pair.bed.source().inventory()
    rules = [rule("TCP"), rule("TCP", SHUT_PORT, expires_at=now + timedelta(hours=1))]
    pair.bed.enforce(policy("web", egress=rules, expires_at=now + timedelta(hours=2)))
    outcomes = []
    for hours in (0, 1.5, 2.5):
        pair.bed.enforcer.reconcile(inventory, now + timedelta(hours=hours))
        outcomes.append(pair.inside.connect(pair.other.address, SHUT_PORT))
    assert outcomes == ["ok", "EPERM", "ok"]


def test_what_is_not_approved_is_refused_and_what_was_enforced_stays(pair: Pair) -> None:
    now = datetime.now(UTC)
    pair.bed.enforce(policy("web", egress=ONE))
    before = pair.bed.enforcer.state.current.read_text()
    good = approve(policy("web", egress=ONE), "tester", now)
    tampered = good.model_copy(update={"egress": policy("web", egress=BOTH).egress})
    for bad in (tampered, policy("web", egress=BOTH)):
        with pytest.raises(ApprovalError):
            approved([bad], Mode.ENFORCE, now)
    assert pair.bed.enforcer.state.current.read_text() == before
    assert pair.inside.connect(pair.other.address, SHUT_PORT) == "EPERM"
    assert pair.inside.connect(pair.other.address, OPEN_PORT) == "ok"


def test_enforcement_goes_on_without_us_and_another_process_takes_over(pair: Pair) -> None:
    pair.bed.enforce(policy("web", egress=ONE))
    with NodeMaps(pair.bed.maps.folder) as maps:
        enforcer = Enforcer(maps, pair.bed.enforcer.state)
        enforcer.reconcile(pair.bed.source().inventory())
        assert pair.inside.connect(pair.other.address, SHUT_PORT) == "EPERM"
        # Each writes under ids of its own: what the one removed, the other must not rely on.
        pair.bed.enforcer.reconcile(pair.bed.source().inventory())
        assert pair.inside.connect(pair.other.address, OPEN_PORT) == "ok"
        assert pair.inside.connect(pair.other.address, SHUT_PORT) == "EPERM"


def test_swapping_policies_under_load_drops_nothing_allowed_and_passes_nothing_denied(
    pair: Pair,
) -> None:
    """Both versions allow one port and deny the other; their rules differ in everything else."""
    inventory, now = pair.bed.source().inventory(), datetime.now(UTC)
    versions = [
        policy("web", ingress=[rule("TCP"), rule("UDP")], egress=[rule("TCP"), rule("UDP")]),
        policy(
            "web",
            ingress=[rule(p, 7000, 7200) for p in ("TCP", "UDP")],
            egress=[rule(p, 7100, 7107, [{"entity": "Cluster"}]) for p in ("TCP", "UDP")],
        ),
    ]
    ready = [approve(v, "tester", now) for v in versions]
    pair.bed.enforcer.state.change([ready[0]])
    pair.bed.enforcer.reconcile(inventory)
    pair.bed.flows()
    flows = {
        name: [
            {"protocol": protocol, "to": to, "port": port}
            for protocol in ("TCP", "UDP")
            for to in (pair.other.address, pair.other.address6)
        ]
        for name, port in (("good", OPEN_PORT), ("bad", SHUT_PORT))
    }
    into = [
        {"protocol": p, "to": to, "port": OPEN_PORT}
        for p in ("TCP", "UDP")
        for to in (pair.web.address, pair.web.address6)
    ]
    shut = [{**f, "port": SHUT_PORT, "timeout": 0.02} for f in into]
    pair.inside("load", name="out", **flows)
    pair.outside("load", name="in", good=into, bad=[])
    pair.outside("load", name="shut", good=[], bad=shut)
    until = time.monotonic() + 4
    swaps = 0
    while swaps < SWAPS or time.monotonic() < until - 3:
        swaps += 1
        pair.bed.enforcer.state.change([ready[swaps % 2]])
        pair.bed.enforcer.reconcile(inventory)
    outcomes = {
        name: puppet("unload", name=name)
        for name, puppet in (("out", pair.inside), ("in", pair.outside), ("shut", pair.outside))
    }
    for name, outcome in outcomes.items():
        assert outcome["failed"] == [], name
        assert outcome["passed"] == 0, name
        assert outcome["rounds"] > 5, name
    assert not [
        f
        for f in pair.bed.flows()
        if f.cgroup == pair.web.cgroup_path.stat().st_ino
        and f.port in (OPEN_PORT, SHUT_PORT)
        and (f.verdict == Verdict.DENIED) != (f.port == SHUT_PORT)
    ]


def test_policies_that_do_not_fit_leave_in_force_what_was(tmp_path: Path) -> None:
    """And what could be written of them is not in the way of the next."""
    with Node(f"enforce-{os.getpid()}-small") as node:
        web, other = node.pod("t", "Deployment", "web"), node.pod("t", "Job", "other")
        with make_bed(tmp_path, node, Sizes(rules=40)) as bed:
            puppet = Puppet(web)
            Puppet(other, OPEN_PORT, SHUT_PORT)
            bed.enforce(policy("web", egress=ONE))
            for _ in range(2):
                with pytest.raises(HostError, match="map is full"):
                    bed.enforce(policy("web", egress=[rule(p, 2, 65534) for p in ("TCP", "UDP")]))
                bed.enforcer.state.back()
                assert puppet.connect(other.address, OPEN_PORT) == "ok"
                assert puppet.connect(other.address, SHUT_PORT) == "EPERM"
            bed.enforce(policy("web", egress=[rule("TCP", 7000, 7300)]))
            assert puppet.connect(other.address, SHUT_PORT) == "ok"
            assert puppet.connect(other.address, 7301) == "EPERM"
            assert bed.maps.read("rules")[0].size < 20
