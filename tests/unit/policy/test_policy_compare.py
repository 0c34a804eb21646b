"""Two sets of policies on the same flows: only what changes is told, the worst first."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from flow_rows import row
from test_policy_simulate import CART, ROWS, frame, policy

from portforge.errors import CaptureError
from portforge.policy import Mode, compare, simulate

CLOSED = policy("cart", ingress=[{"id": "in-tcp-22", "protocol": "TCP", "port": 22}])
ENFORCE = {"mode_override": Mode.ENFORCE}


def test_newly_denied_comes_first_then_newly_allowed() -> None:
    found = compare([CLOSED], [CART], frame(ROWS), **ENFORCE)
    shown = ["decision", "decision_before", "reason", "rule", "rule_before", "connections"]
    assert found.changes[shown].fillna("none").to_numpy().tolist() == [
        ["denied", "allowed", "no rule for TCP 7070", "none", "in-tcp-7070", 15],
        ["denied", "uncertain", "no rule for TCP 7070", "none", "in-tcp-7070", 7],
        ["allowed", "denied", "any peer", "in-tcp-22", "none", 102],
    ]
    assert found.counts == {"denied": 22, "audited": 0, "uncertain": 0, "allowed": 102}
    assert found.workloads.to_dict("records") == [
        {
            "namespace": "shop",
            "workload_kind": "Deployment",
            "workload": "cart",
            "denied": 22,
            "audited": 0,
            "uncertain": 0,
            "allowed": 102,
            "broken": True,
        }
    ]
    assert found.any_denied
    assert "in-tcp-22" in found._repr_html_()


def test_the_first_example_is_one_that_had_worked() -> None:
    rows = [
        row("cart", "ingress", "TCP", 9, "web", verdict="failed"),
        row("cart", "ingress", "TCP", 9, "front", at=3),
    ]
    found = compare([CLOSED], [CART], frame(rows), **ENFORCE).changes
    assert (found["peer_workload"].item(), found["connections_answered"].item()) == ("front", 10)


def test_the_sums_are_those_of_two_simulations() -> None:
    found = compare([CLOSED], [CART], frame(ROWS), **ENFORCE)
    new, old = (simulate([one], frame(ROWS), **ENFORCE).counts for one in (CLOSED, CART))
    assert found.unchanged + sum(found.counts.values()) == sum(new.values())
    back = compare([CART], [CLOSED], frame(ROWS), **ENFORCE)
    for decision in ("denied", "uncertain", "allowed"):
        assert found.counts[decision] - back.counts[decision] == new[decision] - old[decision]


def test_the_same_policies_change_nothing() -> None:
    found = compare([CART], [CART], frame(ROWS))
    assert found.changes.empty
    assert found.workloads.empty
    assert not found.any_denied
    assert found.unchanged == 167


def test_a_policy_where_there_was_none_and_one_that_expires() -> None:
    found = compare([CART], [], frame(ROWS), **ENFORCE)
    assert found.counts == {"denied": 105, "audited": 0, "uncertain": 7, "allowed": 0}
    ended = CART.model_copy(update={"expires_at": datetime(2026, 1, 1, tzinfo=UTC)})
    gone = compare([ended], [CART], frame(ROWS), now=datetime(2026, 6, 1, tzinfo=UTC), **ENFORCE)
    assert gone.counts["allowed"] == 112


def test_modes_are_compared_where_nothing_overrides_them() -> None:
    strict = CART.model_copy(update={"mode": Mode.ENFORCE})
    found = compare([strict], [CART], frame(ROWS))
    assert found.counts == {"denied": 105, "audited": 0, "uncertain": 0, "allowed": 0}
    assert set(found.changes["decision_before"]) == {"audited"}
    assert found.workloads["broken"].tolist() == [True], "one of them had worked"


def test_json_is_plain_and_the_same_for_any_order() -> None:
    one, two = (compare([CLOSED], [CART], frame(r)).to_json() for r in (ROWS, ROWS[::-1]))
    assert one == two
    content = json.loads(one)
    assert content["connections"]["unchanged"] == 43
    assert content["changes_total"] == 3


def test_a_frame_that_is_no_capture() -> None:
    with pytest.raises(CaptureError, match="flows lack the columns connections"):
        compare([CART], [], frame(ROWS).drop(columns="connections"))
