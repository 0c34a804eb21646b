"""``portforge status``: what this node enforces now, or what a cluster's nodes do."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from portforge.cli._cluster import cluster_options
from portforge.cli._node import inventory_option

if TYPE_CHECKING:
    from portforge.apply.status import NodeStatus

EPILOG = """\b
Examples:
  portforge status --inventory pods.yaml
  portforge status --inventory pods.yaml --json | jq '.pods[] | select(.mode == null)'
  portforge status --cluster
  portforge status --cluster -n shop --json

\b
Exit codes: 0 shown; 4 no recorder was started here; 5 the cluster cannot be asked.
"""


@click.command(epilog=EPILOG, short_help="What is in force, here or in a cluster.")
@partial(inventory_option, required=False)
@click.option("--cluster", is_flag=True, help="Of the cluster: every policy, every node.")
@click.option("-n", "--namespace", help="With --cluster: only policies of this namespace.")
@cluster_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    inventory: Path | None,
    cluster: bool,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    as_json: bool,
) -> None:
    """Show each pod's policy and mode as the kernel has them, and what was lost.

    With --cluster: what is asked for each policy and what the nodes say they do.
    """
    if cluster:
        from portforge.cli._status_cluster import cluster_status

        cluster_status(kubeconfig, context, namespace, as_json)
        return
    if inventory is None:
        raise click.UsageError("give --inventory for this node, or --cluster")
    from portforge.apply.status import node_status
    from portforge.cli._node import open_node

    with open_node(inventory) as node:
        status = node_status(node.maps, node.state, node.inventory)
    if as_json:
        click.echo(json.dumps(status.as_json(), indent=2))
    else:
        show(status, Console(highlight=False, markup=False))


def show(status: NodeStatus, console: Console) -> None:
    """Print the status as a table."""
    table = Table(box=None, pad_edge=False)
    for heading in ("pod", "workload", "mode", "established", "restricts"):
        table.add_column(heading, overflow="fold")
    for pod in status.pods:
        table.add_row(
            pod.pod,
            pod.workload or "not in the inventory",
            pod.mode or "no policy",
            pod.established or "–",
            ", ".join(pod.restricts) or "–",
        )
    console.print(table)
    console.print(
        f"{status.node}: {status.rules} rule and {status.peers} peer entries, "
        f"{status.listeners} listeners, {status.history} changes to go back."
    )
    for reason, count in status.losses.items():
        console.print(f"lost since the programs were loaded: {reason} {count:,}", style="yellow")
