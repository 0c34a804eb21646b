"""From nodes' reports to a policy's status: who counts, what is said, and of whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portforge_recorder.aggregate import SILENT, aggregate

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def policy(mode: str = "Enforce", generation: int = 2, **more: Any) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": "web", "generation": generation}
    return {"metadata": meta, "spec": {"mode": mode}, **more}


def report(node: str, at: datetime = NOW, **entry: Any) -> dict[str, Any]:
    said = {
        "namespace": "shop",
        "name": "web",
        "generation": 2,
        "mode": "Enforce",
        "pods": 1,
        "denied": 3,
        "audited": 1,
        "state": "Active",
        **entry,
    }
    heartbeat = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": node},
        "status": {"heartbeat": heartbeat, "policies": [said] if entry != {"none": 1} else []},
    }


def status(*reports: dict[str, Any], **more: Any) -> dict[str, Any]:
    return aggregate([policy(**more)], reports, NOW)["shop/web"]


def conditions(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def test_every_node_does_what_is_asked() -> None:
    found = status(report("a"), report("b"), report("c", pods=0, denied=0, audited=0))

    assert {k: v for k, v in found.items() if k != "conditions"} == {
        "observedGeneration": 2,
        "nodes": 2,
        "appliedNodes": 2,
        "denied": 6,
        "audited": 2,
    }
    assert conditions(found) == {
        "Ready": ("True", "Applied"),
        "Enforced": ("True", "Enforced"),
        "Degraded": ("False", "AsAsked"),
    }


def test_a_policy_that_asks_for_audit_is_ready_and_not_enforced() -> None:
    found = conditions(status(report("a", mode="Audit"), mode="Audit"))

    assert found["Ready"] == ("True", "Applied")
    assert found["Enforced"] == ("False", "ModeAudit")


@pytest.mark.parametrize(
    "late", [{"generation": 1}, {"mode": "Audit"}, {"none": 1}], ids=["old", "mode", "unknown"]
)
def test_a_node_that_is_late_makes_it_wait(late: dict[str, Any]) -> None:
    found = status(report("a"), report("b", **late))

    assert found["appliedNodes"] == 1
    assert conditions(found)["Ready"] == ("False", "Waiting")
    assert "on b" in found["conditions"][0]["message"]
    assert conditions(found)["Degraded"] == ("False", "AsAsked")


@pytest.mark.parametrize("state", ["RolledBack", "Unapproved", "BreakGlass", "Invalid", "Expired"])
def test_a_node_that_does_otherwise_degrades_it(state: str) -> None:
    found = status(report("a"), report("b", state=state, mode="Audit", problem="why"))

    assert conditions(found)["Degraded"] == ("True", state)
    assert conditions(found)["Ready"] == ("False", state)
    assert found["conditions"][2]["message"] == "b: why"


def test_what_the_kernel_did_not_take_is_not_applied() -> None:
    found = status(report("a", problem="the kernel's map is full"))

    assert found["appliedNodes"] == 0
    assert conditions(found)["Degraded"] == ("True", "NotApplied")


def test_a_silent_node_is_said_to_be_and_holds_nobody_up() -> None:
    found = status(report("a"), report("b", at=NOW - SILENT - timedelta(seconds=1)))

    assert (found["nodes"], found["appliedNodes"]) == (2, 1)
    assert conditions(found)["Ready"] == ("True", "Applied")
    assert conditions(found)["Degraded"] == ("True", "NodesSilent")


def test_without_any_report_nothing_is_ready() -> None:
    assert conditions(status())["Ready"] == ("False", "NoReports")
    damaged = {"metadata": {"name": "a"}, "status": {"heartbeat": "yesterday"}}
    assert conditions(status(damaged))["Ready"] == ("False", "NoReports")


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = status(report("a"))
    later = NOW + timedelta(seconds=30)
    same = aggregate([policy(status=first)], [report("a", at=later)], later)["shop/web"]
    other = aggregate([policy(status=first)], [report("a", at=later, mode="Audit")], later)[
        "shop/web"
    ]

    assert same == first
    assert other["conditions"][0]["lastTransitionTime"] == "2026-11-25T12:00:30Z"
