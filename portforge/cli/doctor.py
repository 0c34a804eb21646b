"""``portforge doctor``: what this host can and cannot do, and why. And the way out of the kernel.

With ``--cluster`` it asks the same of every node's agent; with ``--clean…`` it leaves nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from portforge.cli._cluster import cluster_options, open_cluster
from portforge.errors import HostError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

EPILOG = """\b
Examples:
  portforge doctor
  portforge doctor --json | jq '.checks[] | select(.good | not)'
  portforge doctor --clean node-a
  portforge doctor --cluster --wait 120
  portforge doctor --clean-cluster portforge --state /var/lib/portforge/state

\b
Reading captures, recommending, simulating and approving work on any host with Python.
--clean refuses while a recorder of that node runs.
Exit codes: 0 this host can record and enforce, or what was asked is done;
3 a node of the cluster does not record; 4 this host cannot; 5 the cluster refuses.
"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--clean", metavar="NODE", help="Take everything of NODE out of the kernel.")
@click.option("--cluster", is_flag=True, help="Ask whether every node's agent records.")
@click.option(
    "--clean-cluster", metavar="DAEMONSET", help="End the agents; clean every node's kernel."
)
@click.option("--state", metavar="FOLDER", help="With --clean…: remove what was in force, too.")
@click.option("--wait", type=float, default=0, metavar="SECONDS", help="How long to wait for it.")
@click.option(
    "-n",
    "--namespace",
    default="portforge",
    envvar="PORTFORGE_NAMESPACE",
    show_default=True,
    help="Where the agents run.",
)
@cluster_options
def command(
    as_json: bool,
    clean: str | None,
    cluster: bool,
    clean_cluster: str | None,
    state: str | None,
    wait: float,
    namespace: str,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Try what recording and enforcing need, one by one. Leaves nothing behind."""
    if sum(map(bool, (clean, cluster, clean_cluster))) > 1:
        raise click.UsageError("--clean, --cluster and --clean-cluster are three questions: one")
    if state and not (clean or clean_cluster):
        raise click.UsageError("--state goes with --clean or --clean-cluster")
    if cluster:
        _cluster(open_cluster(kubeconfig, context), namespace, wait)
    elif clean_cluster:
        api = open_cluster(kubeconfig, context)
        _clean_cluster(api, clean_cluster, namespace, state, wait or 300)
    elif clean:
        _clean(clean, Path(state) if state else None, wait)
    else:
        _host(as_json)


def _host(as_json: bool) -> None:
    console = Console(highlight=False, markup=False)
    try:
        from portforge_recorder import doctor
    except ImportError as missing:
        console.print(f"✗ node agent: {missing.name} is missing; pip install 'portforge[node]'")
        sys.exit(4)
    checks = []
    for check in doctor.examine():
        checks.append(check)
        if not as_json:
            console.print(f"{'✓' if check.good else '✗'} {check.name}: {check.answer}")
            if not check.good:
                console.print(f"    needed for: {check.needed_for}")
    pinned = [p.name for p in doctor.leftovers()]
    able = all(c.good for c in checks if "without" not in c.needed_for)
    if as_json:
        report = {"schema": 1, "able": able, "checks": [asdict(c) for c in checks]}
        click.echo(json.dumps({**report, "pinned": pinned}, indent=2))
    else:
        console.print(f"pinned here: {', '.join(pinned) or 'nothing'}")
    sys.exit(0 if able else 4)


def _clean(node: str, state: Path | None, wait: float) -> None:
    """Every version of this node's pins, and its folder below ``state``."""
    from portforge.cli._node import agent_installed

    if node in {".", ".."} or "/" in node:
        raise click.UsageError(f"{node!r} is no node's name")
    with agent_installed():
        from portforge_recorder import load
    with _alone(node, wait):  # one that runs would record nothing and not know
        pins = load.versions(node)
        for folder in pins:
            parts = ("links", "programs", "maps")
            counts = [f"{len(list((folder / part).glob('*')))} {part}" for part in parts]
            load.remove(folder)
            click.echo(f"{node}: {folder.name} is out of the kernel ({', '.join(counts)}).")
        click.echo(f"{len(pins)} sets of programs removed: {node} enforces nothing now.")
        if state and (state / node).is_dir():
            try:
                shutil.rmtree(state / node)
            except OSError as error:
                raise HostError(
                    error.strerror or str(error), place=str(state / node), remedy="remove it"
                ) from error
            click.echo(f"{state / node} removed.")


@contextmanager
def _alone(node: str, wait: float) -> Iterator[None]:
    """Hold the recorder's lock; wait for one that is ending."""
    from portforge_recorder.only import only_recorder

    until = time.monotonic() + wait
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(only_recorder(node))
                break
            except HostError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.5)
        yield


def _cluster(api: ApiClient, namespace: str, wait: float) -> None:
    from portforge.kube.agents import examine

    nodes, wrong = examine(api, namespace, wait)
    for sentence in wrong:
        click.echo(f"✗ {sentence}")
    if wrong:
        sys.exit(3)
    click.echo(f"✓ {nodes} nodes record, and their canaries prove it.")


def _clean_cluster(
    api: ApiClient, daemonset: str, namespace: str, state: str | None, wait: float
) -> None:
    from portforge.kube.agents import clean_nodes

    nodes = clean_nodes(api, namespace, daemonset, state, wait, click.echo)
    click.echo(f"Nothing of Port Policy Forge is in the kernels of {nodes} nodes.")
