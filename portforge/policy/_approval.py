"""The digest of a policy, its approval, and whether the approval still holds. Pure."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from portforge.errors import ApprovalError
from portforge.policy._model import Approval, PortPolicy
from portforge.policy._yaml import canonical, instant_text

__all__ = ["NOT_UNDER_DIGEST", "approve", "digest", "verify_approval"]

NOT_UNDER_DIGEST = ("mode", "approval", "confirmBefore")
"""The approver's fields; everything else is the author's."""


def digest(policy: PortPolicy) -> str:
    """``sha256:…`` over the canonical object without mode, approval and confirmBefore.

    Going from Audit to Enforce, on trial or not, needs no new approval; any other change does,
    also that of namespace and name: an approval cannot be carried to another workload.

    >>> from portforge.schema import Workload
    >>> digest(PortPolicy(namespace="shop", name="deployment-web",
    ...     workload=Workload("shop", "Deployment", "web")))[:14]
    'sha256:0216704'
    """
    content = canonical(policy)
    content["spec"] = {k: v for k, v in content["spec"].items() if k not in NOT_UNDER_DIGEST}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def approve(policy: PortPolicy, by: str, at: datetime) -> PortPolicy:
    """A copy of ``policy``, approved as it stands by ``by`` at ``at`` (with time zone)."""
    approval = Approval(by=by, at=at, digest=digest(policy))
    return policy.model_copy(update={"approval": approval})


def verify_approval(policy: PortPolicy, now: datetime) -> None:
    """Pass silently where ``policy`` is approved as it stands and has not expired at ``now``.

    Raises
    ------
    ApprovalError: not approved, changed since, or expired.
    """
    place = f"{policy.namespace}/{policy.name}"
    if policy.approval is None:
        raise ApprovalError(
            "is not approved", place=place, remedy="review it, then run portforge approve"
        )
    actual = digest(policy)
    if policy.approval.digest != actual:
        raise ApprovalError(
            f"was changed after {policy.approval.by} approved it (approved "
            f"{policy.approval.digest[:19]}…, is {actual[:19]}…)",
            place=place,
            remedy="see what changed with portforge diff, then run portforge approve",
        )
    if policy.expires_at is not None and policy.expires_at <= now:
        raise ApprovalError(
            f"expired at {instant_text(policy.expires_at)}",
            place=place,
            remedy="move expiresAt and approve it again, or remove the policy",
        )
