"""``portforge confirm``: end the trial of policies in a cluster; what they deny stays denied."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portforge.cli._cluster import cluster_options, open_cluster

if TYPE_CHECKING:
    from portforge.kube.policies import Live
    from portforge.kube.reports import NodeReport

EPILOG = """\b
Examples:
  portforge apply review/policies --cluster --mode enforce --confirm-within 10m
  portforge confirm
  portforge confirm -n shop deployment-cart
  portforge confirm --all

\b
Without names and --all it only shows which trial ends when. Confirming needs the right enforce.
A trial that has ended cannot be confirmed: the nodes went back. Apply again. Nor can one that
a node gave up early, because too much was denied there, unless you say --force.
Exit codes: 0 confirmed, or shown; 1 not on trial, or its trial has ended; 5 the cluster refuses.
"""


@click.command(epilog=EPILOG, short_help="Keep what is on trial in a cluster.")
@click.argument("names", nargs=-1)
@click.option("-n", "--namespace", help="Only policies of this namespace.")
@click.option("--all", "everything", is_flag=True, help="Every policy on trial.")
@click.option("--force", is_flag=True, help="Also what nodes gave up because too much was denied.")
@cluster_options
def command(
    names: tuple[str, ...],
    namespace: str | None,
    everything: bool,
    force: bool,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Confirm the policies NAMES (name, or namespace/name): they stay in Enforce."""
    from portforge.kube.apply import confirm
    from portforge.kube.policies import chosen, list_policies
    from portforge.kube.reports import list_reports

    if names and everything:
        raise click.UsageError("give names or --all, not both")
    api = open_cluster(kubeconfig, context)
    now = datetime.now(UTC)
    found = chosen(list_policies(api, namespace), names)
    trials = [live for live in found if live.policy and live.policy.confirm_before]
    if not names and not everything:
        _show(trials, now)
        return
    _refuse(found if names else trials, now, named=bool(names))
    if trials:
        for sentence in given_up(trials, list_reports(api), force=force):
            click.echo(f"OVERRIDDEN with --force: {sentence}", err=True)
    for live in trials:
        confirm(api, live)
        click.echo(f"{live.name}: confirmed, stays in Enforce")
    if not trials:
        click.echo("nothing is on trial")


def _show(trials: list[Live], now: datetime) -> None:
    for live in trials:
        click.echo(f"{live.name}: {trial_text(live, now)}")
    click.echo(
        f"{len(trials)} on trial; keep them with: portforge confirm --all"
        if trials
        else "nothing is on trial"
    )


def trial_text(live: Live, now: datetime) -> str:
    """When its trial ends, or ended; empty where there is none."""
    if live.policy is None or live.policy.confirm_before is None:
        return ""
    end = live.policy.confirm_before
    seconds = int((end - now).total_seconds())
    if seconds <= 0:
        return f"trial ended {end:%Y-%m-%d %H:%M:%S} UTC, nodes went back"
    denied = live.status.get("denied")
    count = "" if denied is None else f", {denied:,} denied so far"
    return f"on trial until {end:%H:%M:%S} UTC ({seconds // 60}m {seconds % 60}s left{count})"


def _refuse(asked: list[Live], now: datetime, *, named: bool) -> None:
    from portforge.errors import ApprovalError

    for live in asked:
        end = live.policy.confirm_before if live.policy else None
        if end is None and named:
            raise ApprovalError(
                "is not on trial", place=live.name, remedy="portforge confirm shows what is"
            )
        if end is not None and end <= now:
            raise ApprovalError(
                f"its trial ended at {end:%Y-%m-%d %H:%M:%S} UTC and the nodes went back",
                place=live.name,
                remedy="apply it again: portforge apply --cluster --mode enforce",
            )


def given_up(trials: list[Live], reports: list[NodeReport], *, force: bool) -> list[str]:
    """Which node gave up which trial, and why; ApprovalError for the first, without ``force``."""
    from portforge.errors import ApprovalError

    told = []
    for live in trials:
        for report in reports:
            for on_node in report.policies:
                same = f"{on_node.namespace}/{on_node.name}" == live.name
                if not same or on_node.state != "RolledBack":
                    continue
                why = f"{report.node} gave the trial up: {on_node.problem or 'no reason given'}"
                if not force:
                    raise ApprovalError(
                        why,
                        place=live.name,
                        remedy="look at what was denied and mend the rules; or say --force",
                    )
                told.append(f"{live.name}: {why}")
    return told
