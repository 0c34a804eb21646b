"""``portforge rollback``: bring back what was before the last apply; in a cluster, Audit."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portforge.apply.enforce import Enforcer
from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import State
from portforge.cli._cluster import cluster_options, open_cluster
from portforge.cli._node import inventory_option, open_node, reconcile
from portforge.policy import Mode, PortPolicy

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

EPILOG = """\b
Examples:
  portforge rollback --inventory pods.yaml
  portforge rollback --inventory pods.yaml --all
  portforge rollback --node node-a --all
  portforge rollback --cluster -n shop deployment-cart

\b
With --node no inventory is read: the third line above always lifts everything, at once.
With --cluster the policies NAMES, or all of -n NAMESPACE with --all, go back to Audit on every
node: rules stay, the approval goes. Needs the right enforce. Without that: portforge break-glass.
Exit codes: 0 rolled back; 1 nothing to roll back to; 4 no recorder here; 5 the cluster refuses.
"""


@click.command(epilog=EPILOG)
@partial(inventory_option, required=False)
@click.option("--node", help="Name of this node, where its inventory cannot be read.")
@click.option("--all", "everything", is_flag=True, help="Back to before the first apply.")
@click.option("--cluster", is_flag=True, help="In the cluster: put NAMES back to Audit.")
@click.option("-n", "--namespace", help="With --cluster: where the policies are.")
@click.argument("names", nargs=-1)
@cluster_options
def command(
    inventory: Path | None,
    node: str | None,
    everything: bool,
    cluster: bool,
    namespace: str | None,
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Undo the last apply on this node; called again, the one before it."""
    if cluster:
        _in_cluster(open_cluster(kubeconfig, context), names, namespace, everything)
        return
    if names:
        raise click.UsageError("NAMES are for --cluster")
    if node:
        _without_inventory(node, everything)
        return
    if inventory is None:
        raise click.UsageError("give --inventory, or --node where there is none to read")
    with open_node(inventory) as opened, opened.state.alone():
        _tell(_back(opened.state, everything), opened.state)
        reconcile(opened)


def _in_cluster(
    api: ApiClient, names: tuple[str, ...], namespace: str | None, everything: bool
) -> None:
    from portforge.kube.apply import to_audit
    from portforge.kube.policies import chosen, list_policies

    if bool(names) is everything or (everything and not namespace):
        raise click.UsageError("give NAMES, or -n NAMESPACE and --all")
    for live in chosen(list_policies(api, namespace), names):
        if live.policy and live.policy.mode is not Mode.ENFORCE:
            click.echo(f"{live.name}: is in {live.policy.mode} already")
            continue
        to_audit(api, live)
        click.echo(f"{live.name}: Enforce → Audit")


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
