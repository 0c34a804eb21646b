"""``portforge load``: what a node's init container runs. Loads or adopts the programs, and ends.

With the programs it takes the snapshot of what was there before. The agent then adopts them
without a compiler. Not for recording: ``portforge record``, and in a cluster the agent.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from portforge.cli._node import agent_installed

EPILOG = """\b
Examples:
  portforge load --node worker-1 --kubepods /sys/fs/cgroup/kubepods.slice
  portforge load --node worker-1 --pod-uid $POD_UID --cgroups /host/cgroup

\b
Prints one line of JSON. Exit codes: 0 loaded or adopted; 4 this host cannot do it.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--node", required=True, envvar="PORTFORGE_NODE", show_envvar=True, help="This node's name."
)
@click.option(
    "--kubepods", type=click.Path(path_type=Path), help="This node's kubepods cgroup, when known."
)
@click.option(
    "--pod-uid",
    envvar="PORTFORGE_POD_UID",
    show_envvar=True,
    help="UID of the pod this runs in: its kubepods cgroup is this node's.",
)
@click.option(
    "--cgroups",
    type=click.Path(path_type=Path),
    help="The host's cgroup v2 mount as seen here; by default where it is mounted.",
)
def command(node: str, kubepods: Path | None, pod_uid: str | None, cgroups: Path | None) -> None:
    """Load the programs of this node, or adopt what is loaded, and end.

    Pods, namespaces and listeners that are there already are told to the kernel.
    """
    with agent_installed():
        from portforge_recorder import load, snapshot
    from portforge.apply.node import NodeMaps

    place = kubepods or load.find_kubepods(root=cgroups, pod_uid=pod_uid)
    before = set(load.versions(node))
    pins = load.load(node, place)
    with NodeMaps(pins) as maps:
        found = snapshot.register(maps, place)
        if pod_uid:
            # Where unknown pods are denied, the agent's own is known through nobody else.
            maps.let_pass(pod_uid)
    # Said, not fatal: a node without an agent would be worse, and the agent takes it again.
    click.echo(
        json.dumps(
            {
                "node": node,
                "pins": str(pins),
                "programs": pins.name,
                "adopted": pins in before,
                "kubepods": str(place),
                "pods": found.pods,
                "namespaces": found.namespaces,
                "listeners": found.listeners,
                "problem": str(found.problem) if found.problem else None,
            }
        )
    )
