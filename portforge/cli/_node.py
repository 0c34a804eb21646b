"""What the commands that touch this node share: the inventory option and the open node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import Console

from portforge.apply.enforce import Applied, Enforcer
from portforge.apply.inventory import Inventory
from portforge.apply.node import NodeMaps, find_pins
from portforge.apply.state import State
from portforge.errors import HostError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class OpenNode(NamedTuple):
    """This node: who is who, its maps and its state."""

    inventory: Inventory
    maps: NodeMaps
    state: State


def inventory_option(command: _Command, required: bool = True) -> _Command:
    """``--inventory FILE``, or the environment's PORTFORGE_INVENTORY."""
    return click.option(
        "--inventory",
        required=required,
        envvar="PORTFORGE_INVENTORY",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="YAML file that says which pod, Service and node has which address.",
    )(command)


@contextmanager
def agent_installed() -> Iterator[None]:
    """Say what to install where the node agent, or what it needs, is missing."""
    try:
        yield
    except ImportError as missing:
        raise HostError(
            f"the node agent is not installed ({missing.name})",
            remedy="pip install 'portforge[node]'",
        ) from missing


@contextmanager
def open_node(inventory: Path) -> Iterator[OpenNode]:
    """The node that the inventory names, with its pinned maps."""
    with agent_installed():
        from portforge_recorder.identity import StaticSource
    known = StaticSource(inventory).inventory()
    with NodeMaps(find_pins(known.node)) as maps:
        yield OpenNode(known, maps, State(known.node))


def reconcile(node: OpenNode) -> Applied:
    """Make the kernel agree with the node's state, and say what that meant."""
    applied = Enforcer(node.maps, node.state).reconcile(node.inventory)
    console = Console(highlight=False)
    console.print(f"{applied.pods} pods on {node.inventory.node} are under a policy now.")
    for workload in applied.absent:
        console.print(f"  no pod here: {workload.namespace}/{workload.slug}", style="yellow")
    return applied
