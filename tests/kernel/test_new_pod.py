"""A new pod is under its policy before its first packet; an unknown one waits where asked for."""

from __future__ import annotations

import copy
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portforge.apply.enforce import Applied, Enforcer
from portforge.apply.inventory import Inventory, Pod
from portforge.apply.layout import Verdict
from portforge.apply.status import node_status
from portforge.demo.cgroups import Driver
from portforge.demo.pods import Node
from portforge.policy import Mode
from portforge.schema import Workload

from .bed import Bed, make_bed
from .enforcing import OPEN_PORT, SHUT_PORT, policy, rule
from .puppet import Puppet

ONE = [rule("TCP"), rule("UDP")]
BLOCKED = "EPERM"


def closed(inventory: Inventory) -> Inventory:
    """As in a cluster where a namespace asks for ``until-known``."""
    return replace(inventory, closed_namespaces=frozenset({"t"}))


def coming(bed: Bed, workload: str, **more: Any) -> Pod:
    """The next pod that ``bed.node.pod("t", "Deployment", workload)`` makes."""
    number = next(copy.copy(bed.node._hosts))
    name = f"{bed.node.id}/t/Deployment/{workload}/{number}"
    uid = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Pod(uid, "t", workload, Workload("t", "Deployment", workload), bed.node.name, **more)


def know(bed: Bed, *more: Pod, shut: bool = False) -> Applied:
    """Let the enforcer see the pods there are, and ``more``."""
    inventory = bed.source().inventory()
    inventory = replace(inventory, pods=(*inventory.pods, *more))
    return bed.enforcer.reconcile(closed(inventory) if shut else inventory)


def entry(bed: Bed, pod: Path) -> tuple[int, ...]:
    value = bed.maps.get("pods", pod.stat().st_ino)
    return tuple(value.tolist())


@pytest.fixture(params=["cgroupfs", "systemd"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bed]:
    driver: Driver = request.param
    name = f"new-pod-{os.getpid()}"
    with Node(name, driver=driver) as node, make_bed(tmp_path, node) as ready:
        yield ready


def test_an_expected_pod_is_enforced_with_nobody_looking(bed: Bed) -> None:
    other = bed.node.pod("t", "Job", "other")
    Puppet(other, OPEN_PORT, SHUT_PORT)
    bed.enforce(policy("web", egress=ONE))
    assert know(bed, coming(bed, "web")).expected == 1

    web = bed.node.pod("t", "Deployment", "web")
    inside = Puppet(web)
    assert inside.connect(other.address, SHUT_PORT) == BLOCKED
    assert inside.connect(other.address, OPEN_PORT) == "ok"
    (denied,) = [f for f in bed.flows() if f.verdict is Verdict.DENIED]
    assert denied.policy == entry(bed, web.cgroup_path)[0] != 0
    assert know(bed) == Applied(1, 0, (), 0, ())


def test_what_is_expected_follows_the_policies_and_the_pods(bed: Bed) -> None:
    web, free = coming(bed, "web"), coming(bed, "free")
    bed.enforce(policy("web", egress=ONE))
    know(bed, web, free)

    def expected() -> dict[str, tuple[int, ...]]:
        keys, values = bed.maps.read("expected")
        return {bytes(k["text"]).decode(): v.tolist() for k, v in zip(keys, values, strict=True)}

    before = expected()
    assert before.keys() == {web.uid}
    bed.enforce(policy("web", Mode.AUDIT, egress=[*ONE, rule("TCP", SHUT_PORT)]))
    know(bed, web, free)
    (after,) = expected().values()
    assert after[0] not in (0, before[web.uid][0])
    written, _ = bed.maps.read("rules")
    assert {int(k["policy"]) for k in written} == {after[0]}
    # An enforcer that starts removes nothing that an expected pod will use.
    Enforcer(bed.maps, bed.enforcer.state)._sweep()
    assert {int(k["policy"]) for k in bed.maps.read("rules")[0]} == {after[0]}
    bed.enforce()
    know(bed, web, free)
    assert expected() == {}
    assert not bed.maps.read("rules")[0].size
    bed.enforce(policy("web", egress=ONE))
    know(bed, web)
    know(bed)
    assert expected() == {}
    know(
        bed, replace(web, node="elsewhere"), replace(web, uid=str(uuid.uuid4()), host_network=True)
    )
    assert expected() == {}


def test_an_unknown_pod_is_denied_until_it_is_known(bed: Bed) -> None:
    other = bed.node.pod("t", "Job", "other")
    outside = Puppet(other, OPEN_PORT, SHUT_PORT)
    bed.enforce(policy("web", egress=ONE))
    know(bed, shut=True)

    web = bed.node.pod("t", "Deployment", "web")
    inside = Puppet(web, SHUT_PORT)
    for _ in range(2):
        assert inside.connect(other.address, OPEN_PORT) == BLOCKED
        assert inside.ask(other.address, OPEN_PORT) == BLOCKED
        assert inside.connect("127.0.0.1", SHUT_PORT) == "ok"
        assert outside.connect(web.address, SHUT_PORT, timeout=0.3) == "timeout"
    denied = [f for f in bed.flows() if f.verdict is Verdict.DENIED]
    assert {f.cgroup for f in denied} == {web.cgroup_path.stat().st_ino}
    assert {(f.policy, f.rule) for f in denied} == {(0, 0)}

    inventory = closed(bed.source().inventory())
    without = replace(inventory, pods=tuple(p for p in inventory.pods if p.uid != web.uid))
    (unknown,) = bed.enforcer.reconcile(without).unknown
    assert unknown.uid == web.uid
    assert 0 < unknown.seconds < 30
    status = node_status(bed.maps, bed.enforcer.state, without)
    assert status.closed
    assert sorted(p.unknown for p in status.pods) == [False, True]
    assert inside.connect(other.address, OPEN_PORT) == BLOCKED

    # Its owner is read later than itself.
    pods = [replace(p, workload=None) if p.uid == web.uid else p for p in inventory.pods]
    (unknown,) = bed.enforcer.reconcile(replace(inventory, pods=tuple(pods))).unknown
    assert unknown.uid == web.uid

    assert know(bed, shut=True).unknown == ()
    assert inside.connect(other.address, OPEN_PORT) == "ok"
    assert inside.ask(other.address, OPEN_PORT) == "ok"
    assert inside.connect(other.address, SHUT_PORT) == BLOCKED
    assert outside.connect(web.address, SHUT_PORT) == "ok"


def test_the_agents_own_pod_lets_itself_pass(bed: Bed) -> None:
    """It was made when no agent was there to expect it, and without it nobody is ever known."""
    other = bed.node.pod("t", "Job", "other")
    Puppet(other, OPEN_PORT)
    know(bed, shut=True)
    pod = bed.node.pod("t", "DaemonSet", "agent")
    inside = Puppet(pod)
    assert inside.connect(other.address, OPEN_PORT) == BLOCKED
    assert bed.maps.let_pass(pod.uid)
    assert inside.connect(other.address, OPEN_PORT) == "ok"
    assert not bed.maps.let_pass(pod.uid)
    inventory = closed(bed.source().inventory())
    assert bed.enforcer.reconcile(replace(inventory, pods=())).unknown == ()
    assert inside.connect(other.address, OPEN_PORT) == "ok"


def test_known_pods_never_wait_and_those_that_run_are_not_touched(bed: Bed) -> None:
    runs = bed.node.pod("t", "Job", "runs")
    old = Puppet(runs, OPEN_PORT)
    inventory = bed.source().inventory()
    bed.enforcer.reconcile(replace(closed(inventory), pods=()))
    assert old.connect(bed.node.address, 1) == "ECONNREFUSED"

    free = coming(bed, "free")
    know(bed, free, shut=True)
    inside = Puppet(bed.node.pod("t", "Deployment", "free"))
    assert inside.connect(runs.address, OPEN_PORT) == "ok"

    agent = coming(bed, "agent", host_network=True)
    know(bed, agent, shut=True)
    pod = bed.node.pod("t", "Deployment", "agent", host_network=True)
    assert entry(bed, pod.cgroup_path) == (0, 0, 0, 0, 0)


def test_unknown_pods_are_free_when_nobody_asks_any_more(bed: Bed) -> None:
    other = bed.node.pod("t", "Job", "other")
    Puppet(other, OPEN_PORT)
    know(bed, shut=True)
    inside = Puppet(bed.node.pod("t", "Deployment", "web"))
    assert inside.connect(other.address, OPEN_PORT) == BLOCKED
    inventory = bed.source().inventory()
    bed.enforcer.reconcile(replace(inventory, pods=()))
    assert inside.connect(other.address, OPEN_PORT) == "ok"

    know(bed, shut=True)
    late = Puppet(bed.node.pod("t", "Deployment", "late"))
    assert late.connect(other.address, OPEN_PORT) == BLOCKED
    bed.enforcer.lift()
    assert late.connect(other.address, OPEN_PORT) == "ok"
    assert not bed.maps.config()["closed"]


def test_a_pod_that_the_inventory_lacks_keeps_its_policy(bed: Bed) -> None:
    web = bed.node.pod("t", "Deployment", "web")
    bed.enforce(policy("web", egress=[]))
    inside = Puppet(web)
    full = bed.source().inventory()
    poor = replace(full, pods=())
    ownerless = replace(full, pods=tuple(replace(p, workload=None) for p in full.pods))
    for inventory in (poor, ownerless):
        for enforcer in (bed.enforcer, Enforcer(bed.maps, bed.enforcer.state)):
            assert enforcer.reconcile(inventory).pods == 1
            assert inside.connect(bed.node.address, OPEN_PORT) == BLOCKED
    web.stop()
    assert bed.enforcer.reconcile(poor).pods == 0
    assert bed.enforcer.state.pods() == []


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        ("pod0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("pod0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),
        (
            "kubelet-kubepods-besteffort-pod0f8fad5b_d9cb_469f_a165_70867728950e.slice",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
        ),
        (
            f"{'deep-' * 12}kubepods-pod0f8fad5b_d9cb_469f_a165_70867728950e.slice",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
        ),
        (
            "kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice",
            "0123456789abcdef0123456789abcdef",
        ),
        ("podium", None),
        ("tripod0123456789abcdef0123456789abcdef", None),
        ("kubepods-burstable.slice", None),
        ("pod0f8fad5b-d9cb-469f-a165-70867728950e-more", None),
    ],
)
def test_the_kernel_reads_a_uid_where_python_reads_it(
    standing: Bed, name: str, uid: str | None
) -> None:
    web = Pod(uid or "0" * 32, "t", "web", Workload("t", "Deployment", "web"), standing.node.name)
    standing.enforce(policy("web", egress=[]))
    know(standing, web)
    cgroup = standing.node.kubepods / name
    cgroup.mkdir()
    try:
        registered = standing.maps.get("pods", cgroup.stat().st_ino)
        assert (registered is None) == (uid is None)
        assert uid is None or registered["policy"]
    finally:
        cgroup.rmdir()


def test_maps_say_when_they_are_no_longer_in_force(bed: Bed) -> None:
    bed.maps.config()
    assert bed.maps.intact()
    (bed.maps.folder / "links" / "on_egress").unlink()
    assert not bed.maps.intact()
