"""What is in force on a node: every rule of docs/design/004, without an API server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portforge.policy import Mode, PortPolicy, approve, digest
from portforge.schema import Workload
from portforge_recorder.in_force import (
    MOST_DENIALS,
    Decision,
    Glass,
    PolicyState,
    Seen,
    StateName,
    decide,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SOON, PAST = NOW + timedelta(minutes=5), NOW - timedelta(seconds=1)
KEY = "shop/deployment-web"


def policy(mode: Mode = Mode.ENFORCE, port: int = 80, name: str = "web", **more: Any) -> PortPolicy:
    return PortPolicy.model_validate(
        {
            "namespace": "shop",
            "name": f"deployment-{name}",
            "workload": Workload("shop", "Deployment", name),
            "mode": mode,
            "ingress": [{"id": f"in-tcp-{port}", "protocol": "TCP", "port": port}],
            **more,
        }
    )


def approved(**more: Any) -> PortPolicy:
    return approve(policy(**more), "ann", NOW)


def seen(what: PortPolicy | None, generation: int = 1, **more: Any) -> Seen:
    return Seen(
        "shop",
        what.name if what else "deployment-web",
        **{
            "uid": "u1",
            "generation": generation,
            "created": "2026-11-25T10:00:00Z",
            "policy": what,
            "policy_generation": generation,
            **more,
        },
    )


class Node:
    """Decides again and again, as the agent does: with what the last decision left."""

    def __init__(self) -> None:
        self.last = Decision((), (), {}, {})

    def see(self, *objects: Seen, at: datetime = NOW, **more: Any) -> Decision:
        glasses = more.pop("glasses", ())
        self.last = decide(
            objects, self.last.confirmed, self.last.rolled_back, glasses, "n1", at, **more
        )
        return self.last


@pytest.fixture
def node() -> Node:
    return Node()


def only(decision: Decision) -> PolicyState:
    (state,) = decision.states
    return state


def test_an_approved_policy_is_in_force_as_asked_and_is_the_confirmed_one(node: Node) -> None:
    wanted = approved()

    decision = node.see(seen(wanted))

    assert decision.policies == (wanted,)
    assert only(decision) == PolicyState(
        "shop",
        "deployment-web",
        1,
        StateName.ACTIVE,
        asked=Mode.ENFORCE,
        mode=Mode.ENFORCE,
        digest=digest(wanted),
        workload=wanted.workload,
    )
    assert decision.confirmed[KEY].policy == wanted


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.RECORD])
def test_what_denies_nothing_needs_no_approval_and_no_confirmation(node: Node, mode: Mode) -> None:
    decision = node.see(seen(policy(mode, confirm_before=PAST)))

    assert (only(decision).state, only(decision).mode) == (StateName.ACTIVE, mode)


def test_enforce_without_an_approval_is_judged_in_audit(node: Node) -> None:
    decision = node.see(seen(policy()))

    assert decision.policies[0].mode is Mode.AUDIT
    assert only(decision).state is StateName.UNAPPROVED
    assert only(decision).short_of_enforce
    assert "not approved" in only(decision).problem
    assert decision.confirmed == {}


def test_an_approval_of_something_else_is_none(node: Node) -> None:
    changed = approved().model_copy(update={"ingress": None})

    decision = node.see(seen(changed))

    assert (only(decision).state, only(decision).mode) == (StateName.UNAPPROVED, Mode.AUDIT)
    assert "was changed after ann approved it" in only(decision).problem


def test_a_policy_on_trial_is_enforced_and_not_confirmed(node: Node) -> None:
    decision = node.see(seen(approved(confirm_before=SOON)))

    assert (only(decision).state, only(decision).mode) == (StateName.ON_TRIAL, Mode.ENFORCE)
    assert decision.confirmed == {}


def test_a_trial_that_ran_out_ends_in_audit_where_nothing_was_confirmed(node: Node) -> None:
    trial = seen(approved(confirm_before=SOON))
    node.see(trial)

    decision = node.see(trial, at=SOON)

    assert (only(decision).state, only(decision).mode) == (StateName.ROLLED_BACK, Mode.AUDIT)
    assert "not confirmed before 2026-11-25T12:05Z" in only(decision).problem


def test_a_trial_that_ran_out_ends_in_the_version_confirmed_before(node: Node) -> None:
    first = approved(port=80)
    node.see(seen(first))
    trial = seen(approved(port=81, confirm_before=SOON), 2)
    assert node.see(trial).policies[0].ingress[0].port == 81  # type: ignore[index]

    decision = node.see(trial, at=SOON)

    assert decision.policies == (first,)
    assert (only(decision).state, only(decision).mode) == (StateName.ROLLED_BACK, Mode.ENFORCE)
    assert only(decision).digest == digest(first)
    assert node.see(trial, at=NOW).policies == (first,), "a clock set back begins no trial anew"


def test_a_version_confirmed_and_expired_meanwhile_is_nothing_to_go_back_to(node: Node) -> None:
    node.see(seen(approved(port=80, expires_at=NOW + timedelta(minutes=1))))
    trial = seen(approved(port=81, confirm_before=SOON), 2)

    decision = node.see(trial, at=SOON)

    assert only(decision).mode is Mode.AUDIT


def test_confirmed_in_time_it_is_the_version_to_go_back_to(node: Node) -> None:
    node.see(seen(approved(port=80)))
    node.see(seen(approved(port=81, confirm_before=SOON), 2))
    confirmed = approved(port=81)

    decision = node.see(seen(confirmed, 3), at=SOON)

    assert only(decision).state is StateName.ACTIVE
    assert decision.confirmed[KEY].policy == confirmed


def test_confirmed_too_late_it_is_in_force_again(node: Node) -> None:
    trial = approved(confirm_before=SOON)
    node.see(seen(trial), at=SOON)

    decision = node.see(seen(approved(), 2), at=SOON + timedelta(minutes=1))

    assert (only(decision).state, only(decision).mode) == (StateName.ACTIVE, Mode.ENFORCE)
    assert decision.rolled_back == {}


def test_a_changed_object_after_a_rollback_is_a_new_attempt(node: Node) -> None:
    node.see(seen(approved(confirm_before=PAST)))
    assert only(node.last).state is StateName.ROLLED_BACK

    decision = node.see(seen(approved(port=81, confirm_before=SOON), 2))

    assert (only(decision).state, only(decision).mode) == (StateName.ON_TRIAL, Mode.ENFORCE)


def test_too_many_denials_end_a_trial_at_once_and_for_good(node: Node) -> None:
    trial = seen(approved(confirm_before=SOON))
    assert only(node.see(trial, denials={KEY: MOST_DENIALS - 1})).state is StateName.ON_TRIAL

    said = only(node.see(trial, denials={KEY: MOST_DENIALS}))

    assert (said.state, said.mode) == (StateName.ROLLED_BACK, Mode.AUDIT)
    assert f"denied {MOST_DENIALS} connections on trial" in said.problem
    assert only(node.see(trial, denials={KEY: 0})) == said


def test_denials_outside_a_trial_lift_nothing(node: Node) -> None:
    decision = node.see(seen(approved()), denials={KEY: 1_000_000})

    assert only(decision).mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("glass", "mode"),
    [
        (Glass("night", ("n1",)), Mode.AUDIT),
        (Glass("night"), Mode.AUDIT),
        (Glass("night", ("n2",)), Mode.ENFORCE),
        (Glass("night", ("n1",), expires_at=PAST), Mode.ENFORCE),
        (Glass("night", ("n1",), expires_at=SOON), Mode.AUDIT),
    ],
    ids=["this node", "every node", "another node", "expired", "not expired yet"],
)
def test_break_glass(node: Node, glass: Glass, mode: Mode) -> None:
    decision = node.see(seen(approved()), glasses=[glass])

    assert decision.policies[0].mode is mode
    assert (only(decision).state is StateName.BREAK_GLASS) == (mode is Mode.AUDIT)
    assert (decision.break_glass == glass) == (mode is Mode.AUDIT)
    assert only(node.see(seen(approved()))).state is StateName.ACTIVE


def test_break_glass_reaches_what_was_rolled_back_to(node: Node) -> None:
    node.see(seen(approved(port=80)))

    decision = node.see(seen(approved(port=81, confirm_before=PAST), 2), glasses=[Glass("g")])

    assert (only(decision).state, only(decision).mode) == (StateName.BREAK_GLASS, Mode.AUDIT)
    assert "not confirmed" in only(decision).problem


def test_a_deleted_policy_is_gone_and_so_is_what_was_confirmed(node: Node) -> None:
    node.see(seen(approved()))

    assert node.see() == Decision((), (), {}, {})


def test_an_object_made_anew_inherits_nothing(node: Node) -> None:
    node.see(seen(approved(port=80)))

    decision = node.see(seen(approved(port=81, confirm_before=PAST), uid="u2"))

    assert only(decision).mode is Mode.AUDIT


def test_an_object_that_cannot_be_used_leaves_the_last_version_that_could(node: Node) -> None:
    good = approved()
    broken = seen(good, 2, policy_generation=1, problem="spec.ingress: is no list")

    decision = node.see(broken)

    assert decision.policies == (good,)
    said = only(decision)
    assert (said.state, said.mode, said.generation) == (StateName.INVALID, Mode.ENFORCE, 2)
    assert said.problem == "spec.ingress: is no list"


def test_an_object_that_never_could_be_used_puts_nothing_in_force(node: Node) -> None:
    decision = node.see(seen(None, problem="nonsense"))

    assert decision.policies == ()
    assert (only(decision).state, only(decision).mode) == (StateName.INVALID, Mode.RECORD)


@pytest.mark.parametrize(
    ("created", "winner"),
    [("2026-11-25T09:00:00Z", "zz"), ("2026-11-25T10:00:00Z", "deployment-web")],
    ids=["the older", "of the same second the first by name"],
)
def test_of_two_policies_for_one_workload(node: Node, created: str, winner: str) -> None:
    one = seen(approved())
    other = replace(
        seen(approve(policy().model_copy(update={"name": "zz"}), "ann", NOW)),
        name="zz",
        uid="u2",
        created=created,
    )

    decision = node.see(one, other)

    assert [p.name for p in decision.policies] == [winner]
    (loser,) = (s for s in decision.states if s.name != winner)
    assert (loser.state, loser.mode) == (StateName.INVALID, Mode.RECORD)
    assert f"policy shop/{winner} speaks for" in loser.problem
    assert decision.confirmed.keys() == {f"shop/{winner}"}


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.ENFORCE], ids=["in Audit", "unapproved"])
def test_what_is_enforced_is_not_pushed_aside_by_an_older_policy(node: Node, mode: Mode) -> None:
    """An analyst may create policies; enforcing takes an approver."""
    mild = policy().model_copy(update={"name": "aa", "mode": mode})
    older = replace(seen(mild), name="aa", uid="u2", created="2026-11-25T09:00:00Z")

    decision = node.see(older, seen(approved()))

    assert [(p.name, p.mode) for p in decision.policies] == [("deployment-web", Mode.ENFORCE)]


def test_an_expired_policy_restricts_nothing_and_holds_no_workload(node: Node) -> None:
    newer = replace(
        seen(approved(name="web", port=81).model_copy(update={"name": "zz"})), name="zz", uid="u2"
    )
    newer = replace(newer, policy=approve(newer.policy, "ann", NOW))  # type: ignore[arg-type]

    decision = node.see(seen(approved(expires_at=PAST)), newer)

    assert [s.state for s in decision.states] == [StateName.EXPIRED, StateName.ACTIVE]
    assert [p.name for p in decision.policies] == ["zz"]


def test_the_order_of_the_objects_says_nothing() -> None:
    objects = [seen(approved(name=name), uid=name) for name in ("a", "b", "c")]
    one, other = (decide(o, {}, {}, [], "n1", NOW) for o in (objects, objects[::-1]))

    assert one == other
