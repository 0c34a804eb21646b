"""A diff says what changed in meaning, and whether that opens or closes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from policy_strategies import policies

from portforge.policy import PortPolicy, approve, diff
from portforge.schema import Workload

CIDR = {"cidr": "10.0.0.0/8"}
NODE = {"entity": "Node"}
RULE = {"id": "a", "protocol": "TCP", "port": 80}


def policy(ingress: Any = (), **fields: Any) -> PortPolicy:
    base = {"namespace": "shop", "name": "web", "workload": Workload("shop", "Deployment", "web")}
    return PortPolicy.model_validate(base | {"ingress": ingress} | fields)


CASES = [
    (policy(), policy([RULE]), "opens", "+ ingress a rule added: TCP 80 any peer"),
    (policy([RULE]), policy(), "closes", "- ingress a rule removed: TCP 80 any peer"),
    (policy(None), policy(), "closes", "- ingress restricted: everything → nothing allowed"),
    (
        policy(),
        policy(None),
        "opens",
        "+ ingress no longer restricted: nothing allowed → everything",
    ),
    (
        policy([RULE]),
        policy([RULE | {"endPort": 90}]),
        "opens",
        "+ ingress a ports changed: TCP 80 → TCP 80-90",
    ),
    (
        policy([RULE]),
        policy([RULE | {"port": 443}]),
        "changes",
        "~ ingress a ports changed: TCP 80 → TCP 443",
    ),
    (
        policy([RULE | {"peers": [CIDR]}]),
        policy([RULE | {"peers": [CIDR, NODE]}]),
        "opens",
        "+ ingress a peer added: Node",
    ),
    (
        policy([RULE | {"peers": [CIDR, {"namespace": "team-b"}]}]),
        policy([RULE | {"peers": [CIDR]}]),
        "closes",
        "- ingress a peer removed: team-b/*",
    ),
    (
        policy([RULE]),
        policy([RULE | {"peers": [CIDR]}]),
        "closes",
        "- ingress a peers restricted: any peer → 10.0.0.0/8",
    ),
    (
        policy([RULE]),
        policy([RULE | {"expiresAt": "2027-01-01T00:00:00Z"}]),
        "closes",
        "- ingress a expiry changed: never → 2027-01-01T00:00:00Z",
    ),
    (policy([RULE]), policy([RULE | {"id": "b"}]), "none", "  ingress b id changed: a → b"),
    (policy(mode="Audit"), policy(mode="Enforce"), "closes", "- mode changed: Audit → Enforce"),
    (
        policy(),
        policy(expires_at="2027-01-01T00:00:00Z"),
        "opens",
        "+ expiry changed: never → 2027-01-01T00:00:00Z",
    ),
    (
        policy(),
        policy(established="Keep"),
        "changes",
        "~ established changed: Rejudge → Keep",
    ),
]


@pytest.mark.parametrize(("old", "new", "effect", "line"), CASES)
def test_one_change(old: PortPolicy, new: PortPolicy, effect: str, line: str) -> None:
    found = diff([old], [new])
    assert str(found) == f"shop/Deployment/web\n  {line}"
    assert [c.effect for c in found.changes] == [effect]
    assert json.loads(found.to_json())["counts"][effect] == 1


def test_policies_come_and_go() -> None:
    assert [c.effect for c in diff([], [policy()]).changes] == ["closes"]
    assert "policy removed: Audit, ingress 0 rules, egress unrestricted" in str(
        diff([policy()], [])
    )


@given(policies())
def test_no_difference_to_itself_approved_or_not(one: PortPolicy) -> None:
    found = diff([one], [approve(one, "ana", datetime(2026, 1, 1, tzinfo=UTC))])
    assert not found
    assert str(found) == "no difference in meaning"


@given(policies(), policies())
def test_a_difference_is_found_exactly_where_there_is_one(one: PortPolicy, two: PortPolicy) -> None:
    two = two.model_copy(update={"namespace": one.namespace, "workload": one.workload})
    same = one.model_copy(update={"approval": None}) == two.model_copy(update={"approval": None})
    assert bool(diff([one], [two])) != same
