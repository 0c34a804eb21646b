"""What nodes report, and how status tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from portforge.cli._status_cluster import as_data, show
from portforge.cli.confirm import given_up
from portforge.errors import ApprovalError
from portforge.kube.policies import Live, from_object
from portforge.kube.reports import BreakGlass, NodeReport, node_report

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def report(node: str, ago: int, **more: object) -> NodeReport:
    heard = (NOW - timedelta(seconds=ago)).isoformat().replace("+00:00", "Z")
    status = {
        "agent": "0.1.0",
        "programs": "v1",
        "heartbeat": heard,
        "canary": heard,
        "synced": True,
        "losses": 3,
        **more,
    }
    return node_report({"metadata": {"name": node}, "status": status})


def policy(**status: object) -> Live:
    data = {
        "apiVersion": "portforge.dev/v1alpha1",
        "kind": "PortPolicy",
        "metadata": {"namespace": "shop", "name": "cart", "generation": 3},
        "spec": {
            "workload": {"kind": "Deployment", "name": "cart"},
            "mode": "Enforce",
            "confirmBefore": "2026-11-25T12:05:00Z",
        },
        "status": status,
    }
    return Live(data, from_object(data))


def told(*args: object) -> str:
    out = StringIO()
    show(*args, NOW, Console(file=out, width=160, highlight=False, markup=False))  # type: ignore[arg-type]
    return out.getvalue()


def test_a_report_may_be_empty():
    empty = node_report({"metadata": {"name": "node-a"}})
    assert (empty.heartbeat, empty.synced, empty.policies) == (None, False, ())
    assert "node-a: its agent was never heard of" in told([], [empty], [])


def test_what_is_not_as_it_should_be_has_a_line():
    rolled = {"namespace": "shop", "name": "cart", "state": "RolledBack", "mode": "Audit"}
    reports = [
        report("node-a", 5, policies=[{**rolled, "problem": "too many denials"}]),
        report("node-b", 3600, synced=False),
    ]
    live = policy(
        observedGeneration=2,
        nodes=2,
        appliedNodes=1,
        denied=1200,
        conditions=[
            {"type": "Ready", "status": "False", "message": "node-b is not heard of"},
            {"type": "Enforced", "status": "True"},
        ],
    )
    text = told([live], reports, [])
    for part in (
        "1/2",
        "1,200",
        "on trial until 12:05:00 UTC (5m 0s left, 1,200 denied so far)",
        "Ready False: node-b is not heard of",
        "the status is of an earlier version",
        "node-a: shop/cart is RolledBack, in Audit: too many denials",
        "node-b: not heard of for 1h",
    ):
        assert part in text, text


def test_a_trial_that_a_node_gave_up_is_not_confirmed_by_accident():
    rolled = {"namespace": "shop", "name": "cart", "state": "RolledBack", "problem": "denied 120"}
    reports = [report("node-a", 5, policies=[rolled]), report("node-b", 5)]
    with pytest.raises(ApprovalError, match="node-a gave the trial up: denied 120; look at"):
        given_up([policy()], reports, force=False)
    assert given_up([policy()], reports, force=True)[0].startswith("shop/cart: node-a")
    assert given_up([policy()], reports[1:], force=False) == []


def test_a_broken_glass_stands_first_until_it_is_over():
    glass = BreakGlass("glass", "checkout is down", "rita", None, NOW + timedelta(hours=1))
    assert told([], [], [glass]).startswith("BREAK-GLASS glass: enforcement is lifted on every")
    over = BreakGlass("glass", "checkout is down", "rita", ("node-a",), NOW)
    assert "BREAK-GLASS" not in told([], [], [over])


def test_programs_get_the_names_of_the_objects():
    data = as_data([policy(nodes=2)], [report("node-a", 5)], [])
    assert data["policies"][0]["confirmBefore"] == "2026-11-25T12:05:00Z"
    assert data["nodes"][0]["heartbeat"] == "2026-11-25T11:59:55Z"
    assert data["nodes"][0]["breakGlass"] is None
