"""A policy as an object of the cluster, and the steps from what is there to what is wanted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from portforge.errors import PolicyError
from portforge.kube._refused import RefusedError
from portforge.kube.apply import APPROVAL_MANAGER, AUTHOR_MANAGER, plan
from portforge.kube.policies import Live, chosen, from_object, to_object
from portforge.policy import Mode, PortPolicy, approve, digest
from portforge.schema import Workload

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def cart(port: int = 7070, **more: object) -> PortPolicy:
    return PortPolicy(
        namespace="shop",
        name="deployment-cart",
        workload=Workload("shop", "Deployment", "cart"),
        ingress=[{"id": "in-tcp", "protocol": "TCP", "port": port}],
        **more,
    )


def live(policy: PortPolicy) -> Live:
    data = to_object(policy)
    data["metadata"] |= {"uid": "u", "resourceVersion": "42", "managedFields": []}
    data["status"] = {"nodes": 2}
    return Live(data, from_object(data))


def test_an_object_is_read_back_whatever_the_server_adds():
    policy = approve(cart(author="ana", expires_at=NOW), "ben", NOW)
    assert live(policy).policy == policy


def test_a_bad_object_is_named():
    data = to_object(cart())
    data["spec"]["ingress"][0]["port"] = 0
    with pytest.raises(PolicyError, match=r"shop/deployment-cart: spec.ingress\[0\].port"):
        from_object(data)


def test_the_author_owns_no_field_of_the_approver():
    made = plan(cart(), None, user="ana", mode=None, now=NOW)
    assert [step.manager for step in made.steps] == [AUTHOR_MANAGER]
    spec = made.steps[0].body["spec"]
    assert spec["author"] == "ana"
    assert not {"mode", "approval", "confirmBefore"} & set(spec)


def test_the_same_rules_need_no_request_whoever_asks():
    made = plan(cart(), live(cart(author="ana")), user="bob", mode=None, now=NOW)
    assert (made.change, made.steps, made.policy.author) == ("unchanged", (), "ana")


def test_an_approver_writes_only_the_approval_and_on_that_very_version():
    end = NOW + timedelta(minutes=10)
    before = live(cart(author="ana"))
    made = plan(cart(), before, user="ben", mode=Mode.ENFORCE, now=NOW, confirm_before=end)
    (step,) = made.steps
    assert step.manager == APPROVAL_MANAGER
    assert step.body["metadata"]["resourceVersion"] == "42"
    assert set(step.body["spec"]) == {"mode", "approval", "confirmBefore"}
    assert step.body["spec"]["approval"]["digest"] == digest(cart(author="ana"))


def test_new_rules_are_never_seen_under_the_old_approval():
    before = live(approve(cart(author="ana", mode=Mode.ENFORCE), "ben", NOW))
    made = plan(cart(7071), before, user="bea", mode=Mode.ENFORCE, now=NOW)
    first = made.steps[0].body["spec"]
    assert first["ingress"][0]["port"] == 7071
    assert first["approval"]["digest"] == digest(cart(7071, author="bea"))
    assert [s.manager for s in made.steps[1:]] == [AUTHOR_MANAGER, APPROVAL_MANAGER]


def test_audit_said_aloud_takes_the_mode_before_the_rules():
    before = live(approve(cart(author="ana", mode=Mode.ENFORCE), "ben", NOW))
    made = plan(cart(7071), before, user="ben", mode=Mode.AUDIT, now=NOW)
    assert set(made.steps[0].body["spec"]) == {"mode"}
    assert made.steps[1].manager == AUTHOR_MANAGER


def test_names_are_unique_or_asked_for():
    other = cart().model_copy(
        update={"namespace": "test", "workload": Workload("test", "Deployment", "cart")}
    )
    both = [live(cart()), live(other)]
    assert chosen(both, ["shop/deployment-cart"]) == both[:1]
    with pytest.raises(PolicyError, match="more than one namespace"):
        chosen(both, ["deployment-cart"])
    with pytest.raises(PolicyError, match="no such policy"):
        chosen(both, ["web"])


@pytest.mark.parametrize(
    ("code", "answer", "told"),
    [
        (
            403,
            'pods is forbidden: User "ana" cannot list resource "pods" in API group "" '
            'in the namespace "portforge"',
            "ana may not list pods in namespace portforge; ask for that right",
        ),
        (404, "404 page not found", "does not know this kind of object; install portforge"),
        (401, "Unauthorized", "does not accept these credentials"),
    ],
)
def test_a_refusal_is_a_sentence_with_a_remedy(code, answer, told):
    status = {"kind": "Status", "message": answer}
    assert told in str(RefusedError(code, status, "here"))
