"""``portforge apply``: put policies in force, on this node or in a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click

from portforge.cli._cluster import cluster_options, lasting
from portforge.cli._node import inventory_option
from portforge.errors import PolicyError
from portforge.policy import Mode, PortPolicy, read_policies

EPILOG = """\b
On this node:
  portforge apply review/policies --inventory pods.yaml --mode audit
  portforge apply review/policies --inventory pods.yaml --mode enforce
  portforge rollback --inventory pods.yaml

\b
Examples in a cluster:
  portforge apply review/policies --cluster
  portforge apply review/policies --cluster --mode enforce --confirm-within 10m
  portforge confirm --all
  portforge rollback --cluster -n shop deployment-cart

\b
In a cluster the rules are written in your name, as their author; Audit needs no approval.
--mode enforce approves the rules in your name: the cluster refuses that to whoever lacks the
right enforce, and to their author. Without --mode a policy keeps the mode that it has there;
a new one begins in Audit. Before Enforce it is checked that DNS, the API server for workloads
that a --capture saw with it, and the recorder itself stay reachable. The kubelet's probes always
do: traffic from a pod's own node to its ingress is allowed.

\b
Exit codes: 0 in force; 1 a policy cannot be used or is not approved; 3 it would cut off
what the workload needs; 4 no recorder here; 5 the cluster refuses or cannot be reached.
"""


@click.command(epilog=EPILOG, short_help="Put policies in force, here or in a cluster.")
@click.argument("policies", type=click.Path(path_type=Path))
@partial(inventory_option, required=False)
@click.option("--cluster", is_flag=True, help="Into the cluster, not onto this node.")
@cluster_options
@click.option("-n", "--namespace", help="Refuse policies of another namespace.")
@click.option(
    "--mode",
    type=click.Choice(["record", "audit", "enforce"]),
    help="Instead of the mode each policy names. The approval does not cover the mode.",
)
@click.option(
    "--confirm-within",
    type=lasting,
    metavar="10m",
    help="Enforce on trial: nodes go back by themselves unless: portforge confirm.",
)
@click.option(
    "--capture",
    type=click.Path(path_type=Path),
    help="Check against what was recorded who needs DNS and the API server.",
)
@click.option("--dry-run", is_flag=True, help="Ask the server, change nothing.")
@click.option("--force", is_flag=True, help="Enforce in spite of what the safety check found.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields of other field managers.")
def command(
    policies: Path,
    inventory: Path | None,
    cluster: bool,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    mode: str | None,
    confirm_within: timedelta | None,
    capture: Path | None,
    dry_run: bool,
    force: bool,
    force_conflicts: bool,
) -> None:
    """Put the policies in POLICIES in force on this node, in place of those before.

    Every policy must be approved and unchanged since; else nothing is changed. What was in force
    is kept: portforge rollback brings it back. Pods that come later get their policy from the
    recorder.

    With --cluster they become objects of the cluster, and every node follows them.
    """
    only_there = {
        "--kubeconfig": kubeconfig,
        "--context": context,
        "--namespace": namespace,
        "--confirm-within": confirm_within,
        "--capture": capture,
        "--dry-run": dry_run,
        "--force": force,
        "--force-conflicts": force_conflicts,
    }
    if not cluster and (given := [name for name, value in only_there.items() if value]):
        raise click.UsageError(f"{given[0]} is for --cluster")
    if confirm_within and mode != "enforce":
        raise click.UsageError("--confirm-within is for --mode enforce")
    read = read_policies(policies)
    if not read:
        raise PolicyError("no policies here", place=str(policies), remedy="give a file or folder")
    wanted = Mode(mode.capitalize()) if mode else None
    if cluster:
        from portforge.cli._apply_cluster import Options, apply_to_cluster

        options = Options(wanted, confirm_within, capture, dry_run, force, force_conflicts)
        apply_to_cluster(read, kubeconfig, context, namespace, options)
        return
    if inventory is None:
        raise click.UsageError("give --inventory for this node, or --cluster")
    _on_this_node(read, inventory, wanted)


def _on_this_node(read: list[PortPolicy], inventory: Path, mode: Mode | None) -> None:
    from portforge.apply.enforce import approved
    from portforge.cli._node import open_node, reconcile

    ready = approved(read, mode, datetime.now(UTC))
    # Alone throughout: going back must not undo what another apply changed meanwhile.
    with open_node(inventory) as node, node.state.alone():
        node.state.change(ready)
        try:
            reconcile(node)
        except BaseException:
            node.state.back()  # the kernel keeps what it had, or the recorder brings it back
            raise
