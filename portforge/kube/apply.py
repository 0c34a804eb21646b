"""Put policies into the cluster, confirm them, take them back. Who may, the cluster decides.

Two field managers share the object. ``portforge`` owns what the author writes: the rules and the
author's name. ``portforge-approval`` owns what decides how they are in force: mode, approval,
confirmBefore. So an author who applies again cannot lift enforcement by leaving a field out, and
an approver does not become an author.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from portforge.kube._refused import APPLY, RefusedError, ask
from portforge.kube.policies import Live, Object, from_object, path_of, read_policy, to_object
from portforge.policy import Mode, PortPolicy, approve
from portforge.policy._approval import NOT_UNDER_DIGEST

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = [
    "APPROVAL_MANAGER",
    "AUTHOR_MANAGER",
    "Plan",
    "Step",
    "apply_policies",
    "confirm",
    "plan",
    "to_audit",
]

AUTHOR_MANAGER = "portforge"
APPROVAL_MANAGER = "portforge-approval"
_OURS = {AUTHOR_MANAGER, APPROVAL_MANAGER}


@dataclass(frozen=True)
class Step:
    """One server-side apply: the fields that ``manager`` is to own from then on.

    ``planned_on`` is UID and generation of the object it was planned on. The agents write the
    status at any moment, which makes a new resourceVersion, but not a new generation.
    """

    manager: str
    body: Object
    planned_on: tuple[str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """What applying one policy takes. ``before`` and ``after`` are the modes asked for."""

    policy: PortPolicy
    change: Literal["created", "changed", "unchanged"]
    steps: tuple[Step, ...]
    before: str | None
    after: str


def _part(policy: PortPolicy, manager: str | None, version: str | None = None) -> Object:
    """The fields of one manager, or of both; with ``version`` only on top of that very one."""
    whole = to_object(policy)
    if manager is not None:
        approvers = manager == APPROVAL_MANAGER
        whole["spec"] = {
            k: v for k, v in whole["spec"].items() if (k in NOT_UNDER_DIGEST) is approvers
        }
    if version is not None:
        whole["metadata"]["resourceVersion"] = version
    return whole


def _planned_on(live: Live | None) -> tuple[str, int] | None:
    metadata = live.data["metadata"] if live else {}
    uid, generation = metadata.get("uid"), metadata.get("generation")
    return (uid, generation) if uid and generation else None


def _same_rules(one: PortPolicy, other: PortPolicy) -> bool:
    bare = {"mode": Mode.AUDIT, "approval": None, "confirm_before": None, "author": None}
    return one.model_copy(update=bare) == other.model_copy(update=bare)


def plan(
    wanted: PortPolicy,
    live: Live | None,
    *,
    user: str,
    mode: Mode | None,
    now: datetime,
    confirm_before: datetime | None = None,
) -> Plan:
    """The steps from ``live`` to ``wanted``. Pure.

    Parameters
    ----------
    user: who applies. Rules that differ from the cluster's are written in this name; rules that
        do not differ keep their author, so that an approver does not become one.
    mode: None leaves the mode that the cluster has; a new policy begins in Audit.
    confirm_before: the end of the trial, for Enforce.
    """
    old = live.policy if live else None
    version = live.data["metadata"].get("resourceVersion") if live else None
    planned_on = _planned_on(live)
    same = old is not None and old.author is not None and _same_rules(wanted, old)
    after = mode or (old.mode if old else Mode.AUDIT)
    before = str(old.mode) if old else None
    author = old.author if same and old else user
    bare = {"author": author, "mode": after, "approval": None, "confirm_before": None}
    content = wanted.model_copy(update=bare)
    change: Literal["created", "changed"] = "changed" if live else "created"
    if mode is Mode.ENFORCE:
        approved = approve(content, user, now).model_copy(update={"confirm_before": confirm_before})
        approval = Step(APPROVAL_MANAGER, _part(approved, APPROVAL_MANAGER, version), planned_on)
        if same:
            return Plan(approved, change, (approval,), before, after)
        # One object at once: no node may see new rules under the old approval. Then each
        # manager keeps what is its own.
        return Plan(
            approved,
            change,
            (
                Step(APPROVAL_MANAGER, _part(approved, None, version), planned_on),
                Step(AUTHOR_MANAGER, _part(approved, AUTHOR_MANAGER)),
                Step(APPROVAL_MANAGER, _part(approved, APPROVAL_MANAGER)),
            ),
            before,
            after,
        )
    steps: list[Step] = []
    if mode is not None and old is not None and _needs_mode(old, mode):
        part = _part(content, APPROVAL_MANAGER, version)
        steps.append(Step(APPROVAL_MANAGER, part, planned_on))
    if not same:
        steps.append(Step(AUTHOR_MANAGER, _part(content, AUTHOR_MANAGER)))
    if old is None and after is not Mode.AUDIT:
        steps.append(Step(APPROVAL_MANAGER, _part(content, APPROVAL_MANAGER)))
    return Plan(content, change if steps else "unchanged", tuple(steps), before, after)


def _needs_mode(old: PortPolicy, mode: Mode) -> bool:
    return (old.mode, old.approval, old.confirm_before) != (mode, None, None)


def send_step(api: ApiClient, step: Step, *, dry_run: bool, force: bool) -> Object:
    """Apply one step. Fields move between our own two managers without being asked twice."""
    namespace, name = (step.body["metadata"][key] for key in ("namespace", "name"))
    params = {"fieldManager": step.manager, "fieldValidation": "Strict"}
    if dry_run:
        params["dryRun"] = "All"
    if force:
        params["force"] = "true"
    try:
        return ask(
            api,
            "PATCH",
            path_of(namespace, name),
            place=f"{namespace}/{name}",
            params=params,
            body=step.body,
            content_type=APPLY,
        )
    except RefusedError as no:
        if not force and no.managers and set(no.managers) <= _OURS:
            return send_step(api, step, dry_run=dry_run, force=True)
        newer = _same_content(api, step) if no.stale else None
        if newer is None:
            raise
    return send_step(api, newer, dry_run=dry_run, force=force)


def _same_content(api: ApiClient, step: Step) -> Step | None:
    """The step on top of the present object, where only status or metadata changed since."""
    planned = step.body["metadata"]
    live = read_policy(api, planned["namespace"], planned["name"])
    if live is None or step.planned_on is None or _planned_on(live) != step.planned_on:
        return None
    version = live.data["metadata"]["resourceVersion"]
    if version == planned["resourceVersion"]:
        return None
    body = {**step.body, "metadata": {**planned, "resourceVersion": version}}
    return replace(step, body=body)


def apply_policies(
    api: ApiClient,
    plans: Sequence[Plan],
    *,
    force_conflicts: bool = False,
    dry_run: bool = False,
    told: Callable[[Plan], None] = lambda _: None,
) -> None:
    """Ask the server about every plan first; only then apply them, one after the other.

    ``told`` is called after each that was applied, so that a failure midway leaves no doubt.

    Raises
    ------
    RefusedError: the first that the server does not take. ``told`` was called for those before it.
    """
    for each in plans:
        for step in each.steps[:1]:
            send_step(api, step, dry_run=True, force=force_conflicts)
    for each in plans:
        for step in () if dry_run else each.steps:
            send_step(api, step, dry_run=False, force=force_conflicts)
        told(each)


def confirm(api: ApiClient, live: Live) -> None:
    """End the trial of ``live``, which stays in Enforce; RefusedError where it changed since."""
    _settle(api, live, {"confirm_before": None})


def to_audit(api: ApiClient, live: Live) -> None:
    """Put ``live`` back to Audit; its approval goes too."""
    _settle(api, live, {"mode": Mode.AUDIT, "approval": None, "confirm_before": None})


def _settle(api: ApiClient, live: Live, update: dict[str, object]) -> None:
    policy = live.policy or from_object(live.data)
    wanted = policy.model_copy(update=update)
    version = live.data["metadata"]["resourceVersion"]
    part = _part(wanted, APPROVAL_MANAGER, version)
    step = Step(APPROVAL_MANAGER, part, _planned_on(live))
    after = send_step(api, step, dry_run=False, force=False)
    left = [f for f in ("approval", "confirmBefore") if f in after["spec"]]
    gone = [f for f in left if f not in step.body["spec"]]
    if gone:  # another field manager wrote it too, say kubectl edit
        ask(
            api,
            "PATCH",
            path_of(policy.namespace, policy.name),
            place=live.name,
            params={"fieldManager": APPROVAL_MANAGER},
            body={"spec": dict.fromkeys(gone)},
            content_type="application/merge-patch+json",
        )
