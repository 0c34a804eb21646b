"""``portforge status``: what this node enforces now."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from portforge.apply.status import NodeStatus, node_status
from portforge.cli._node import inventory_option, open_node

EPILOG = """\b
Examples:
  portforge status --inventory pods.yaml
  portforge status --inventory pods.yaml --json | jq '.pods[] | select(.mode == null)'

\b
Exit codes: 0 shown; 4 no recorder was started here.
"""


@click.command(epilog=EPILOG)
@inventory_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(inventory: Path, as_json: bool) -> None:
    """Show each pod's policy and mode as the kernel has them, and what was lost."""
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
