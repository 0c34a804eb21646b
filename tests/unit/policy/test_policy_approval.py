"""An approval holds for what was approved, and for nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from policy_strategies import instants, policies

from portforge.errors import ApprovalError
from portforge.policy import Mode, PortPolicy, approve, digest, verify_approval
from portforge.schema import Workload

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


APPROVERS = ("mode", "approval", "confirm_before")


@given(policies(), st.sampled_from(Mode), st.none() | instants)
def test_the_digest_ignores_what_is_the_approvers(
    policy: PortPolicy, mode: Mode, trial: datetime | None
) -> None:
    changed = policy.model_copy(update={"mode": mode, "approval": None, "confirm_before": trial})
    assert digest(policy) == digest(changed) == digest(approve(changed, "ana", NOW))


@given(policies(), policies())
def test_and_nothing_else(one: PortPolicy, other: PortPolicy) -> None:
    fields = [f for f in PortPolicy.model_fields if f not in APPROVERS]
    assert (digest(one) == digest(other)) == all(
        getattr(one, f) == getattr(other, f) for f in fields
    )


@given(policies(), policies(), st.sampled_from(sorted(PortPolicy.model_fields)))
def test_changing_any_single_field_changes_it(
    one: PortPolicy, other: PortPolicy, name: str
) -> None:
    assume(name not in APPROVERS and getattr(one, name) != getattr(other, name))
    # A policy in another namespace than its workload is none.
    assume(name != "workload" or one.workload[1:] != other.workload[1:])
    assert digest(one.model_copy(update={name: getattr(other, name)})) != digest(one)


def policy(**fields: object) -> PortPolicy:
    base = {"namespace": "shop", "name": "web", "workload": Workload("shop", "Deployment", "web")}
    return PortPolicy.model_validate(base | fields)


def test_digests_from_before_there_were_authors_hold() -> None:
    assert digest(policy()) == (
        "sha256:503c7d57b8d09c99d965aa751262d3bc2f1ae28e7e247b1f33b02d1a5f8a7d6d"
    )


def test_an_approval_is_for_one_author() -> None:
    approved = approve(policy(author="ana"), "ben", NOW)
    verify_approval(approved.model_copy(update={"confirm_before": NOW}), NOW)
    with pytest.raises(ApprovalError, match="was changed after ben approved it"):
        verify_approval(approved.model_copy(update={"author": "ben"}), NOW)


def test_missing_wrong_expired() -> None:
    with pytest.raises(ApprovalError, match="shop/web: is not approved; review it"):
        verify_approval(policy(), NOW)
    approved = approve(policy(egress=()), "ana", NOW)
    verify_approval(approved, NOW)
    verify_approval(approved.model_copy(update={"mode": Mode.ENFORCE}), NOW)
    with pytest.raises(ApprovalError, match="was changed after ana approved it"):
        verify_approval(approved.model_copy(update={"egress": None}), NOW)
    ending = approve(policy(expires_at=NOW + timedelta(hours=1)), "ana", NOW)
    verify_approval(ending, NOW)
    with pytest.raises(ApprovalError, match="expired at 2026-11-25T13:00:00Z"):
        verify_approval(ending, NOW + timedelta(hours=1))
