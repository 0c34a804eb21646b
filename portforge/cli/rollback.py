"""``portforge rollback``: bring back what was in force before the last apply."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from portforge.apply.enforce import Enforcer
from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import State
from portforge.cli._node import inventory_option, open_node, reconcile
from portforge.policy import PortPolicy

EPILOG = """\b
Examples:
  portforge rollback --inventory pods.yaml
  portforge rollback --inventory pods.yaml --all
  portforge rollback --node node-a --all

\b
With --node no inventory is read: the last line above always lifts everything, at once.
Exit codes: 0 rolled back; 1 nothing to roll back to; 4 no recorder here.
"""


@click.command(epilog=EPILOG)
@partial(inventory_option, required=False)
@click.option("--node", help="Name of this node, where its inventory cannot be read.")
@click.option("--all", "everything", is_flag=True, help="Back to before the first apply.")
def command(inventory: Path | None, node: str | None, everything: bool) -> None:
    """Undo the last apply on this node; called again, the one before it."""
    if node:
        _without_inventory(node, everything)
        return
    if inventory is None:
        raise click.UsageError("give --inventory, or --node where there is none to read")
    with open_node(inventory) as opened, opened.state.alone():
        _tell(_back(opened.state, everything), opened.state)
        reconcile(opened)


def _back(state: State, everything: bool) -> list[PortPolicy]:
    policies = state.back()
    while everything and state.history():
        policies = state.back()
    return policies


def _tell(policies: list[PortPolicy], state: State) -> None:
    click.echo(f"{len(policies)} policies are in force; {len(state.history())} to go back.")


def _without_inventory(node: str, everything: bool) -> None:
    with NodeMaps(find_pins(node)) as maps:
        state = State(node)
        with state.alone():
            # Lifting everything must work with whatever is left of the state.
            known = bool(state.history()) or not everything
            policies = _back(state, everything) if known else []
            if policies:
                _tell(policies, state)
                click.echo("The running recorder takes this up within a second.")
            else:
                click.echo(
                    f"{Enforcer(maps, state).lift()} pods on {node} are under no policy now."
                )
