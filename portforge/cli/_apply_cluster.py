"""``portforge apply --cluster``: check, plan, apply, and say what happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from click.exceptions import Exit
from rich.console import Console

from portforge.cli._cluster import open_cluster
from portforge.errors import PolicyError
from portforge.kube._refused import RefusedError
from portforge.kube.apply import Plan, apply_policies, plan
from portforge.kube.client import username
from portforge.kube.policies import name_of, read_policy
from portforge.kube.surroundings import look_around
from portforge.policy import Mode, PortPolicy
from portforge.policy._safety import risks

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


@dataclass(frozen=True)
class Options:
    """What the command line says beside the policies and the cluster."""

    mode: Mode | None
    confirm_within: timedelta | None
    capture: Path | None
    dry_run: bool
    force: bool
    force_conflicts: bool


def apply_to_cluster(
    policies: Sequence[PortPolicy],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    options: Options,
) -> None:
    """Apply all, or say which of them was applied before one failed."""
    for policy in policies:
        if namespace and policy.namespace != namespace:
            raise PolicyError(
                f"is not in namespace {namespace}",
                place=name_of(policy),
                remedy="leave out -n, or give the policies of that namespace alone",
            )
        if options.mode is None and policy.mode is Mode.ENFORCE:
            raise PolicyError(
                "asks for Enforce",
                place=name_of(policy),
                remedy="say --mode enforce to approve it in your name, or --mode audit",
            )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    api = open_cluster(kubeconfig, context)
    if options.mode is Mode.ENFORCE:
        _check_safety(api, policies, options)
    user = username(api)
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + options.confirm_within if options.confirm_within else None
    plans = [
        plan(
            policy,
            read_policy(api, policy.namespace, policy.name),
            user=user,
            mode=options.mode or (Mode.RECORD if policy.mode is Mode.RECORD else None),
            now=now,
            confirm_before=until,
        )
        for policy in policies
    ]
    done: list[Plan] = []

    def told(applied: Plan) -> None:
        done.append(applied)
        _tell(console, applied, options.dry_run)

    try:
        apply_policies(
            api,
            plans,
            force_conflicts=options.force_conflicts,
            dry_run=options.dry_run,
            told=told,
        )
    except RefusedError as no:
        if not options.dry_run:
            left = len(plans) - len(done)
            console.print(f"{len(done)} of {len(plans)} policies applied, {left} not.")
        no.explain(_what_to_do(no, options.mode))
        raise
    if until and not options.dry_run:
        console.print(
            f"On trial until {until:%Y-%m-%d %H:%M:%S} UTC: nodes go back by themselves unless "
            "you say: portforge confirm --all"
        )


def _check_safety(api: ApiClient, policies: Sequence[PortPolicy], options: Options) -> None:
    aloud = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    around, unknown = look_around(api, options.capture)
    for sentence in unknown:
        aloud.print(sentence, style="yellow")
    found = risks(policies, around, datetime.now(UTC))
    if found and not options.force:
        for risk in found:
            aloud.print(str(risk))
        aloud.print(
            f"nothing was applied: {len(found)} finding(s); mend the policies, or override aloud "
            "with --force",
            style="red",
        )
        raise Exit(3)
    for risk in found:
        aloud.print(f"OVERRIDDEN with --force: {risk}", style="bold yellow")


def _what_to_do(no: RefusedError, mode: Mode | None) -> str:
    if not no.by_admission:
        return ""
    if mode is Mode.ENFORCE:
        return (
            "rules and approval come from two people: the author runs portforge apply --cluster, "
            "then somebody with the role portforge-approver runs it with --mode enforce"
        )
    return "ask somebody with the role portforge-approver"


def _tell(console: Console, applied: Plan, dry_run: bool) -> None:
    after = applied.after
    if applied.before in (None, after):
        mode = f"in {after}" if applied.before is None else f"stays in {after}"
    else:
        mode = f"{applied.before} → {after}"
    author = applied.policy.author or ""
    approval = applied.policy.approval
    by = f", approved by {approval.by}" if approval and after == Mode.ENFORCE else ""
    would = " (dry run)" if dry_run else ""
    console.print(f"{name_of(applied.policy)}: {applied.change}, {mode}, by {author}{by}{would}")
    if after == Mode.ENFORCE and approval is None and applied.change == "changed":
        console.print(
            "  the approval no longer holds: nodes judge it in Audit until somebody else runs "
            "portforge apply --cluster --mode enforce",
            style="bold yellow",
        )
