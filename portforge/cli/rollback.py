"""``portforge rollback``: bring back what was in force before the last apply."""

from __future__ import annotations

from pathlib import Path

import click

from portforge.cli._node import inventory_option, open_node, reconcile

EPILOG = """\b
Examples:
  portforge rollback --inventory pods.yaml
  portforge rollback --inventory pods.yaml --all

\b
Exit codes: 0 rolled back; 1 nothing to roll back to; 4 no recorder here.
"""


@click.command(epilog=EPILOG)
@inventory_option
@click.option("--all", "everything", is_flag=True, help="Back to before the first apply.")
def command(inventory: Path, everything: bool) -> None:
    """Undo the last apply on this node; called again, the one before it."""
    with open_node(inventory) as node, node.state.alone():
        policies = node.state.back()
        while everything and node.state.history():
            policies = node.state.back()
        click.echo(
            f"{len(policies)} policies are in force; {len(node.state.history())} to go back."
        )
        reconcile(node)
