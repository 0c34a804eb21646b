"""The agent's smaller parts without a kernel or a cluster: counts, memory, canary, inventory."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from portforge.apply.inventory import Inventory, Pod, Service, ServicePort
from portforge.apply.state import State
from portforge.errors import ClusterError
from portforge.kube.policies import to_object
from portforge.policy import PortPolicy
from portforge.schema import FLOW_SCHEMA, Workload
from portforge_recorder.agent import Drain
from portforge_recorder.answers import Heard
from portforge_recorder.canary import STALE, Canary
from portforge_recorder.in_force import Attempt, Confirmed, Decision, PolicyState, StateName
from portforge_recorder.memory import Memory, glass, slim
from portforge_recorder.metrics import Metrics
from portforge_recorder.policies import Counts
from portforge_recorder.remembered import RememberedSource
from portforge_recorder.report import policy_entries
from portforge_recorder.writer import loss_table

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WEB = Workload("shop", "Deployment", "web")
POLICY = PortPolicy(namespace="shop", name="deployment-web", workload=WEB)


def flows(*rows: dict[str, Any]) -> pa.Table:
    plain = {
        "first_seen": NOW,
        "last_seen": NOW,
        "node": "n",
        "namespace": "shop",
        "workload_kind": "Deployment",
        "workload": "web",
        "pod": "web-0",
        "direction": "ingress",
        "protocol": "TCP",
        "port": 80,
        "peer_kind": "external",
        "verdict": "allowed",
        "connections": 1,
        "bytes_sent": 0,
        "bytes_received": 0,
        "retransmits": 0,
    }
    return pa.Table.from_pylist([plain | row for row in rows], schema=FLOW_SCHEMA)


def test_counts_are_of_what_is_denied_and_audited_by_workload() -> None:
    counts = Counts().plus(
        flows(
            {"verdict": "denied", "connections": 2},
            {"verdict": "audited", "connections": 5},
            {"verdict": "allowed", "connections": 7},
            {"verdict": "denied", "namespace": None, "workload_kind": None, "workload": None},
        )
    )
    counts = counts.plus(flows({"verdict": "denied"}))

    assert (counts.denied, counts.audited) == ({WEB: 3}, {WEB: 5})


def test_a_report_counts_for_the_policy_that_speaks_for_the_workload() -> None:
    speaks = PolicyState("shop", "a", 1, StateName.ACTIVE, digest="sha256:1", workload=WEB)
    second = PolicyState("shop", "b", 1, StateName.INVALID, "a is older", workload=WEB)
    decision = Decision((), (speaks, second), {}, {})

    one, other = policy_entries(decision, Counts({WEB: 3}, {WEB: 5}), {WEB: 2}, "map full")

    assert (one["denied"], one["audited"], one["pods"], one["problem"]) == (3, 5, 2, "map full")
    assert (other["denied"], other["pods"], other["problem"]) == (0, 2, "a is older; map full")
    assert "digest" not in other


def item(generation: int = 1, **spec: Any) -> dict[str, Any]:
    made = to_object(POLICY)
    made["metadata"] |= {"uid": "u1", "generation": generation, "resourceVersion": "7"}
    made["spec"] |= spec
    return slim(made)


def test_memory_survives_a_restart(tmp_path: Path) -> None:
    state, memory = State("n", tmp_path), Memory()
    memory.see([item()])
    memory.seen()
    memory.see([item(2, ingress="nonsense")])
    memory.glasses = {"g": {"metadata": {"name": "g"}, "spec": {"reason": "r"}}}
    memory.confirmed = {"shop/deployment-web": Confirmed("u1", POLICY)}
    memory.rolled_back = {"shop/deployment-web": Attempt("u1", 1, "why")}
    (before,) = memory.seen()
    memory.write(state)

    again = Memory.read(state)

    (after,) = again.seen()
    assert after == before
    assert (after.policy, after.policy_generation, after.generation) == (POLICY, 1, 2)
    assert after.problem
    assert (again.confirmed, again.glasses) == (memory.confirmed, memory.glasses)
    assert again.rolled_back["shop/deployment-web"].why == "why"
    assert again.known


@pytest.mark.parametrize("text", ["", "{", "[]", '{"objects": 3}', '{"confirmed": {"a": 1}}'])
def test_a_damaged_memory_knows_nothing(tmp_path: Path, text: str) -> None:
    state = State("n", tmp_path)
    if text:
        state.keep("cluster.json", text)

    assert not Memory.read(state).known


def test_a_policy_that_lint_refuses_is_not_usable() -> None:
    rule = {"id": "a", "protocol": "TCP", "port": 80}
    memory = Memory()
    memory.see([item(ingress=[rule, rule | {"id": "b"}])])

    (seen,) = memory.seen()

    assert seen.policy is None
    assert "has the same ports as" in seen.problem


def test_a_break_glass_that_says_its_end_badly_does_not_end() -> None:
    made = {"metadata": {"name": "g"}, "spec": {"reason": "r", "expiresAt": "soon"}}

    assert glass(made).expires_at is None
    good = {"metadata": {"name": "g"}, "spec": {"expiresAt": "2026-11-25T12:00:00Z"}}
    assert glass(good).expires_at == NOW


def test_the_canary_is_its_own_pods_row_and_nobody_elses() -> None:
    canary = Canary(9464)
    own = {"pod": "agent-0", "direction": "egress", "peer_kind": "loopback", "port": 9464}
    canary.listen(flows(own | {"pod": "other"}, own | {"port": 80}), "agent-0")
    canary.listen(flows(own | {"direction": "ingress"}), "agent-0")
    canary.listen(flows(own), None)
    assert canary.seen is None

    canary.listen(flows(own, own | {"last_seen": NOW + timedelta(seconds=5)}), "agent-0")
    canary.listen(flows(), "agent-0")

    assert canary.seen == NOW + timedelta(seconds=5)
    assert not canary.stale(canary.seen + STALE)
    assert canary.stale(canary.seen + STALE + timedelta(seconds=1))


class Source:
    """A cluster that can be away."""

    cluster, node, age = "c", "n", 0.0

    def __init__(self, known: Inventory | None) -> None:
        self.known = known

    @property
    def synced(self) -> bool:
        return self.known is not None

    def inventory(self) -> Inventory:
        if self.known is None:
            raise ClusterError("away")
        return self.known


def test_the_inventory_is_remembered_over_a_restart_without_the_cluster(tmp_path: Path) -> None:
    known = Inventory(
        "c",
        "n",
        (
            Pod("u", "shop", "web-0", WEB, "n", ("10.0.0.1",), since=NOW),
            Pod("v", "a", "b", None, "n"),
        ),
        (Service("shop", "web", ("10.96.0.9",), (ServicePort("TCP", 80, 8080),), WEB),),
        cidrs=("10.0.0.0/16",),
        closed_namespaces=frozenset({"shop"}),
    )
    state = State("n", tmp_path)
    first = RememberedSource(Source(known), state)  # type: ignore[arg-type]
    assert first.inventory() is known
    first.keep()

    second = RememberedSource(Source(None), state)  # type: ignore[arg-type]

    assert second.inventory() == known
    other = Source(None)
    other.node = "m"
    assert RememberedSource(other, state).inventory().pods == ()  # type: ignore[arg-type]
    state.keep("inventory.json", json.dumps({"cluster": 3}))
    assert RememberedSource(Source(None), state).inventory().pods == ()  # type: ignore[arg-type]


def test_dns_answers_are_counted_once_by_what_became_of_them() -> None:
    metrics = Metrics()
    for heard in (Heard(read=10, unreadable=2, dropped=3), Heard(read=1)):
        metrics.drained(Drain(flows(), loss_table("n", []), 0.1, heard))
    name = "portforge_dns_answers_total"
    counted = {
        outcome: metrics.registry.get_sample_value(name, {"outcome": outcome})
        for outcome in ("read", "unreadable", "dropped")
    }
    assert counted == {"read": 9, "unreadable": 2, "dropped": 3}
