"""``portforge apply``: put approved policies in force on this node."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from portforge.apply.enforce import approved
from portforge.cli._node import inventory_option, open_node, reconcile
from portforge.errors import PolicyError
from portforge.policy import Mode, read_policies

EPILOG = """\b
Examples:
  portforge apply review/policies --inventory pods.yaml --mode audit
  portforge apply review/policies --inventory pods.yaml --mode enforce
  portforge rollback --inventory pods.yaml

\b
Exit codes: 0 in force; 1 a policy cannot be used or is not approved; 4 no recorder here.
"""


@click.command(epilog=EPILOG)
@click.argument("policies", type=click.Path(path_type=Path))
@inventory_option
@click.option(
    "--mode",
    type=click.Choice(["record", "audit", "enforce"]),
    help="Instead of the mode each policy names. The approval does not cover the mode.",
)
def command(policies: Path, inventory: Path, mode: str | None) -> None:
    """Put the policies in POLICIES in force on this node, in place of those before.

    Every policy must be approved and unchanged since; else nothing is changed. What was in force
    is kept: portforge rollback brings it back. Pods that come later get their policy from the
    recorder.
    """
    read = read_policies(policies)
    if not read:
        raise PolicyError("no policies here", place=str(policies), remedy="give a file or folder")
    ready = approved(read, Mode(mode.capitalize()) if mode else None, datetime.now(UTC))
    # Alone throughout: going back must not undo what another apply changed meanwhile.
    with open_node(inventory) as node, node.state.alone():
        node.state.change(ready)
        try:
            reconcile(node)
        except BaseException:
            node.state.back()  # the kernel keeps what it had, or the recorder brings it back
            raise
